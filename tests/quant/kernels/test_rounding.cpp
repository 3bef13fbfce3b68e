// The scalar rounding kernels, which specify the others, against formulas in double.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "formats/dtype.h"
#include "formats/error.h"
#include "formats/float16.h"
#include "quant/kernels/rounding/rounding.h"

namespace llmq::quant {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr size_t kBf16 = static_cast<size_t>(FloatType::kBf16);
constexpr size_t kFp16 = static_cast<size_t>(FloatType::kFp16);
constexpr size_t kFp32 = static_cast<size_t>(FloatType::kFp32);
constexpr RoundingParams kInt8{1.0F, 0.0F, -127.0F, 127.0F};

const RoundingKernels& scalar() {
  return rounding_kernels(Isa::kScalar);
}

std::vector<int> codes_of(const std::vector<float>& row, const RoundingParams& params) {
  std::vector<int8_t> codes(row.size());
  scalar().quantize[kFp32](row.data(), static_cast<int64_t>(row.size()), &params, codes.data());
  return {codes.begin(), codes.end()};
}

RoundingSums sums_of(const std::vector<float>& row, const RoundingParams& params) {
  std::vector<int8_t> codes(row.size());
  RoundingSums sums;
  scalar().quantize_measured[kFp32](row.data(), static_cast<int64_t>(row.size()), &params,
                                    codes.data(), &sums);
  return sums;
}

RowRange range_of(const std::vector<float>& row) {
  RowRange range;
  scalar().range[kFp32](row.data(), static_cast<int64_t>(row.size()), &range);
  return range;
}

std::vector<float> normal_row(size_t n, float deviation, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0.0F, deviation);
  std::vector<float> row(n);
  for (float& x : row) x = normal(random);
  return row;
}

// Half-to-even without the library's rounding: the even one of two equally near integers.
double half_even(double x) {
  const double below = std::floor(x);
  const double above_by = x - below;
  if (above_by != 0.5) return above_by < 0.5 ? below : below + 1.0;
  return std::fmod(below, 2.0) == 0.0 ? below : below + 1.0;
}

// x / scale + offset with the two float32 roundings of the specification. Rounding a double
// quotient of two float32 values to float32 is correct rounding (53 >= 2·24 + 2) for normal
// quotients.
double rounded_reference(float x, const RoundingParams& params) {
  const auto quotient = static_cast<float>(static_cast<double>(x) / params.scale);
  return half_even(static_cast<float>(static_cast<double>(quotient) + params.offset));
}

TEST(Rounding, CodesOfTiesGoToTheEvenInteger) {
  EXPECT_THAT(codes_of({-2.5F, -1.5F, -0.5F, 0.5F, 1.5F, 2.5F, 126.5F}, kInt8),
              testing::ElementsAre(-2, -2, 0, 0, 2, 2, 126));
  // The tie is decided after the division: 0.375 / 0.25 = 1.5 and 0.625 / 0.25 = 2.5.
  EXPECT_THAT(codes_of({0.375F, 0.625F}, {0.25F, 0.0F, -127.0F, 127.0F}),
              testing::ElementsAre(2, 2));
}

TEST(Rounding, DivisionIsNotAMultiplicationByTheReciprocal) {
  // Of 8-bit scales and codes there are quotients x / s that are exact ties in float32 while
  // x · (1/s) is not: the two give different codes.
  int n_different = 0;
  for (int mantissa = 128; mantissa < 256; ++mantissa) {
    const float scale = static_cast<float>(mantissa) * 0x1p-12F;
    for (int half = 1; half < 254; half += 2) {
      const float x = scale * (static_cast<float>(half) * 0.5F);
      const RoundingParams params{scale, 0.0F, -127.0F, 127.0F};
      const int expected = static_cast<int>(half_even(half * 0.5));
      ASSERT_EQ(codes_of({x}, params).front(), expected) << scale << ' ' << half;
      if (std::nearbyint(x * (1.0F / scale)) != static_cast<float>(expected)) ++n_different;
    }
  }
  EXPECT_GT(n_different, 0);
}

