#pragma once

// Free of library code and with internal linkage: files compiled for one instruction set include
// it.

#include <cstdint>

namespace llmq::quant {
namespace {

/// VCVTNEPS2BF16: the nearest bfloat16, ties to even. Subnormals become zeros of their sign; every
/// NaN becomes quiet and keeps its sign and upper payload bits.
inline uint16_t nearest_bf16(float value) {
  uint32_t bits;
  __builtin_memcpy(&bits, &value, sizeof bits);
  const uint32_t magnitude = bits & 0x7fffffffU;
  const uint32_t upper = bits >> 16;
  const uint32_t rounded = (bits + 0x7fffU + (upper & 1U)) >> 16;
  const uint32_t normal = magnitude < 0x00800000U ? upper & 0x8000U : rounded;
  return static_cast<uint16_t>(magnitude > 0x7f800000U ? upper | 0x0040U : normal);
}

inline float value_of_bf16(uint16_t bits) {
  const uint32_t wide = static_cast<uint32_t>(bits) << 16;
  float value;
  __builtin_memcpy(&value, &wide, sizeof value);
  return value;
}

}  // namespace
}  // namespace llmq::quant
