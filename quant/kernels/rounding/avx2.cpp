// AVX2 with FMA and F16C: a pair of registers holds the 16 lanes of the canonical sums.
#include <immintrin.h>

#include <cstdint>

#include "quant/kernels/rounding/rounding.h"

namespace llmq::quant {
namespace {

template <FloatType kType>
constexpr int64_t kSizeBytes = kType == FloatType::kFp32 ? 4 : 2;

// 16 float32 values: low holds lanes 0..7.
struct Lanes {
  __m256 low;
  __m256 high;
};

__m256 widen_bf16(__m128i bits) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
}

// Elements [index, index + 16) of a row as float32.
template <FloatType kType>
Lanes load(const void* row, int64_t index) {
  const char* source = static_cast<const char*>(row) + index * kSizeBytes<kType>;
  if constexpr (kType == FloatType::kFp32) {
    const auto* values = reinterpret_cast<const float*>(source);
    return {_mm256_loadu_ps(values), _mm256_loadu_ps(values + 8)};
  } else {
    const auto* halves = reinterpret_cast<const __m128i*>(source);
    const __m128i low = _mm_loadu_si128(halves);
    const __m128i high = _mm_loadu_si128(halves + 1);
    if constexpr (kType == FloatType::kBf16) return {widen_bf16(low), widen_bf16(high)};
    return {_mm256_cvtph_ps(low), _mm256_cvtph_ps(high)};
  }
}

// The last n_left < 16 elements of a row, followed by zeros.
template <FloatType kType>
Lanes load_tail(const void* row, int64_t index, int64_t n_left) {
  alignas(32) char buffer[16 * kSizeBytes<kType>] = {};
  __builtin_memcpy(buffer, static_cast<const char*>(row) + index * kSizeBytes<kType>,
                   static_cast<size_t>(n_left * kSizeBytes<kType>));
  return load<kType>(buffer, 0);
}

__m256i magnitude_bits(__m256 x) {
  return _mm256_and_si256(_mm256_castps_si256(x), _mm256_set1_epi32(0x7fffffff));
}

__m256i max_magnitude(Lanes x, __m256i magnitude) {
  return _mm256_max_epu32(_mm256_max_epu32(magnitude, magnitude_bits(x.low)),
                          magnitude_bits(x.high));
}

// True when a lane holds at least `bound`; compares as unsigned.
bool any_at_least(__m256i values, unsigned bound) {
  const __m256i bounds = _mm256_set1_epi32(static_cast<int>(bound));
  return _mm256_movemask_epi8(_mm256_cmpeq_epi32(_mm256_max_epu32(values, bounds), values)) != 0;
}

// Lanes 4 apart, then 2 and 1.
template <typename Combine>
float reduce(__m256 x, Combine combine) {
  __m128 y = combine(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
  y = combine(y, _mm_movehl_ps(y, y));
  y = combine(y, _mm_shuffle_ps(y, y, 0x55));
  return _mm_cvtss_f32(y);
}

float reduce_add(Lanes x) {
  return reduce(_mm256_add_ps(x.low, x.high), [](__m128 a, __m128 b) { return _mm_add_ps(a, b); });
}

float reduce_min(Lanes x) {
  return reduce(_mm256_min_ps(x.low, x.high), [](__m128 a, __m128 b) { return _mm_min_ps(a, b); });
}

float reduce_max(Lanes x) {
  return reduce(_mm256_max_ps(x.low, x.high), [](__m128 a, __m128 b) { return _mm_max_ps(a, b); });
}

float largest(__m256i magnitude) {
  const __m256 values = _mm256_castsi256_ps(magnitude);
  return reduce_max({values, values});
}

template <FloatType kType>
void range(const void* row, int64_t n, RowRange* result) {
  const auto scalar = detail::kScalarRounding.range[static_cast<int>(kType)];
  if (n < 16) {
    scalar(row, n, result);
    return;
  }
  Lanes min = load<kType>(row, 0);
  Lanes max = min;
  __m256i magnitude = max_magnitude(min, _mm256_setzero_si256());
  for (int64_t next = 16; next < n; next += 16) {
    // The last step reaches back to whole registers; extremes may see an element twice.
    const Lanes x = load<kType>(row, next + 16 <= n ? next : n - 16);
    min = {_mm256_min_ps(min.low, x.low), _mm256_min_ps(min.high, x.high)};
    max = {_mm256_max_ps(max.low, x.low), _mm256_max_ps(max.high, x.high)};
    magnitude = max_magnitude(x, magnitude);
  }
  if (any_at_least(magnitude, 0x7f800000U)) {
    scalar(row, n, result);
    return;
  }
  result->min = reduce_min(min) + 0.0F;
  result->max = reduce_max(max) + 0.0F;
  result->absmax = largest(magnitude);
  result->first_non_finite = -1;
}

struct Params {
  __m256 scale;
  __m256 offset;
  __m256 code_min;
  __m256 code_max;

  explicit Params(const RoundingParams& params)
      : scale(_mm256_set1_ps(params.scale)),
        offset(_mm256_set1_ps(params.offset)),
        code_min(_mm256_set1_ps(params.code_min)),
        code_max(_mm256_set1_ps(params.code_max)) {}

  [[nodiscard]] __m256 rounded(__m256 x) const {
    return _mm256_round_ps(_mm256_add_ps(_mm256_div_ps(x, scale), offset),
                           _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  }

  // The bound comes second: it is what both instructions return when the first is NaN.
  [[nodiscard]] __m256 clamped(__m256 rounded_code) const {
    return _mm256_min_ps(_mm256_max_ps(rounded_code, code_min), code_max);
  }
};

// Packs 16 lanes of 32 bits, which fit, into bytes in order.
__m128i pack_codes(Lanes codes) {
  const __m256i words =
      _mm256_packs_epi32(_mm256_cvtps_epi32(codes.low), _mm256_cvtps_epi32(codes.high));
  const __m256i ordered = _mm256_permute4x64_epi64(words, 0xd8);
  return _mm_packs_epi16(_mm256_castsi256_si128(ordered), _mm256_extracti128_si256(ordered, 1));
}

void store_codes(int8_t* codes, Lanes values, int64_t n_left) {
  const __m128i bytes = pack_codes(values);
  if (n_left >= 16) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(codes), bytes);
    return;
  }
  alignas(16) int8_t buffer[16];
  _mm_store_si128(reinterpret_cast<__m128i*>(buffer), bytes);
  __builtin_memcpy(codes, buffer, static_cast<size_t>(n_left));
}

template <FloatType kType>
void quantize(const void* row, int64_t n, const RoundingParams* row_params, int8_t* codes) {
  const Params params(*row_params);
  for (int64_t i = 0; i < n; i += 16) {
    const Lanes x = n - i >= 16 ? load<kType>(row, i) : load_tail<kType>(row, i, n - i);
    store_codes(codes + i,
                {params.clamped(params.rounded(x.low)), params.clamped(params.rounded(x.high))},
                n - i);
  }
}

// Sums of one half of the lanes.
struct HalfSums {
  __m256 squares = _mm256_setzero_ps();
  __m256 squared_errors = _mm256_setzero_ps();
  __m256 max_error = _mm256_setzero_ps();
  int64_t n_clipped = 0;
  int64_t n_zeros = 0;

