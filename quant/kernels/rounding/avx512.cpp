// AVX-512 (F, BW, DQ, VL): one register holds the 16 lanes of the canonical sums.

#include <cstdint>

#include "quant/kernels/intrinsics_avx512.h"
#include "quant/kernels/rounding/rounding.h"

namespace llmq::quant {
namespace {

constexpr __mmask16 kAll = 0xffff;

template <FloatType kType>
constexpr int64_t kSizeBytes = kType == FloatType::kFp32 ? 4 : 2;

// Lanes of a row's last, partial register.
__mmask16 tail_mask(int64_t n_left) {
  return static_cast<__mmask16>((1U << n_left) - 1U);
}

template <FloatType kType>
__m512 widen(__m256i bits) {
  if constexpr (kType == FloatType::kBf16) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
  } else {
    return _mm512_cvtph_ps(bits);
  }
}

// Elements [index, index + 16) of a row as float32; lanes outside the mask read nothing and are 0.
template <FloatType kType, bool kMasked>
__m512 load(const void* row, int64_t index, __mmask16 mask) {
  const char* source = static_cast<const char*>(row) + index * kSizeBytes<kType>;
  if constexpr (kType == FloatType::kFp32) {
    return kMasked ? _mm512_maskz_loadu_ps(mask, source) : _mm512_loadu_ps(source);
  } else {
    return widen<kType>(kMasked ? _mm256_maskz_loadu_epi16(mask, source)
                                : _mm256_loadu_si256(reinterpret_cast<const __m256i*>(source)));
  }
}

__m512i magnitude_bits(__m512 x) {
  return _mm512_and_si512(_mm512_castps_si512(x), _mm512_set1_epi32(0x7fffffff));
}

float lane_0(__m512 x) {
  return _mm_cvtss_f32(_mm512_castps512_ps128(x));
}

// Lanes 8 apart, then 4, 2 and 1.
template <typename Combine>
float reduce(__m512 x, Combine combine) {
  x = combine(x, _mm512_shuffle_f32x4(x, x, 0x4e));
  x = combine(x, _mm512_shuffle_f32x4(x, x, 0xb1));
  x = combine(x, _mm512_shuffle_ps(x, x, 0x4e));
  x = combine(x, _mm512_shuffle_ps(x, x, 0xb1));
  return lane_0(x);
}

float reduce_add(__m512 x) {
  return reduce(x, [](__m512 a, __m512 b) { return _mm512_add_ps(a, b); });
}

float reduce_min(__m512 x) {
  return reduce(x, [](__m512 a, __m512 b) { return _mm512_min_ps(a, b); });
}

float reduce_max(__m512 x) {
  return reduce(x, [](__m512 a, __m512 b) { return _mm512_max_ps(a, b); });
}

struct Extremes {
  __m512 min;
  __m512 max;
  __m512i magnitude;

  void take(__m512 x, __mmask16 mask) {
    min = _mm512_mask_min_ps(min, mask, min, x);
    max = _mm512_mask_max_ps(max, mask, max, x);
    magnitude = _mm512_max_epu32(magnitude, magnitude_bits(x));
  }
};

template <FloatType kType>
void range(const void* row, int64_t n, RowRange* result) {
  const __m512i infinity_bits = _mm512_set1_epi32(0x7f800000);
  const __m512 infinity = _mm512_castsi512_ps(infinity_bits);
  const __m512 minus_infinity = _mm512_sub_ps(_mm512_setzero_ps(), infinity);
  Extremes even{infinity, minus_infinity, _mm512_setzero_si512()};
  Extremes odd = even;
  int64_t i = 0;
  for (; i + 32 <= n; i += 32) {
    even.take(load<kType, false>(row, i, kAll), kAll);
    odd.take(load<kType, false>(row, i + 16, kAll), kAll);
  }
  for (; i < n; i += 16) {
    const __mmask16 mask = n - i < 16 ? tail_mask(n - i) : kAll;
    even.take(load<kType, true>(row, i, mask), mask);
  }
  const __m512i magnitude = _mm512_max_epu32(even.magnitude, odd.magnitude);
  if (_mm512_cmpge_epu32_mask(magnitude, infinity_bits) != 0) {
    detail::kScalarRounding.range[static_cast<int>(kType)](row, n, result);
    return;
  }
  result->min = reduce_min(_mm512_min_ps(even.min, odd.min)) + 0.0F;
  result->max = reduce_max(_mm512_max_ps(even.max, odd.max)) + 0.0F;
  result->absmax = reduce_max(_mm512_castsi512_ps(magnitude));
  result->first_non_finite = -1;
}

struct Params {
  __m512 scale;
  __m512 offset;
  __m512 code_min;
  __m512 code_max;