TEST(Rounding, CodesMatchTheFormulaInDouble) {
  const std::vector<float> row = normal_row(20000, 0.05F, 1);
  for (const RoundingParams& params : {RoundingParams{0.0013F, 0.0F, -127.0F, 127.0F},
                                       {0.0007F, -11.0F, -128.0F, 127.0F},
                                       {0.011F, 3.0F, -8.0F, 7.0F},
                                       {0.02F, 0.0F, -7.0F, 7.0F}}) {
    const std::vector<int> codes = codes_of(row, params);
    for (size_t i = 0; i < row.size(); ++i) {
      const double code =
          std::fmin(std::fmax(rounded_reference(row[i], params), params.code_min), params.code_max);
      ASSERT_EQ(codes[i], static_cast<int>(code)) << row[i];
    }
  }
}

TEST(Rounding, EveryBf16AndFp16PatternGetsTheCodeOfItsValue) {
  std::vector<uint16_t> patterns(65536);
  for (size_t i = 0; i < patterns.size(); ++i) patterns[i] = static_cast<uint16_t>(i);
  std::vector<int8_t> codes(patterns.size());
  const RoundingParams params{0.75F, -3.0F, -128.0F, 127.0F};
  for (size_t type : {kBf16, kFp16}) {
    scalar().quantize[type](patterns.data(), 65536, &params, codes.data());
    for (size_t i = 0; i < patterns.size(); ++i) {
      const float x =
          type == kBf16 ? formats::bf16_to_float(patterns[i]) : formats::fp16_to_float(patterns[i]);
      double expected = -128.0;  // what a NaN gives
      if (std::isinf(x)) {
        expected = x > 0.0F ? 127.0 : -128.0;
      } else if (!std::isnan(x)) {
        expected = std::fmin(std::fmax(rounded_reference(x, params), -128.0), 127.0);
      }
      ASSERT_EQ(codes[i], static_cast<int>(expected)) << "type " << type << " pattern " << i;
    }
  }
}

TEST(Rounding, ExtremeScalesSaturateOrVanish) {
  const std::vector<float> row{1.0F, -1.0F, 0.0F, 1e-40F, 1e30F, -1e30F};
  EXPECT_THAT(codes_of(row, {0x1p-23F, 0.0F, -127.0F, 127.0F}),
              testing::ElementsAre(127, -127, 0, 0, 127, -127));
  EXPECT_THAT(codes_of(row, {1e-42F, 0.0F, -127.0F, 127.0F}),
              testing::ElementsAre(127, -127, 0, 100, 127, -127));
  EXPECT_THAT(codes_of(row, {1e30F, 0.0F, -127.0F, 127.0F}),
              testing::ElementsAre(0, 0, 0, 0, 1, -1));
}

TEST(Rounding, SumsMatchDoubleWithinTheErrorOfTheirOrder) {
  // A lane adds 256 terms of a block with one rounding each, the tree four more; all terms are
  // positive, so the relative error is at most 260 · 2^-24. The error of an element itself is off
  // by less than one rounding of x̂, at most 2^-24 · |x̂|.
  const double order_bound = 260.0 * 0x1p-24;
  for (size_t n : {1U, 15U, 16U, 17U, 4095U, 4096U, 4097U, 70001U}) {
    const std::vector<float> row = normal_row(n, 0.02F, static_cast<unsigned>(n));
    const RoundingParams params{0.0005F, 4.0F, -100.0F, 90.0F};
    double squares = 0.0;
    double errors = 0.0;
    double error_slack = 0.0;
    double max_error = 0.0;
    int64_t n_clipped = 0;
    int64_t n_zeros = 0;
    for (float x : row) {
      const double rounded = rounded_reference(x, params);
      const double code = std::fmin(std::fmax(rounded, -100.0), 90.0);
      const double restored = (code - 4.0) * static_cast<double>(params.scale);
      const double error = std::fabs(x - restored);
      squares += static_cast<double>(x) * x;
      errors += error * error;
      error_slack += 2.0 * error * (std::fabs(restored) + error) * 0x1p-23;
      max_error = std::fmax(max_error, error);
      if (rounded < -100.0 || rounded > 90.0) ++n_clipped;
      if (code == 4.0) ++n_zeros;
    }
    const RoundingSums sums = sums_of(row, params);
    EXPECT_NEAR(sums.sum_squares, squares, squares * order_bound) << n;
    EXPECT_NEAR(sums.sum_squared_errors, errors, errors * order_bound + error_slack) << n;
    EXPECT_NEAR(sums.max_abs_error, max_error, 0x1p-23 * 0.06) << n;
    EXPECT_EQ(sums.n_clipped, n_clipped) << n;
    EXPECT_EQ(sums.n_zeros, n_zeros) << n;
  }
}