  // Lanes whose mask is 0 have x = 0 and contribute nothing.
  __m256 take(__m256 x, const Params& params, __m256 mask) {
    const __m256 rounded = params.rounded(x);
    const __m256 code = params.clamped(rounded);
    const __m256 restored = _mm256_mul_ps(_mm256_sub_ps(code, params.offset), params.scale);
    const __m256 error = _mm256_and_ps(_mm256_sub_ps(x, restored), mask);
    squares = _mm256_fmadd_ps(x, x, squares);
    squared_errors = _mm256_fmadd_ps(error, error, squared_errors);
    max_error = _mm256_max_ps(_mm256_castsi256_ps(magnitude_bits(error)), max_error);
    const __m256 clipped = _mm256_cmp_ps(code, rounded, _CMP_NEQ_UQ);
    const __m256 zeros = _mm256_cmp_ps(code, params.offset, _CMP_EQ_OQ);
    n_clipped +=
        __builtin_popcount(static_cast<unsigned>(_mm256_movemask_ps(_mm256_and_ps(clipped, mask))));
    n_zeros +=
        __builtin_popcount(static_cast<unsigned>(_mm256_movemask_ps(_mm256_and_ps(zeros, mask))));
    return code;
  }
};

// All bits set in lanes below n_left.
__m256 lane_mask(int64_t n_left, int first_lane) {
  const __m256i lane =
      _mm256_add_epi32(_mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7), _mm256_set1_epi32(first_lane));
  const int bound = n_left < 16 ? static_cast<int>(n_left) : 16;
  return _mm256_castsi256_ps(_mm256_cmpgt_epi32(_mm256_set1_epi32(bound), lane));
}

