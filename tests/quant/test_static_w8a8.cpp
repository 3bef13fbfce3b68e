#include "quant/static_w8a8.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <functional>
#include <limits>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "formats/error.h"
#include "formats/float16.h"
#include "tests/tools/test_files.h"

namespace llmq::quant {
namespace {

using formats::DType;
using ::testing::HasSubstr;

constexpr float kInfinity = std::numeric_limits<float>::infinity();

std::string refusal(const std::function<void()>& call, formats::ErrorCode code) {
  return test::error_message(code, call);
}

// All positive finite values of a 16-bit type in ascending order, from the definition of the type.
std::vector<double> positive_values(DType dtype) {
  const int n_mantissa_bits = dtype == DType::kF16 ? 10 : 7;
  const int n_exponents = dtype == DType::kF16 ? 31 : 255;
  const int bias = dtype == DType::kF16 ? 15 : 127;
  std::vector<double> values;
  for (int exponent = 0; exponent < n_exponents; ++exponent) {
    for (int mantissa = 0; mantissa < (1 << n_mantissa_bits); ++mantissa) {
      const int significand = exponent == 0 ? mantissa : mantissa + (1 << n_mantissa_bits);
      if (significand == 0) continue;
      values.push_back(std::ldexp(significand, std::max(exponent, 1) - bias - n_mantissa_bits));
    }
  }
  return values;
}

// The value nearest to x > 0 by search, ties to the even one, infinity beyond the last half step.
double rounded(const std::vector<double>& values, double x) {
  const auto above = std::lower_bound(values.begin(), values.end(), x);
  const double high = above == values.end() ? 2 * values.back() - *(values.end() - 2) : *above;
  const double low = above == values.begin() ? 0.0 : *(above - 1);
  // values[i] has the bit pattern i + 1.
  const bool high_is_even = (above - values.begin()) % 2 == 1;
  double result = low;
  if (high - x < x - low || (high - x == x - low && high_is_even)) result = high;
  return result > values.back() ? INFINITY : result;
}

double reciprocal_error(const std::vector<double>& values, double scale) {
  return std::abs(rounded(values, 1.0 / scale) * scale - 1.0);
}

ActivationRange range_with_scale(float scale) {
  return {0.0F, scale * 255.0F, ActMethod::kMinMax};
}

TEST(StaticW8A8, RoundedReciprocalIsThatOfTheExactQuotient) {
  for (const DType dtype : {DType::kF16, DType::kBF16}) {
    const std::vector<double> values = positive_values(dtype);
    for (size_t i = 0; i < values.size(); i += dtype == DType::kF16 ? 1 : 3) {
      const auto scale = static_cast<float>(values[i]);
      EXPECT_EQ(rounded_reciprocal(scale, dtype), rounded(values, 1.0 / values[i])) << values[i];
    }
  }
}

TEST(StaticW8A8, ScaleIsTheOneOfFourWithTheBestReciprocal) {
  std::mt19937 random(11);
  std::uniform_real_distribution<float> exponent(-18.0F, 12.0F);
  double worst_of_first = 0.0;
  double worst_of_chosen = 0.0;
  std::set<size_t> distances;
  for (const DType dtype : {DType::kF16, DType::kBF16}) {
    const std::vector<double> values = positive_values(dtype);
    for (int i = 0; i < 20000; ++i) {
      const ActivationRange range = range_with_scale(std::exp2(exponent(random)));
      const float exact = std::max(range.max / 255.0F, 0x1p-23F);
      auto first = std::lower_bound(values.begin(), values.end(), static_cast<double>(exact));
      while (std::isinf(rounded(values, 1.0 / *first))) ++first;
      const auto best = std::min_element(first, first + 4, [&](double a, double b) {
        return reciprocal_error(values, a) < reciprocal_error(values, b);
      });
      const float scale = activation_params(range, false, dtype).scale;
      ASSERT_EQ(scale, *best) << exact;
      ASSERT_GE(scale, exact);
      worst_of_first = std::max(worst_of_first, reciprocal_error(values, *first));
      worst_of_chosen = std::max(worst_of_chosen, reciprocal_error(values, scale));
      distances.insert(static_cast<size_t>(best - first));
    }
  }
  EXPECT_EQ(distances, (std::set<size_t>{0, 1, 2, 3}));
  EXPECT_GT(worst_of_first, 0x1p-9);  // half a unit of bfloat16
  EXPECT_LT(worst_of_chosen, worst_of_first);
}

TEST(StaticW8A8, Float32ScalesStayWithinFourSteps) {
  std::mt19937 random(12);
  std::uniform_real_distribution<float> exponent(-20.0F, 20.0F);
  for (int i = 0; i < 1000; ++i) {
    const ActivationRange range = range_with_scale(std::exp2(exponent(random)));
    const float exact = std::max(range.max / 255.0F, 0x1p-23F);
    const float scale = activation_params(range, false, DType::kF32).scale;
    const uint32_t steps = std::bit_cast<uint32_t>(scale) - std::bit_cast<uint32_t>(exact);
    EXPECT_LT(steps, 4U);
    for (uint32_t step = 0; step < 4; ++step) {
      const auto other = std::bit_cast<float>(std::bit_cast<uint32_t>(exact) + step);
      const auto error = [](float s) { return std::abs(static_cast<double>(1.0F / s) * s - 1.0); };
      EXPECT_LE(error(scale), error(other));
    }
  }
}

TEST(StaticW8A8, OffsetAndScaleCoverTheRange) {
  std::mt19937 random(13);
  std::normal_distribution<float> normal(0.0F, 20.0F);
  for (int i = 0; i < 5000; ++i) {
    const float a = normal(random);
    const float b = normal(random);
    const ActivationRange range{std::min(a, b), std::max(a, b), ActMethod::kMinMax};
    for (const DType dtype : {DType::kF16, DType::kBF16}) {
      const ActivationParams params = activation_params(range, false, dtype);
      EXPECT_EQ(params.offset, std::rint(params.offset));
      EXPECT_GE(params.offset, -128.0F);
      EXPECT_LE(params.offset, 127.0F);
      // Both ends lie within half a step of the first and last code.
      const double scale = params.scale;
      EXPECT_GE(std::min(range.min, 0.0F) / scale + params.offset, -128.5 - 1e-4);
      EXPECT_LE(std::max(range.max, 0.0F) / scale + params.offset, 127.5 + 1e-4);
      const ActivationParams symmetric = activation_params(range, true, dtype);
      EXPECT_EQ(symmetric.offset, 0.0F);
      EXPECT_GE(symmetric.scale * 127.0, std::max(-range.min, range.max) * (1 - 0x1p-23));
    }
  }
}

TEST(StaticW8A8, RangeIsWidenedToContainZero) {
  for (const DType dtype : {DType::kF16, DType::kBF16}) {
    const ActivationParams above = activation_params({3.0F, 12.75F}, false, dtype);
    const ActivationParams from_zero = activation_params({0.0F, 12.75F}, false, dtype);
    EXPECT_EQ(above.scale, from_zero.scale);
    EXPECT_EQ(above.offset, -128.0F);
    const ActivationParams below = activation_params({-12.75F, -3.0F}, false, dtype);
    EXPECT_EQ(below.scale, from_zero.scale);
    EXPECT_EQ(below.offset, std::rint(12.75F / below.scale) - 128.0F);
    EXPECT_GE(below.offset, 124.0F);  // the scale may be three steps of 2^-8 too large
  }
}

TEST(StaticW8A8, SmallestScaleHasAReciprocalInTheDtype) {
  const ActivationRange zero{0.0F, 0.0F, ActMethod::kMinMax};
  EXPECT_EQ(activation_params(zero, false, DType::kBF16).scale, 0x1p-23F);
  EXPECT_EQ(activation_params(zero, false, DType::kF32).scale, 0x1p-23F);
  EXPECT_TRUE(std::isinf(rounded_reciprocal(256 * 0x1p-24F, DType::kF16)));
  EXPECT_TRUE(std::isfinite(rounded_reciprocal(257 * 0x1p-24F, DType::kF16)));
  const float half_scale = activation_params(zero, false, DType::kF16).scale;
  EXPECT_GE(half_scale, 257 * 0x1p-24F);
  EXPECT_LE(half_scale, 260 * 0x1p-24F);
}

TEST(StaticW8A8, RangeThatDoesNotFitIsRefused) {
  using formats::ErrorCode;
  const ActivationRange wide = range_with_scale(65520.0F);
  EXPECT_THAT(refusal([&] { activation_params(wide, false, DType::kF16); }, ErrorCode::kBadInput),
              HasSubstr("does not fit into float16"));
  EXPECT_GE(activation_params(wide, false, DType::kBF16).scale, 65520.0F);
  EXPECT_EQ(activation_params(range_with_scale(65504.0F), false, DType::kF16).scale, 65504.0F);
  for (const ActivationRange& range :
       {ActivationRange{0.0F, kInfinity}, ActivationRange{-kInfinity, 0.0F},
        ActivationRange{std::nanf(""), 1.0F}, ActivationRange{0.0F, std::nanf("")},
        ActivationRange{kInfinity, -kInfinity}, ActivationRange{1.0F, -1.0F}})
    refusal([&] { activation_params(range, false, DType::kBF16); }, ErrorCode::kBadInput);
  refusal([] { activation_params({0.0F, 1.0F}, false, DType::kI8); }, ErrorCode::kBadInput);
}

TEST(StaticW8A8, CodeSumsAreThoseOfTheRows) {
  const std::vector<int8_t> codes = {1, -128, 127, 5, -6, 7, 100, 100, 100};
  EXPECT_EQ(code_sums(codes, 3), (std::vector<int64_t>{0, 6, 300}));
  EXPECT_EQ(code_sums(codes, 9).at(1), -128);
  EXPECT_TRUE(code_sums({}, 0).empty());
  const std::vector<int8_t> long_row(200000, int8_t{127});
  EXPECT_EQ(code_sum(long_row), 25400000);
  refusal([&] { code_sums(codes, 2); }, formats::ErrorCode::kInternal);
  refusal([&] { code_sums(codes, 0); }, formats::ErrorCode::kInternal);
}

// y of the published formula with the derived tensors, against the float product that it stands
// for.
TEST(StaticW8A8, DerivedTensorsReproduceTheLinear) {
  constexpr size_t kN = 24;
  constexpr size_t kK = 300;
  std::mt19937 random(14);
  std::uniform_int_distribution<int> code(-127, 127);
  std::normal_distribution<float> normal(0.0F, 1.0F);
  std::vector<int8_t> weight(kN * kK);
  for (int8_t& q : weight) q = static_cast<int8_t>(code(random));
  std::vector<float> weight_scale(kN);
  for (float& scale : weight_scale) scale = 0.001F + 0.001F * std::abs(normal(random));
  std::vector<float> bias(kN);
  for (float& b : bias) b = normal(random);
  const ActivationParams params = activation_params({-3.1F, 9.7F}, false, DType::kBF16);
  std::vector<int8_t> x(kK);
  for (int8_t& q : x) q = static_cast<int8_t>(code(random));

  const StaticTensors tensors = static_tensors(params, weight_scale, code_sums(weight, kN), bias);
  for (size_t j = 0; j < kN; ++j) {
    EXPECT_EQ(tensors.deq_scale[j], params.scale * weight_scale[j]);
    double expected = bias[j];
    int64_t accumulator = tensors.quant_bias[j];
    for (size_t k = 0; k < kK; ++k) {
      accumulator += x[k] * weight[j * kK + k];
      expected += (x[k] - static_cast<double>(params.offset)) * params.scale *
                  (weight[j * kK + k] * static_cast<double>(weight_scale[j]));
    }
    // quant_bias is rounded to whole units of deq_scale, and deq_scale to float32.
    EXPECT_NEAR(static_cast<double>(accumulator) * tensors.deq_scale[j], expected,
                0.5 * tensors.deq_scale[j] +
                    0x1p-23 * static_cast<double>(std::abs(accumulator)) * tensors.deq_scale[j] +
                    0x1p-23 * std::abs(bias[j]));
  }
}

TEST(StaticW8A8, QuantBiasIsRoundedOnceHalfToEven) {
  // bias / deq_scale is a whole number and a half here, exactly.
  const ActivationParams params{0.5F, -3.0F};
  const std::vector<float> weight_scale(4, 1.0F);
  const std::vector<int64_t> sums = {0, 1, 2, -7};
  const std::vector<float> bias = {1.25F, 1.25F, -0.25F, 0.75F};
  EXPECT_EQ(static_tensors(params, weight_scale, sums, bias).quant_bias,
            (std::vector<int32_t>{2, 6, 6, -20}));
  EXPECT_EQ(static_tensors(params, weight_scale, sums, {}).quant_bias,
            (std::vector<int32_t>{0, 3, 6, -21}));
  // A sum that float32 cannot hold.
  EXPECT_EQ(
      static_tensors({1.0F, -1.0F}, std::vector<float>{1.0F}, std::vector<int64_t>{16777217}, {})
          .quant_bias.at(0),
      16777217);
}

TEST(StaticW8A8, ChannelThatDoesNotFitIsNamed) {
  using formats::ErrorCode;
  const std::vector<float> weight_scale = {0.5F, 0.5F};
  const std::vector<int64_t> sums = {0, 0};
  const auto derive = [&](const ActivationParams& params, const std::vector<float>& bias) {
    return static_tensors(params, weight_scale, sums, bias);
  };
  EXPECT_EQ(derive({0.5F, 0.0F}, {0.0F, 0x1p+29F - 32.0F}).quant_bias.at(1), 2147483520);
  EXPECT_EQ(derive({0.5F, 0.0F}, {0.0F, -0x1p+29F}).quant_bias.at(1),
            std::numeric_limits<int32_t>::min());
  for (const float bias : {0x1p+29F, -0x1p+29F - 64.0F, kInfinity, std::nanf("")}) {
    EXPECT_THAT(refusal(
                    [&] {
                      derive({0.5F, 0.0F}, {0.0F, bias});
                    },
                    ErrorCode::kBadInput),
                HasSubstr("channel 1: quant_bias"));
  }
  EXPECT_THAT(refusal(
                  [&] {
                    derive({0x1p-149F, 0.0F}, {0.0F, 0.0F});
                  },
                  ErrorCode::kBadInput),
              HasSubstr("channel 0: deq_scale"));
  refusal([&] { derive({0.5F, 0.0F}, {0.0F}); }, ErrorCode::kInternal);
  refusal([&] { static_tensors({}, weight_scale, std::vector<int64_t>{0}, {}); },
          ErrorCode::kInternal);
}

TEST(StaticW8A8, DeqScaleIsWidenedBitForBit) {
  EXPECT_EQ(widen_deq_scale(1.0F), 0x3F800000);
  for (const float scale : {0x1p-149F, 0x1p-46F, 0.0123F, 1.0F, 3.4e38F}) {
    const int64_t bits = widen_deq_scale(scale);
    EXPECT_TRUE(is_widened_deq_scale(bits));
    EXPECT_EQ(narrow_deq_scale(bits), scale);
  }
  EXPECT_FALSE(is_widened_deq_scale(int64_t{1} << 32));
  EXPECT_FALSE(is_widened_deq_scale(-1));
}

}  // namespace
}  // namespace llmq::quant
