#include "quant/static_w8a8.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <numeric>
#include <string>

#include "formats/error.h"
#include "formats/float16.h"
#include "quant/affine.h"

namespace llmq::quant {
namespace {

using formats::DType;

// Values of one float type as bit patterns: positive ones are ordered like their patterns.
float value_of(uint32_t bits, DType dtype) {
  if (dtype == DType::kF16) return formats::fp16_to_float(static_cast<uint16_t>(bits));
  if (dtype == DType::kBF16) return formats::bf16_to_float(static_cast<uint16_t>(bits));
  return std::bit_cast<float>(bits);
}

uint32_t nearest_bits(float value, DType dtype) {
  if (dtype == DType::kF16) return formats::float_to_fp16(value);
  if (dtype == DType::kBF16) return formats::float_to_bf16(value);
  if (dtype == DType::kF32) return std::bit_cast<uint32_t>(value);
  throw formats::bad_input("activation scales cannot be stored as " +
                           std::string(formats::dtype_name(dtype)));
}

// The stored scale for an exact one that is positive and finite.
float scale_with_best_reciprocal(float exact, DType dtype) {
  uint32_t bits = nearest_bits(exact, dtype);
  if (value_of(bits, dtype) < exact) ++bits;
  if (!std::isfinite(value_of(bits, dtype))) {
    throw formats::bad_input(
        fmt::format("an activation scale of {:g} does not fit into {}; keep this layer in float or "
                    "choose another dtype",
                    exact, formats::torch_dtype_name(dtype)));
  }
  while (!std::isfinite(rounded_reciprocal(value_of(bits, dtype), dtype))) ++bits;

  constexpr uint32_t kNCandidates = 4;
  float best = 0.0F;
  double least_error = std::numeric_limits<double>::infinity();
  for (uint32_t i = 0; i < kNCandidates; ++i) {
    const float scale = value_of(bits + i, dtype);
    if (!std::isfinite(scale)) break;
    // Exact but for the subtraction: 24 by 24 bits of mantissa fit into a double.
    const double product = static_cast<double>(rounded_reciprocal(scale, dtype)) * scale;
    const double error = std::abs(product - 1.0);
    if (error < least_error) {
      best = scale;
      least_error = error;
    }
  }
  return best;
}

void check_channels(const char* what, size_t size, size_t expected) {
  if (size == expected) return;
  throw formats::Error(formats::ErrorCode::kInternal,
                       fmt::format("{} {} were given for {} channels", size, what, expected));
}

}  // namespace

float rounded_reciprocal(float scale, DType dtype) {
  return value_of(nearest_bits(1.0F / scale, dtype), dtype);
}

ActivationParams activation_params(const ActivationRange& range, bool symmetric,
                                   DType model_dtype) {
  if (!(range.min <= range.max)) {
    throw formats::bad_input(
        fmt::format("[{:g}, {:g}] is not a range of activations", range.min, range.max));
  }
  const AffineFormat exact_format{.n_bits = 8, .symmetric = symmetric};
  const float exact = affine_params(range.min, range.max, exact_format).scale;
  ActivationParams params{scale_with_best_reciprocal(exact, model_dtype), 0.0F};
  if (!symmetric) {
    const float zero = std::rint(-std::min(range.min, 0.0F) / params.scale) - 128.0F;
    params.offset = std::clamp(zero, -128.0F, 127.0F);
  }
  return params;
}

int64_t code_sum(std::span<const int8_t> codes) {
  return std::accumulate(codes.begin(), codes.end(), int64_t{0});
}

std::vector<int64_t> code_sums(std::span<const int8_t> codes, int64_t n_rows) {
  if (n_rows < 0 || (n_rows == 0 ? !codes.empty() : codes.size() % n_rows != 0)) {
    throw formats::Error(formats::ErrorCode::kInternal,
                         fmt::format("{} codes do not make {} rows", codes.size(), n_rows));
  }
  std::vector<int64_t> sums(static_cast<size_t>(n_rows));
  for (size_t row = 0; row < sums.size(); ++row) {
    const size_t n_cols = codes.size() / sums.size();
    sums[row] = code_sum(codes.subspan(row * n_cols, n_cols));
  }
  return sums;
}

StaticTensors static_tensors(const ActivationParams& activation,
                             std::span<const float> weight_scale,
                             std::span<const int64_t> code_sums, std::span<const float> bias) {
  const size_t n = weight_scale.size();
  check_channels("sums of codes", code_sums.size(), n);
  if (!bias.empty()) check_channels("biases", bias.size(), n);
  StaticTensors tensors{std::vector<float>(n), std::vector<int32_t>(n)};
  for (size_t j = 0; j < n; ++j) {
    const float deq_scale = deq_scale_of(activation.scale, weight_scale[j]);
    if (!(deq_scale > 0.0F) || !std::isfinite(deq_scale)) {
      throw formats::bad_input(
          fmt::format("channel {}: deq_scale, {:g} times {:g}, is {:g} in float32", j,
                      activation.scale, weight_scale[j], deq_scale));
    }
    const double exact = unrounded_quant_bias(bias.empty() ? 0.0 : bias[j], deq_scale,
                                              activation.offset, code_sums[j]);
    const double rounded = std::nearbyint(exact);
    if (!(rounded >= std::numeric_limits<int32_t>::min() &&
          rounded <= std::numeric_limits<int32_t>::max())) {
      throw formats::bad_input(fmt::format(
          "channel {}: quant_bias is {:g}, which int32 cannot hold (bias {:g}, deq_scale {:g}); "
          "keep this layer in float",
          j, exact, bias.empty() ? 0.0F : bias[j], deq_scale));
    }
    tensors.deq_scale[j] = deq_scale;
    tensors.quant_bias[j] = static_cast<int32_t>(rounded);
  }
  return tensors;
}

int64_t widen_deq_scale(float scale) {
  return std::bit_cast<int32_t>(scale);
}

bool is_widened_deq_scale(int64_t bits) {
  return (static_cast<uint64_t>(bits) >> 32) == 0;
}

float narrow_deq_scale(int64_t bits) {
  return std::bit_cast<float>(static_cast<uint32_t>(bits));
}

}  // namespace llmq::quant