template <FloatType kType>
void quantize_measured(const void* row, int64_t n, const RoundingParams* row_params, int8_t* codes,
                       RoundingSums* sums) {
  const Params params(*row_params);
  const __m256 all = lane_mask(16, 0);
  *sums = {};
  HalfSums low;
  HalfSums high;
  for (int64_t first = 0; first < n; first += kSumBlock) {
    const int64_t end = n - first < kSumBlock ? n : first + kSumBlock;
    low.squares = high.squares = _mm256_setzero_ps();
    low.squared_errors = high.squared_errors = _mm256_setzero_ps();
    int64_t i = first;
    for (; i + 16 <= end; i += 16) {
      const Lanes x = load<kType>(row, i);
      store_codes(codes + i, {low.take(x.low, params, all), high.take(x.high, params, all)}, 16);
    }
    if (i < end) {
      const Lanes x = load_tail<kType>(row, i, end - i);
      store_codes(codes + i,
                  {low.take(x.low, params, lane_mask(end - i, 0)),
                   high.take(x.high, params, lane_mask(end - i, 8))},
                  end - i);
    }
    sums->sum_squares += static_cast<double>(reduce_add({low.squares, high.squares}));
    sums->sum_squared_errors +=
        static_cast<double>(reduce_add({low.squared_errors, high.squared_errors}));
  }
  sums->max_abs_error = reduce_max({low.max_error, high.max_error});
  sums->n_clipped = low.n_clipped + high.n_clipped;
  sums->n_zeros = low.n_zeros + high.n_zeros;
}

// formats::float_to_bf16 in 8 lanes of 32 bits, except for NaN: cast() leaves rows with NaN to the
// scalar one.
__m256i narrow_to_bf16(__m256 x) {
  const __m256i bits = _mm256_castps_si256(x);
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
  const __m256i rounding = _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff));
  return _mm256_srli_epi32(_mm256_add_epi32(bits, rounding), 16);
}

template <FloatType kType>
void store(void* row, int64_t index, Lanes x) {
  char* destination = static_cast<char*>(row) + index * kSizeBytes<kType>;
  if constexpr (kType == FloatType::kFp32) {
    auto* values = reinterpret_cast<float*>(destination);
    _mm256_storeu_ps(values, x.low);
    _mm256_storeu_ps(values + 8, x.high);
  } else if constexpr (kType == FloatType::kBf16) {
    const __m256i words = _mm256_packus_epi32(narrow_to_bf16(x.low), narrow_to_bf16(x.high));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(destination),
                        _mm256_permute4x64_epi64(words, 0xd8));
  } else {
    auto* halves = reinterpret_cast<__m128i*>(destination);
    _mm_storeu_si128(halves, _mm256_cvtps_ph(x.low, _MM_FROUND_TO_NEAREST_INT));
    _mm_storeu_si128(halves + 1, _mm256_cvtps_ph(x.high, _MM_FROUND_TO_NEAREST_INT));
  }
}

template <FloatType kSource, FloatType kDestination>
void cast(const void* source, int64_t n, void* destination, CastReport* report) {
  __m256i magnitude = _mm256_setzero_si256();
  int64_t i = 0;
  for (; i + 16 <= n; i += 16) {
    const Lanes x = load<kSource>(source, i);
    magnitude = max_magnitude(x, magnitude);
    if constexpr (kSource != kDestination) store<kDestination>(destination, i, x);
  }
  if (i < n) {
    const Lanes x = load_tail<kSource>(source, i, n - i);
    magnitude = max_magnitude(x, magnitude);
    if constexpr (kSource != kDestination) {
      alignas(32) char buffer[16 * kSizeBytes<kDestination>];
      store<kDestination>(buffer, 0, x);
      __builtin_memcpy(static_cast<char*>(destination) + i * kSizeBytes<kDestination>, buffer,
                       static_cast<size_t>((n - i) * kSizeBytes<kDestination>));
    }
  }
  if (kSource == kDestination && n > 0) {
    __builtin_memcpy(destination, source, static_cast<size_t>(n * kSizeBytes<kSource>));
  }
  if (any_at_least(magnitude, detail::kRemarkableBits[static_cast<int>(kDestination)])) {
    detail::kScalarRounding.cast[static_cast<int>(kSource)][static_cast<int>(kDestination)](
        source, n, destination, report);
    return;
  }
  *report = {-1, 0, 0, largest(magnitude)};
}

constexpr FloatType kBf16 = FloatType::kBf16;
constexpr FloatType kFp16 = FloatType::kFp16;
constexpr FloatType kFp32 = FloatType::kFp32;

}  // namespace

namespace detail {

constinit const RoundingKernels kAvx2Rounding{
    Isa::kAvx2,
    {range<kBf16>, range<kFp16>, range<kFp32>},
    {quantize<kBf16>, quantize<kFp16>, quantize<kFp32>},
    {quantize_measured<kBf16>, quantize_measured<kFp16>, quantize_measured<kFp32>},
    {{cast<kBf16, kBf16>, cast<kBf16, kFp16>, cast<kBf16, kFp32>},
     {cast<kFp16, kBf16>, cast<kFp16, kFp16>, cast<kFp16, kFp32>},
     {cast<kFp32, kBf16>, cast<kFp32, kFp16>, cast<kFp32, kFp32>}}};

}  // namespace detail
}  // namespace llmq::quant