  explicit Params(const RoundingParams& params)
      : scale(_mm512_set1_ps(params.scale)),
        offset(_mm512_set1_ps(params.offset)),
        code_min(_mm512_set1_ps(params.code_min)),
        code_max(_mm512_set1_ps(params.code_max)) {}

  [[nodiscard]] __m512 rounded(__m512 x) const {
    return _mm512_roundscale_ps(_mm512_add_ps(_mm512_div_ps(x, scale), offset),
                                _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  }

  // The bound comes second: it is what both instructions return when the first is NaN.
  [[nodiscard]] __m512 clamped(__m512 rounded_code) const {
    return _mm512_min_ps(_mm512_max_ps(rounded_code, code_min), code_max);
  }
};

template <bool kMasked>
void store_codes(int8_t* codes, __m512 code, __mmask16 mask) {
  const __m128i bytes = _mm512_maskz_cvtepi32_epi8(kAll, _mm512_cvtps_epi32(code));
  if constexpr (kMasked) {
    _mm_mask_storeu_epi8(codes, mask, bytes);
  } else {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(codes), bytes);
  }
}

template <FloatType kType>
void quantize(const void* row, int64_t n, const RoundingParams* row_params, int8_t* codes) {
  const Params params(*row_params);
  int64_t i = 0;
  for (; i + 16 <= n; i += 16) {
    const __m512 x = load<kType, false>(row, i, kAll);
    store_codes<false>(codes + i, params.clamped(params.rounded(x)), kAll);
  }
  if (i < n) {
    const __mmask16 mask = tail_mask(n - i);
    const __m512 x = load<kType, true>(row, i, mask);
    store_codes<true>(codes + i, params.clamped(params.rounded(x)), mask);
  }
}

struct BlockSums {
  __m512 squares = _mm512_setzero_ps();
  __m512 squared_errors = _mm512_setzero_ps();
  __m512 max_error = _mm512_setzero_ps();
  int64_t n_clipped = 0;
  int64_t n_zeros = 0;

  // A lane outside the mask has x = 0 and contributes nothing.
  template <bool kMasked>
  __m512 take(__m512 x, const Params& params, __mmask16 mask) {
    const __m512 rounded = params.rounded(x);
    const __m512 code = params.clamped(rounded);
    const __m512 restored = _mm512_mul_ps(_mm512_sub_ps(code, params.offset), params.scale);
    const __m512 error =
        kMasked ? _mm512_maskz_sub_ps(mask, x, restored) : _mm512_sub_ps(x, restored);
    squares = _mm512_fmadd_ps(x, x, squares);
    squared_errors = _mm512_fmadd_ps(error, error, squared_errors);
    max_error = _mm512_max_ps(_mm512_castsi512_ps(magnitude_bits(error)), max_error);
    const auto clipped = _mm512_mask_cmp_ps_mask(mask, code, rounded, _CMP_NEQ_UQ);
    const auto zeros = _mm512_mask_cmp_ps_mask(mask, code, params.offset, _CMP_EQ_OQ);
    n_clipped += __builtin_popcount(clipped);
    n_zeros += __builtin_popcount(zeros);
    return code;
  }
};

template <FloatType kType>
void quantize_measured(const void* row, int64_t n, const RoundingParams* row_params, int8_t* codes,
                       RoundingSums* sums) {
  const Params params(*row_params);
  *sums = {};
  BlockSums block;
  for (int64_t first = 0; first < n; first += kSumBlock) {
    const int64_t end = n - first < kSumBlock ? n : first + kSumBlock;
    block.squares = _mm512_setzero_ps();
    block.squared_errors = _mm512_setzero_ps();
    int64_t i = first;
    for (; i + 16 <= end; i += 16) {
      const __m512 x = load<kType, false>(row, i, kAll);
      store_codes<false>(codes + i, block.take<false>(x, params, kAll), kAll);
    }
    if (i < end) {
      const __mmask16 mask = tail_mask(end - i);
      const __m512 x = load<kType, true>(row, i, mask);
      store_codes<true>(codes + i, block.take<true>(x, params, mask), mask);
    }
    sums->sum_squares += static_cast<double>(reduce_add(block.squares));
    sums->sum_squared_errors += static_cast<double>(reduce_add(block.squared_errors));
  }
  sums->max_abs_error = reduce_max(block.max_error);
  sums->n_clipped = block.n_clipped;
  sums->n_zeros = block.n_zeros;
}

// formats::float_to_bf16 in 16 lanes, except for NaN: cast() leaves rows with NaN to the scalar
// one.
__m256i narrow_to_bf16(__m512 x) {
  const __m512i bits = _mm512_castps_si512(x);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  const __m512i rounding = _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff));
  return _mm512_maskz_cvtepi32_epi16(kAll, _mm512_srli_epi32(_mm512_add_epi32(bits, rounding), 16));
}

