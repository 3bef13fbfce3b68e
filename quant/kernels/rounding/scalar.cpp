// The specification of the rounding kernels, in plain C++: what it computes, the others compute.
#include <cmath>
#include <cstring>
#include <limits>

#include "formats/float16.h"
#include "quant/kernels/rounding/rounding.h"

namespace llmq::quant {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

template <FloatType kType>
struct Storage {
  using Bits = uint16_t;
};
template <>
struct Storage<FloatType::kFp32> {
  using Bits = float;
};

template <FloatType kType>
using Bits = typename Storage<kType>::Bits;

template <FloatType kType>
Bits<kType> load_bits(const void* row, int64_t index) {
  Bits<kType> bits;
  std::memcpy(&bits, static_cast<const char*>(row) + index * sizeof bits, sizeof bits);
  return bits;
}

template <FloatType kType>
float widen(Bits<kType> bits) {
  if constexpr (kType == FloatType::kBf16) return formats::bf16_to_float(bits);
  if constexpr (kType == FloatType::kFp16) return formats::fp16_to_float(bits);
  if constexpr (kType == FloatType::kFp32) return bits;
}

template <FloatType kType>
Bits<kType> narrow(float value) {
  if constexpr (kType == FloatType::kBf16) return formats::float_to_bf16(value);
  if constexpr (kType == FloatType::kFp16) return formats::float_to_fp16(value);
  if constexpr (kType == FloatType::kFp32) return value;
}

template <FloatType kType>
void range(const void* row, int64_t n, RowRange* result) {
  *result = {kInfinity, -kInfinity, 0.0F, -1};
  for (int64_t i = 0; i < n; ++i) {
    const float x = widen<kType>(load_bits<kType>(row, i));
    if (!std::isfinite(x)) {
      if (result->first_non_finite < 0) result->first_non_finite = i;
      continue;
    }
    if (x < result->min) result->min = x;
    if (x > result->max) result->max = x;
    if (std::fabs(x) > result->absmax) result->absmax = std::fabs(x);
  }
  // Makes −0 into +0, which min and max of a vector unit do not tell apart.
  result->min += 0.0F;
  result->max += 0.0F;
}

float rounded_code(float x, const RoundingParams& params) {
  return std::rint(x / params.scale + params.offset);
}

float clamped_code(float rounded, const RoundingParams& params) {
  const float at_least = rounded > params.code_min ? rounded : params.code_min;  // NaN: code_min
  return at_least < params.code_max ? at_least : params.code_max;
}

template <FloatType kType>
void quantize(const void* row, int64_t n, const RoundingParams* params, int8_t* codes) {
  for (int64_t i = 0; i < n; ++i) {
    const float x = widen<kType>(load_bits<kType>(row, i));
    codes[i] = static_cast<int8_t>(clamped_code(rounded_code(x, *params), *params));
  }
}

// 16 partial sums; see kSumBlock.
struct LaneSums {
  float lanes[kSumLanes] = {};

  void add_square(int64_t index, float value) {
    float& lane = lanes[index % kSumLanes];
    lane = std::fma(value, value, lane);
  }

  [[nodiscard]] double total() {
    for (int distance = kSumLanes / 2; distance > 0; distance /= 2) {
      for (int i = 0; i < distance; ++i) lanes[i] += lanes[i + distance];
    }
    return static_cast<double>(lanes[0]);
  }
};

template <FloatType kType>
void quantize_measured(const void* row, int64_t n, const RoundingParams* params, int8_t* codes,
                       RoundingSums* sums) {
  *sums = {};
  for (int64_t block = 0; block < n; block += kSumBlock) {
    LaneSums squares;
    LaneSums squared_errors;
    for (int64_t i = block; i < n && i < block + kSumBlock; ++i) {
      const float x = widen<kType>(load_bits<kType>(row, i));
      const float rounded = rounded_code(x, *params);
      const float code = clamped_code(rounded, *params);
      const float error = x - (code - params->offset) * params->scale;
      codes[i] = static_cast<int8_t>(code);
      squares.add_square(i, x);
      squared_errors.add_square(i, error);
      if (std::fabs(error) > sums->max_abs_error) sums->max_abs_error = std::fabs(error);
      if (code != rounded) ++sums->n_clipped;
      if (code == params->offset) ++sums->n_zeros;
    }
    sums->sum_squares += squares.total();
    sums->sum_squared_errors += squared_errors.total();
  }
}

template <FloatType kSource, FloatType kDestination>
void cast(const void* source, int64_t n, void* destination, CastReport* report) {
  *report = {-1, 0, 0, 0.0F};
  for (int64_t i = 0; i < n; ++i) {
    const Bits<kSource> bits = load_bits<kSource>(source, i);
    const float x = widen<kSource>(bits);
    Bits<kDestination> result;
    if constexpr (kSource == kDestination) {
      result = bits;
    } else {
      result = narrow<kDestination>(x);
    }
    std::memcpy(static_cast<char*>(destination) + i * sizeof result, &result, sizeof result);
    if (!std::isfinite(x)) {
      if (report->first_non_finite < 0) report->first_non_finite = i;
      continue;
    }
    if (std::fabs(x) > report->absmax) report->absmax = std::fabs(x);
    if (std::isinf(widen<kDestination>(result))) ++report->n_overflow;
    if (kDestination == FloatType::kFp16 && std::fabs(x) >= kNearFp16Overflow) {
      ++report->n_near_overflow;
    }
  }
}

constexpr FloatType kBf16 = FloatType::kBf16;
constexpr FloatType kFp16 = FloatType::kFp16;
constexpr FloatType kFp32 = FloatType::kFp32;

}  // namespace

namespace detail {

constinit const RoundingKernels kScalarRounding{
    Isa::kScalar,
    {range<kBf16>, range<kFp16>, range<kFp32>},
    {quantize<kBf16>, quantize<kFp16>, quantize<kFp32>},
    {quantize_measured<kBf16>, quantize_measured<kFp16>, quantize_measured<kFp32>},
    {{cast<kBf16, kBf16>, cast<kBf16, kFp16>, cast<kBf16, kFp32>},
     {cast<kFp16, kBf16>, cast<kFp16, kFp16>, cast<kFp16, kFp32>},
     {cast<kFp32, kBf16>, cast<kFp32, kFp16>, cast<kFp32, kFp32>}}};

}  // namespace detail
}  // namespace llmq::quant
