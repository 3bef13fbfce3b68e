#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "formats/dtype.h"
#include "quant/observer/range_observer.h"

namespace llmq::quant {

/// Static W8A8: activations are quantized with one scale and offset per tensor that calibration
/// fixed, x_q = clamp(rint(x / input_scale + input_offset), −128, 127), weights with one scale per
/// output channel j, and y[j] = (Σ_k x_q[k]·q[j,k] + quant_bias[j]) · deq_scale[j].

/// Per-tensor activation parameters as they are stored.
struct ActivationParams {
  float scale = 1.0F;   ///< positive, finite, a value of the model's dtype
  float offset = 0.0F;  ///< integral, −128..127; 0 for symmetric codes
};

/// The reciprocal of `scale` as engines multiply by it: IEEE float32 division, rounded half to even
/// to `dtype` (F16, BF16 or F32). May be infinite or zero. Throws Error{kBadInput} for another
/// dtype.
float rounded_reciprocal(float scale, formats::DType dtype);

/// Parameters for activations in `range`, which is first widened to contain 0. The exact scale is
/// max/255 − min/255, or max(−min, max)/127 for `symmetric` codes, in float32 and floored at 2⁻²³.
/// Stored is the one among four consecutive values of `model_dtype` (F16, BF16 or F32) whose
/// rounded reciprocal r is most exact, that is |r·scale − 1| smallest, the smaller scale where two
/// are alike. The four begin with the smallest value that is not below the exact scale and whose
/// rounded reciprocal is finite (in float16 that is 257·2⁻²⁴ at least); fewer where the dtype ends.
/// offset = clamp(rint(−min / scale) − 128, −128, 127).
/// Throws Error{kBadInput} where an end of the range is not finite or the scale exceeds the dtype.
ActivationParams activation_params(const ActivationRange& range, bool symmetric,
                                   formats::DType model_dtype);

/// Σ of the codes of one row.
int64_t code_sum(std::span<const int8_t> codes);

/// code_sum of each row of codes [n_rows, n_cols] row-major. Throws Error{kInternal} where n_rows
/// does not divide them.
std::vector<int64_t> code_sums(std::span<const int8_t> codes, int64_t n_rows);

/// deq_scale of one channel: the float32 product of two positive scales.
inline float deq_scale_of(float input_scale, float weight_scale) {
  return input_scale * weight_scale;
}

/// quant_bias of one channel before it is rounded: bias / deq_scale − input_offset · code_sum in
/// float64.
inline double unrounded_quant_bias(double bias, float deq_scale, double input_offset,
                                   int64_t code_sum) {
  return bias / static_cast<double>(deq_scale) - input_offset * static_cast<double>(code_sum);
}

/// The tensors of static W8A8 that follow from the others.
struct StaticTensors {
  std::vector<float> deq_scale;     ///< [n] positive, finite
  std::vector<int32_t> quant_bias;  ///< [n], holds the bias of the linear
};

/// Derives them for a linear of n output channels: weight_scale [n], code_sums [n] of the int8
/// weight codes, bias [n] or empty for none. quant_bias is rounded once, half to even. Throws
/// Error{kBadInput} that names the channel where deq_scale is not positive and finite or quant_bias
/// does not fit into int32 (also for a bias that is not finite), Error{kInternal} where the spans
/// differ in size.
StaticTensors static_tensors(const ActivationParams& activation,
                             std::span<const float> weight_scale,
                             std::span<const int64_t> code_sums, std::span<const float> bias);

/// deq_scale as engines of float16 models read it: the float32 bit pattern as an integer of 64
/// bits, of which the upper 32 are zero (`scale` is positive).
int64_t widen_deq_scale(float scale);

/// True where the upper 32 bits of `bits` are zero, as in every result of widen_deq_scale.
bool is_widened_deq_scale(int64_t bits);

/// The float32 value of the lower 32 bits, the inverse of widen_deq_scale.
float narrow_deq_scale(int64_t bits);

}  // namespace llmq::quant