template <FloatType kType>
void store(void* row, int64_t index, __m512 x, __mmask16 mask) {
  char* destination = static_cast<char*>(row) + index * kSizeBytes<kType>;
  if constexpr (kType == FloatType::kFp32) {
    _mm512_mask_storeu_ps(destination, mask, x);
  } else {
    const __m256i bits =
        kType == FloatType::kBf16
            ? narrow_to_bf16(x)
            : _mm512_maskz_cvtps_ph(kAll, x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    _mm256_mask_storeu_epi16(destination, mask, bits);
  }
}

template <FloatType kSource, FloatType kDestination>
void cast(const void* source, int64_t n, void* destination, CastReport* report) {
  __m512i magnitude = _mm512_setzero_si512();
  for (int64_t i = 0; i < n; i += 16) {
    const __mmask16 mask = n - i < 16 ? tail_mask(n - i) : kAll;
    const __m512 x = load<kSource, true>(source, i, mask);
    magnitude = _mm512_max_epu32(magnitude, magnitude_bits(x));
    if constexpr (kSource != kDestination) store<kDestination>(destination, i, x, mask);
  }
  if (kSource == kDestination && n > 0) {
    __builtin_memcpy(destination, source, static_cast<size_t>(n * kSizeBytes<kSource>));
  }
  const __m512i remarkable =
      _mm512_set1_epi32(static_cast<int>(detail::kRemarkableBits[static_cast<int>(kDestination)]));
  if (_mm512_cmpge_epu32_mask(magnitude, remarkable) != 0) {
    detail::kScalarRounding.cast[static_cast<int>(kSource)][static_cast<int>(kDestination)](
        source, n, destination, report);
    return;
  }
  *report = {-1, 0, 0, reduce_max(_mm512_castsi512_ps(magnitude))};
}

constexpr FloatType kBf16 = FloatType::kBf16;
constexpr FloatType kFp16 = FloatType::kFp16;
constexpr FloatType kFp32 = FloatType::kFp32;

}  // namespace

namespace detail {

constinit const RoundingKernels kAvx512Rounding{
    Isa::kAvx512Vnni,
    {range<kBf16>, range<kFp16>, range<kFp32>},
    {quantize<kBf16>, quantize<kFp16>, quantize<kFp32>},
    {quantize_measured<kBf16>, quantize_measured<kFp16>, quantize_measured<kFp32>},
    {{cast<kBf16, kBf16>, cast<kBf16, kFp16>, cast<kBf16, kFp32>},
     {cast<kFp16, kBf16>, cast<kFp16, kFp16>, cast<kFp16, kFp32>},
     {cast<kFp32, kBf16>, cast<kFp32, kFp16>, cast<kFp32, kFp32>}}};

}  // namespace detail
}  // namespace llmq::quant