TEST(Rounding, SumsFollowTheCanonicalOrder) {
  // Lane 0 holds 1 and 255 terms of 2^-24, each of which a float32 sum of 1 loses; in lane 1 256 of
  // them add up to 2^-16. One running sum would give 1, sums without rounding 1 + 511 · 2^-24.
  std::vector<float> row(4096, 0.0F);
  for (size_t i = 0; i < 4096; i += 16) row[i] = row[i + 1] = 0x1p-12F;
  row[0] = 1.0F;
  EXPECT_EQ(sums_of(row, kInt8).sum_squares, 1.0 + 0x1p-16);
  // A new block starts from zero and joins in double, where nothing is lost.
  row.push_back(0x1p-12F);
  EXPECT_EQ(sums_of(row, kInt8).sum_squares, 1.0 + 0x1p-16 + 0x1p-24);
}

TEST(Rounding, ClippedAndZeroCountsAreExact) {
  const RoundingSums sums =
      sums_of({127.5F, 127.4F, -127.6F, 0.0F, -0.0F, 0.5F, 1e9F, kNan}, kInt8);
  EXPECT_EQ(sums.n_clipped, 4);  // 127.5 rounds to 128, −127.6 to −128; 1e9; NaN
  EXPECT_EQ(sums.n_zeros, 3);
  const RoundingSums shifted = sums_of({-1.0F, 0.0F, 2.0F}, {1.0F, 5.0F, -128.0F, 127.0F});
  EXPECT_EQ(shifted.n_zeros, 1);
  EXPECT_EQ(shifted.sum_squared_errors, 0.0);
}

TEST(Rounding, RangeIsThatOfTheFiniteElements) {
  const RowRange range = range_of({1.0F, kNan, -3.0F, kInfinity, 2.0F, -kInfinity});
  EXPECT_EQ(range.min, -3.0F);
  EXPECT_EQ(range.max, 2.0F);
  EXPECT_EQ(range.absmax, 3.0F);
  EXPECT_EQ(range.first_non_finite, 1);

  const RowRange empty = range_of({});
  EXPECT_EQ(empty.min, kInfinity);
  EXPECT_EQ(empty.max, -kInfinity);
  EXPECT_EQ(empty.absmax, 0.0F);
  EXPECT_EQ(empty.first_non_finite, -1);

  const RowRange zeros = range_of({-0.0F, -0.0F});
  EXPECT_FALSE(std::signbit(zeros.min));
  EXPECT_FALSE(std::signbit(zeros.max));
}

// Value of a 16-bit float by its definition: sign, exponent, fraction.
double decode(uint16_t bits, int exponent_bits) {
  const int fraction_bits = 15 - exponent_bits;
  const int bias = (1 << (exponent_bits - 1)) - 1;
  const int exponent = bits >> fraction_bits & ((1 << exponent_bits) - 1);
  const int fraction = bits & ((1 << fraction_bits) - 1);
  const double sign = (bits & 0x8000) != 0 ? -1.0 : 1.0;
  if (exponent == 0) return sign * std::ldexp(fraction, 1 - bias - fraction_bits);
  return sign * std::ldexp(fraction + (1 << fraction_bits), exponent - bias - fraction_bits);
}

