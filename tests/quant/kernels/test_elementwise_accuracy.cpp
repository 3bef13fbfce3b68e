#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "quant/kernels/cpu.h"
#include "quant/kernels/elementwise/elementwise.h"

namespace llmq::quant {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
constexpr double kUnitRoundoff = 0x1p-24;

std::vector<float> normal_values(size_t n, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> values(n);
  for (float& v : values) v = normal(random);
  return values;
}

// |value − exact| in units of the last place of the float32 nearest to `exact`.
double error_ulp(float value, long double exact) {
  const auto nearest = static_cast<float>(exact);
  const float next = std::nextafter(nearest, kInfinity);
  return static_cast<double>(std::fabs(value - exact) / (static_cast<long double>(next) - nearest));
}

TEST(ElementwiseExp, ErrorIsBelow1Point1UlpOverTheWholeRange) {
  const ElementwiseKernels& kernels = elementwise_kernels(active_isa());
  constexpr uint32_t kStride = 4093;  // of the float32 patterns in [−87.336, 88.722]; prime
  double worst = 0.0;
  std::vector<float> x;
  for (const bool negative : {false, true}) {
    const uint32_t end = std::bit_cast<uint32_t>(negative ? 0x1.5d589ep+6F : 0x1.62e42ep+6F);
    for (uint32_t bits = 0; bits <= end; bits += kStride)
      x.push_back(std::bit_cast<float>(bits | (negative ? 0x80000000U : 0U)));
    x.push_back(std::bit_cast<float>(end | (negative ? 0x80000000U : 0U)));
  }
  // The last stretch, where most of the range lies, once more on an even grid.
  for (double v = -87.33; v < 88.72; v += 0.0007) x.push_back(static_cast<float>(v));
  std::vector<float> y(x.size());
  kernels.exp(x.data(), y.data(), static_cast<int64_t>(x.size()));
  for (size_t i = 0; i < x.size(); ++i)
    worst = std::max(worst, error_ulp(y[i], std::exp(static_cast<long double>(x[i]))));
  EXPECT_LT(worst, 1.1);
  EXPECT_GT(worst, 0.5);  // a correctly rounded exp would mean that the measure is broken
}

TEST(ElementwiseExp, EndsOfTheRange) {
  const std::vector<float> x{kNaN,   -kNaN,    kInfinity, -kInfinity, 0.0F,  -0.0F,
                             -87.4F, -1000.0F, 88.8F,     1e30F,      1e-40F};
  std::vector<float> y(x.size());
  elementwise_kernels(active_isa()).exp(x.data(), y.data(), static_cast<int64_t>(x.size()));
  EXPECT_TRUE(std::isnan(y[0]));
  EXPECT_TRUE(std::isnan(y[1]));
  EXPECT_EQ(
      std::vector<float>(y.begin() + 2, y.end()),
      (std::vector<float>{kInfinity, 0.0F, 1.0F, 1.0F, 0.0F, 0.0F, kInfinity, kInfinity, 1.0F}));
}

TEST(ElementwiseSilu, MatchesFloat64) {
  const std::vector<float> gate = normal_values(4000, 1);
  const std::vector<float> up = normal_values(4000, 2);
  std::vector<float> x(gate);
  for (float& v : x) v *= 20.0F;
  std::vector<float> y(x.size());
  elementwise_kernels(active_isa()).silu_multiply(x.data(), up.data(), y.data(), 4000);
  for (size_t i = 0; i < x.size(); ++i) {
    const double g = x[i];
    const double exact = g / (1.0 + std::exp(-g)) * up[i];
    // exp: 1.1 ulp <= 2.2 roundings; sum, quotient, product: one each
    EXPECT_NEAR(y[i], exact, 1.01 * 5.2 * kUnitRoundoff * std::fabs(exact) + 1e-38) << x[i];
  }
}

TEST(ElementwiseSigmoid, MatchesFloat64AndSaturates) {
  std::vector<float> x = normal_values(4000, 3);
  for (float& v : x) v *= 20.0F;
  std::vector<float> y(x.size());
  const ElementwiseKernels& kernels = elementwise_kernels(active_isa());
  kernels.sigmoid(x.data(), y.data(), 4000);
  for (size_t i = 0; i < x.size(); ++i) {
    const double exact = 1.0 / (1.0 + std::exp(-static_cast<double>(x[i])));
    EXPECT_NEAR(y[i], exact, 1.01 * 4.2 * kUnitRoundoff * exact + 1e-38) << x[i];
  }
  const std::vector<float> ends{-kInfinity, kInfinity, -200.0F, 200.0F};
  kernels.sigmoid(ends.data(), y.data(), 4);
  y.resize(4);
  EXPECT_EQ(y, (std::vector<float>{0.0F, 1.0F, 0.0F, 1.0F}));
}

TEST(ElementwiseSoftmax, PiecesMakeASoftmaxWithinItsRoundings) {
  const ElementwiseKernels& kernels = elementwise_kernels(active_isa());
  for (const size_t n : {1U, 5U, 777U}) {
    std::vector<float> x = normal_values(n, 4);
    for (float& v : x) v *= 5.0F;
    const float max = kernels.row_max(x.data(), static_cast<int64_t>(n));
    EXPECT_EQ(max, *std::max_element(x.begin(), x.end()));
    std::vector<float> y(n);
    const float sum = kernels.exp_sum(x.data(), max, y.data(), static_cast<int64_t>(n));
    // Every exponential has the roundings of exp (1.1 ulp) and |distance| more for its rounded
    // distance from the maximum; the sum adds its own.
    constexpr double kExpRoundings = 2.2;
    double exact_sum = 0.0;
    double sum_roundings = 0.0;
    for (const float v : x) {
      const double distance = static_cast<double>(v) - max;
      exact_sum += std::exp(distance);
      sum_roundings += std::exp(distance) * (std::fabs(distance) + kExpRoundings);
    }
    sum_roundings = sum_roundings / exact_sum + std::ceil(static_cast<double>(n) / 16.0) + 4.0;
    for (size_t i = 0; i < n; ++i) {
      const double distance = static_cast<double>(x[i]) - max;
      const double exact = std::exp(distance) / exact_sum;
      const double roundings = std::fabs(distance) + kExpRoundings + sum_roundings;
      EXPECT_NEAR(y[i] / static_cast<double>(sum), exact, 1.01 * roundings * kUnitRoundoff * exact);
    }
  }
}

TEST(ElementwiseSoftmax, FullyMaskedRowsBecomeZerosAndNaNsStayVisible) {
  const ElementwiseKernels& kernels = elementwise_kernels(active_isa());
  const std::vector<float> masked(21, -kInfinity);
  std::vector<float> y(21, 1.0F);
  EXPECT_EQ(kernels.row_max(masked.data(), 21), -kInfinity);
  EXPECT_EQ(kernels.exp_sum(masked.data(), -kInfinity, y.data(), 21), 0.0F);
  EXPECT_EQ(y, std::vector<float>(21, 0.0F));
  std::vector<float> x(21, 1.0F);
  x[20] = kNaN;
  EXPECT_EQ(kernels.row_max(x.data(), 21), 1.0F);
  EXPECT_TRUE(std::isnan(kernels.exp_sum(x.data(), 1.0F, y.data(), 21)));
  EXPECT_EQ(kernels.row_max(nullptr, 0), -kInfinity);
}

TEST(ElementwiseRmsNorm, MatchesFloat64) {
  for (const size_t n : {1U, 64U, 896U, 5000U}) {
    const std::vector<float> x = normal_values(n, 5);
    const std::vector<float> weight = normal_values(n, 6);
    std::vector<float> y(n);
    elementwise_kernels(active_isa())
        .rms_norm({x.data(), weight.data(), 1e-6F, static_cast<int64_t>(n), y.data()});
    double squares = 0.0;
    for (const float v : x) squares += static_cast<double>(v) * v;
    const double inverse = 1.0 / std::sqrt(squares / static_cast<double>(n) + 1e-6F);
    // Half of the roundings of the sum (square root), then quotient, sum, root, quotient, products.
    const double roundings = 0.5 * (std::ceil(static_cast<double>(n) / 16.0) + 4.0) + 6.0;
    for (size_t i = 0; i < n; ++i) {
      const double exact = x[i] * inverse * weight[i];
      EXPECT_NEAR(y[i], exact, 1.01 * roundings * kUnitRoundoff * std::fabs(exact));
    }
  }
}

TEST(ElementwiseRope, RotatesEveryPairByItsAngle) {
  constexpr size_t kPairs = 37;
  const std::vector<float> x = normal_values(2 * kPairs, 7);
  std::vector<float> cos(kPairs);
  std::vector<float> sin(kPairs);
  for (size_t i = 0; i < kPairs; ++i) {
    cos[i] = std::cos(static_cast<float>(i));
    sin[i] = std::sin(static_cast<float>(i));
  }
  std::vector<float> y(x.size());
  elementwise_kernels(active_isa()).rope({x.data(), cos.data(), sin.data(), kPairs, y.data()});
  for (size_t i = 0; i < kPairs; ++i) {
    const double a = x[i];
    const double b = x[i + kPairs];
    const double bound = 2.0 * kUnitRoundoff * (std::fabs(a) + std::fabs(b));
    EXPECT_NEAR(y[i], a * cos[i] - b * sin[i], bound);
    EXPECT_NEAR(y[i + kPairs], b * cos[i] + a * sin[i], bound);
  }
}

}  // namespace
}  // namespace llmq::quant
