#pragma once

#include <bit>
#include <cstdint>

namespace llmq::formats {

// Single-value conversions in software, exact in every case. They are the specification of the
// vectorized casts in quant/kernels; use those for arrays.

/// Value of a bfloat16 bit pattern; exact, NaN payloads kept.
constexpr float bf16_to_float(uint16_t bits) {
  return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16);
}

/// Nearest bfloat16, ties to even; overflow gives infinity; every NaN becomes quiet and keeps its
/// sign and upper payload bits.
constexpr uint16_t float_to_bf16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  if ((bits & 0x7fffffffU) > 0x7f800000U) return static_cast<uint16_t>((bits >> 16) | 0x0040U);
  const uint32_t rounding = 0x7fffU + ((bits >> 16) & 1U);
  return static_cast<uint16_t>((bits + rounding) >> 16);
}

/// Value of an IEEE binary16 bit pattern; exact, subnormals included; a NaN becomes quiet (as F16C
/// does).
constexpr float fp16_to_float(uint16_t bits) {
  const uint32_t sign = static_cast<uint32_t>(bits & 0x8000U) << 16;
  const uint32_t exponent = (bits >> 10) & 0x1fU;
  const uint32_t mantissa = bits & 0x3ffU;
  if (exponent == 0x1fU) {
    const uint32_t quiet = mantissa != 0 ? 0x00400000U : 0U;
    return std::bit_cast<float>(sign | 0x7f800000U | (mantissa << 13) | quiet);
  }
  if (exponent != 0)
    return std::bit_cast<float>(sign | ((exponent + 112) << 23) | (mantissa << 13));
  const float magnitude = static_cast<float>(mantissa) * 0x1p-24F;
  return std::bit_cast<float>(sign | std::bit_cast<uint32_t>(magnitude));
}

/// Nearest IEEE binary16, ties to even; magnitudes of 65520 and above give infinity; results below
/// 2^-14 are subnormal; every NaN becomes quiet and keeps its sign and upper payload bits.
constexpr uint16_t float_to_fp16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const auto sign = static_cast<uint16_t>((bits >> 16) & 0x8000U);
  const uint32_t magnitude = bits & 0x7fffffffU;
  if (magnitude > 0x7f800000U) {
    return static_cast<uint16_t>(sign | 0x7e00U | ((magnitude >> 13) & 0x3ffU));
  }
  if (magnitude >= 0x477ff000U) return static_cast<uint16_t>(sign | 0x7c00U);
  if (magnitude >= 0x38800000U) {
    const uint32_t rounding = 0xfffU + ((magnitude >> 13) & 1U);
    return static_cast<uint16_t>(sign | ((magnitude + rounding - 0x38000000U) >> 13));
  }
  // Below 2^-14 adding 2^-1 aligns the binary16 subnormal grid with float32's last place, so that
  // the addition itself rounds half to even.
  const float aligned = std::bit_cast<float>(magnitude) + 0.5F;
  return static_cast<uint16_t>(sign | (std::bit_cast<uint32_t>(aligned) - 0x3f000000U));
}

}  // namespace llmq::formats