// Asserts that `bits` is x rounded half-to-even, by comparing x with the midpoints to the two
// neighbours; the value above the largest finite one stands for infinity.
void expect_nearest(double x, uint16_t bits, int exponent_bits) {
  ASSERT_EQ(std::signbit(x), (bits & 0x8000) != 0) << x;
  const auto magnitude = static_cast<uint16_t>(bits & 0x7fff);
  const double here = decode(magnitude, exponent_bits);
  const double above = (here + decode(static_cast<uint16_t>(magnitude + 1), exponent_bits)) / 2.0;
  const bool even = magnitude % 2 == 0;
  const uint16_t infinity_bits =
      static_cast<uint16_t>(((1 << exponent_bits) - 1) << (15 - exponent_bits));
  ASSERT_LE(magnitude, infinity_bits) << x;
  if (magnitude < infinity_bits) {
    ASSERT_TRUE(even ? std::fabs(x) <= above : std::fabs(x) < above) << x << " -> " << here;
  }
  if (magnitude == 0) return;
  const double below = (here + decode(static_cast<uint16_t>(magnitude - 1), exponent_bits)) / 2.0;
  ASSERT_TRUE(even ? std::fabs(x) >= below : std::fabs(x) > below) << x << " -> " << here;
}

std::vector<float> widened(size_t type) {
  std::vector<uint16_t> patterns(65536);
  for (size_t i = 0; i < patterns.size(); ++i) patterns[i] = static_cast<uint16_t>(i);
  std::vector<float> values(65536);
  CastReport report;
  scalar().cast[type][kFp32](patterns.data(), 65536, values.data(), &report);
  return values;
}

TEST(Rounding, WideningIsExactForEveryPattern) {
  for (size_t type : {kBf16, kFp16}) {
    const int exponent_bits = type == kBf16 ? 8 : 5;
    const std::vector<float> values = widened(type);
    for (size_t i = 0; i < values.size(); ++i) {
      const auto bits = static_cast<uint16_t>(i);
      const int exponent_mask = (1 << exponent_bits) - 1;
      const bool finite = (bits >> (15 - exponent_bits) & exponent_mask) != exponent_mask;
      ASSERT_EQ(std::isfinite(values[i]), finite) << i;
      if (finite) {
        ASSERT_EQ(values[i], decode(bits, exponent_bits)) << i;
        ASSERT_EQ(std::signbit(values[i]), bits >= 0x8000) << i;
      } else {
        ASSERT_EQ(std::isinf(values[i]), (bits & ((1 << (15 - exponent_bits)) - 1)) == 0) << i;
      }
    }
  }
}

TEST(Rounding, NarrowingIsHalfToEvenForEveryPatternOfTheOtherType) {
  for (const auto& [source, destination] : {std::pair{kBf16, kFp16}, std::pair{kFp16, kBf16}}) {
    const std::vector<float> values = widened(source);
    std::vector<uint16_t> patterns(65536);
    std::vector<uint16_t> results(65536);
    for (size_t i = 0; i < patterns.size(); ++i) patterns[i] = static_cast<uint16_t>(i);
    CastReport report;
    scalar().cast[source][destination](patterns.data(), 65536, results.data(), &report);
    for (size_t i = 0; i < patterns.size(); ++i) {
      const float x = values[i];
      if (std::isnan(x)) {
        const float result = destination == kFp16 ? formats::fp16_to_float(results[i])
                                                  : formats::bf16_to_float(results[i]);
        ASSERT_TRUE(std::isnan(result)) << i;
        ASSERT_NE(results[i] & (destination == kFp16 ? 0x200 : 0x40), 0) << "not quiet: " << i;
      } else {
        ASSERT_NO_FATAL_FAILURE(expect_nearest(x, results[i], destination == kFp16 ? 5 : 8));
      }
    }
  }
}

