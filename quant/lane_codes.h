#pragma once

#include <cstdint>
#include <span>

/// int8 codes where every lane of a row has a scale and an offset of its own, as keys and values
/// have that are stored in codes: x̂ = (code − offset)·scale.
namespace llmq::quant {

/// Parameters of the lanes of a row.
struct LaneParams {
  std::span<const float> scale;   ///< [n], positive
  std::span<const float> offset;  ///< [n], whole numbers from −128 to 127
};

/// codes[i] = clamp(rint(x[i] / scale[i] + offset[i]), −128, 127), in float32, halves to even. A
/// NaN, which has no code, counts as −∞. x and codes are [n] as the parameters are. Thread safe.
void encode_lanes(std::span<const float> x, const LaneParams& params, std::span<int8_t> codes);

/// y[i] = (codes[i] − offset[i])·scale[i]; the difference is exact, the product rounded once. codes
/// and y are [n]. Thread safe.
void decode_lanes(std::span<const int8_t> codes, const LaneParams& params, std::span<float> y);

/// y[i] = codes[i] − offset[i], a whole number within ±255. Thread safe.
void shift_lanes(std::span<const int8_t> codes, std::span<const float> offset, std::span<float> y);

/// x[i] ← rint(x[i] · 127), halves to even, for x within [0, 1]: the codes of a row of softmax
/// weights that are 1 at most. Thread safe.
void encode_weights(std::span<float> x);

}  // namespace llmq::quant
