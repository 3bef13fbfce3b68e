#include "formats/float16.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

namespace llmq::formats {
namespace {

/// Value of a 16-bit pattern by its published definition, in float64.
double value_by_definition(uint16_t bits, int exponent_bits) {
  const int mantissa_bits = 15 - exponent_bits;
  const int bias = (1 << (exponent_bits - 1)) - 1;
  const int exponent = (bits >> mantissa_bits) & ((1 << exponent_bits) - 1);
  const int mantissa = bits & ((1 << mantissa_bits) - 1);
  const double sign = (bits & 0x8000) != 0 ? -1.0 : 1.0;
  if (exponent == (1 << exponent_bits) - 1) {
    return mantissa != 0 ? std::numeric_limits<double>::quiet_NaN()
                         : sign * std::numeric_limits<double>::infinity();
  }
  if (exponent == 0) return sign * std::ldexp(mantissa, 1 - bias - mantissa_bits);
  return sign * std::ldexp(mantissa + (1 << mantissa_bits), exponent - bias - mantissa_bits);
}

TEST(Float16, All65536Fp16ValuesWidenExactlyAndComeBack) {
  for (uint32_t bits = 0; bits < 65536; ++bits) {
    const auto half = static_cast<uint16_t>(bits);
    const float value = fp16_to_float(half);
    const double expected = value_by_definition(half, 5);
    if (std::isnan(expected)) {
      EXPECT_TRUE(std::isnan(value)) << bits;
      EXPECT_EQ(float_to_fp16(value), half | 0x0200) << bits;
      continue;
    }
    EXPECT_EQ(static_cast<double>(value), expected) << bits;
    EXPECT_EQ(float_to_fp16(value), half) << bits;
  }
}

TEST(Float16, All65536Bf16ValuesWidenExactlyAndComeBack) {
  for (uint32_t bits = 0; bits < 65536; ++bits) {
    const auto half = static_cast<uint16_t>(bits);
    const float value = bf16_to_float(half);
    const double expected = value_by_definition(half, 8);
    if (std::isnan(expected)) {
      EXPECT_TRUE(std::isnan(value)) << bits;
      EXPECT_EQ(float_to_bf16(value), half | 0x0040) << bits;
      continue;
    }
    EXPECT_EQ(static_cast<double>(value), expected) << bits;
    EXPECT_EQ(float_to_bf16(value), half) << bits;
  }
}

/// Between each pair of neighbours: just below the middle, the middle, just above it.
void expect_half_to_even(uint16_t low, float (*widen)(uint16_t), uint16_t (*round)(float)) {
  const auto high = static_cast<uint16_t>(low + 1);
  const double middle = (static_cast<double>(widen(low)) + static_cast<double>(widen(high))) / 2;
  const auto tie = static_cast<float>(middle);
  ASSERT_EQ(static_cast<double>(tie), middle);
  EXPECT_EQ(round(tie), (low & 1) != 0 ? high : low) << low;
  EXPECT_EQ(round(std::nextafter(tie, 0.0F)), low) << low;
  EXPECT_EQ(round(std::nextafter(tie, std::numeric_limits<float>::infinity())), high) << low;
  EXPECT_EQ(round(-tie), ((low & 1) != 0 ? high : low) | 0x8000) << low;
}

TEST(Float16, RoundsHalfToEvenBetweenAllNeighbours) {
  for (uint16_t low = 0; low < 0x7bff; ++low)
    expect_half_to_even(low, fp16_to_float, float_to_fp16);
  for (uint16_t low = 0x0080; low < 0x7f7f; ++low) {
    expect_half_to_even(low, bf16_to_float, float_to_bf16);
  }
}

TEST(Float16, OverflowsToInfinityFromTheMiddleOnwards) {
  EXPECT_EQ(float_to_fp16(65519.996F), 0x7bff);
  EXPECT_EQ(float_to_fp16(65520.0F), 0x7c00);
  EXPECT_EQ(float_to_fp16(-1e30F), 0xfc00);
  EXPECT_EQ(float_to_bf16(std::numeric_limits<float>::max()), 0x7f80);
}

}  // namespace
}  // namespace llmq::formats