TEST(Rounding, NarrowingFromFloat32IsHalfToEvenAtAndAroundEveryMidpoint) {
  for (const auto& [destination, exponent_bits] : {std::pair{kFp16, 5}, std::pair{kBf16, 8}}) {
    const int infinity_bits = ((1 << exponent_bits) - 1) << (15 - exponent_bits);
    std::vector<float> values;
    for (int bits = 0; bits < infinity_bits; ++bits) {
      const double midpoint = (decode(static_cast<uint16_t>(bits), exponent_bits) +
                               decode(static_cast<uint16_t>(bits + 1), exponent_bits)) /
                              2.0;
      const auto tie = static_cast<float>(midpoint);
      for (float x : {tie, std::nextafter(tie, 0.0F), std::nextafter(tie, kInfinity)}) {
        if (!std::isfinite(x)) continue;
        values.push_back(x);
        values.push_back(-x);
      }
    }
    std::vector<uint16_t> results(values.size());
    CastReport report;
    scalar().cast[kFp32][destination](values.data(), static_cast<int64_t>(values.size()),
                                      results.data(), &report);
    for (size_t i = 0; i < values.size(); ++i) {
      ASSERT_NO_FATAL_FAILURE(expect_nearest(values[i], results[i], exponent_bits));
    }
  }
}

TEST(Rounding, CastReportsWhatDoesNotFit) {
  const std::vector<float> row{1.0F,     -32751.0F, 32752.0F,  65504.0F, -65519.0F,
                               65520.0F, -1e30F,    kInfinity, kNan,     0.0F};
  std::vector<uint16_t> halves(row.size());
  CastReport report;
  scalar().cast[kFp32][kFp16](row.data(), 10, halves.data(), &report);
  EXPECT_EQ(report.first_non_finite, 7);
  EXPECT_EQ(report.n_overflow, 2);
  EXPECT_EQ(report.n_near_overflow, 5);
  EXPECT_EQ(report.absmax, 1e30F);
  EXPECT_EQ(halves[4], 0xfbff);
  EXPECT_EQ(halves[5], 0x7c00);

  const std::vector<float> huge{std::numeric_limits<float>::max(), 3.38e38F};
  scalar().cast[kFp32][kBf16](huge.data(), 2, halves.data(), &report);
  EXPECT_EQ(report.first_non_finite, -1);
  EXPECT_EQ(report.n_overflow, 1);
  EXPECT_EQ(report.n_near_overflow, 0);
}

TEST(Rounding, CopyKeepsEveryPatternAndFindsTheFirstBadOne) {
  std::vector<uint16_t> patterns(65536);
  for (size_t i = 0; i < patterns.size(); ++i) patterns[i] = static_cast<uint16_t>(i);
  std::vector<uint16_t> copy(65536);
  CastReport report;
  scalar().cast[kBf16][kBf16](patterns.data(), 65536, copy.data(), &report);
  EXPECT_EQ(copy, patterns);
  EXPECT_EQ(report.first_non_finite, 0x7f80);
  scalar().cast[kFp16][kFp16](patterns.data(), 65536, copy.data(), &report);
  EXPECT_EQ(copy, patterns);
  EXPECT_EQ(report.first_non_finite, 0x7c00);
}

TEST(Rounding, OnlyFloatWeightTypesHaveKernels) {
  EXPECT_EQ(float_type_index(formats::DType::kBF16), kBf16);
  EXPECT_EQ(float_type_index(formats::DType::kF16), kFp16);
  EXPECT_EQ(float_type_index(formats::DType::kF32), kFp32);
  EXPECT_THROW(float_type_index(formats::DType::kI8), formats::Error);
  EXPECT_THROW(float_type_index(formats::DType::kF64), formats::Error);
}

}  // namespace
}  // namespace llmq::quant
