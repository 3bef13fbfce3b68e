#include "quant/lane_codes.h"

#include <cstddef>

namespace llmq::quant {
namespace {

// Adding and taking away 1.5·2^23 rounds what is small beside it to a whole number, halves to even,
// in loops that the compiler turns into vectors.
constexpr float kRounder = 0x1.8p23F;

float rounded(float x) {
  return (x + kRounder) - kRounder;
}

}  // namespace

void encode_lanes(std::span<const float> x, const LaneParams& params, std::span<int8_t> codes) {
  for (size_t i = 0; i < x.size(); ++i) {
    float code = x[i] / params.scale[i] + params.offset[i];
    // Limits are whole numbers, so that they may come before the rounding.
    code = code > -128.0F ? code : -128.0F;
    code = code < 127.0F ? code : 127.0F;
    codes[i] = static_cast<int8_t>(static_cast<int32_t>(rounded(code)));
  }
}

void decode_lanes(std::span<const int8_t> codes, const LaneParams& params, std::span<float> y) {
  for (size_t i = 0; i < codes.size(); ++i)
    y[i] = (static_cast<float>(codes[i]) - params.offset[i]) * params.scale[i];
}

void shift_lanes(std::span<const int8_t> codes, std::span<const float> offset, std::span<float> y) {
  for (size_t i = 0; i < codes.size(); ++i) y[i] = static_cast<float>(codes[i]) - offset[i];
}

void encode_weights(std::span<float> x) {
  for (float& value : x) value = rounded(value * 127.0F);
}

}  // namespace llmq::quant
