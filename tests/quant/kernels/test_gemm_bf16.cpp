#include <gtest/gtest.h>

#include <array>
#include <bit>
#include <cmath>
#include <limits>
#include <vector>

#include "formats/error.h"
#include "quant/kernels/families.h"
#include "quant/kernels/gemm_bf16/round_bf16.h"
#include "tests/quant/kernels/bf16_problem.h"

namespace llmq::quant {
namespace {

constexpr double kUnitRoundoff = 0x1p-24;
constexpr double kSmallestNormal = 0x1p-126;

/// Σ x̂·ŵ + bias in float64, Σ |x̂·ŵ| + |bias|, and Σ |x̂|.
struct ExactElement {
  double value = 0.0;
  double magnitude = 0.0;
  double x_sum = 0.0;

  ExactElement(const Bf16Problem& problem, int64_t row, int64_t col) {
    for (int64_t i = 0; i < problem.k; ++i) {
      const double x = problem.rounded_x(row, i);
      const double product = x * problem.rounded_weight(col, i);
      value += product;
      magnitude += std::fabs(product);
      x_sum += std::fabs(x);
    }
    const double bias = problem.has_bias ? problem.bias[static_cast<size_t>(col)] : 0.0;
    value += bias;
    magnitude += std::fabs(bias);
  }
};

double steps_of(int64_t k, int64_t per_step) {
  return std::ceil(static_cast<double>(k) / static_cast<double>(per_step));
}

// What flushing may take away: each result of a chain, two per step of 32, and whole products of
// subnormal weights.
double flush_bound(const ExactElement& exact, int64_t k) {
  return kSmallestNormal * (2.0 * static_cast<double>(k) + 2.0 + exact.x_sum);
}

/// `problem` with operands around `scale`, so that products are around its square.
Bf16Problem scaled(Bf16Problem problem, float scale) {
  for (float& x : problem.x) x *= scale;
  for (int64_t i = 0; i < problem.n * problem.k; ++i)
    problem.set_weight(i, scale * problem.unscaled_weight(i / problem.k, i % problem.k));
  if (scale < 1.0F) problem.has_bias = false;
  return problem;
}

std::vector<Bf16Problem> bound_problems() {
  std::vector<Bf16Problem> problems;
  for (const bool is_fp16 : {false, true}) {
    for (const int64_t k : {1, 31, 100, 3000}) problems.emplace_back(3, 11, k, is_fp16);
  }
  for (const float scale : {0x1p-62F, 0x1p-64F, 0x1p-128F}) {
    for (const int64_t k : {5, 70}) problems.push_back(scaled(Bf16Problem(3, 11, k), scale));
  }
  return problems;
}

TEST(GemmBf16, TileOrderIsWithinTheSummationBoundOfFloat64) {
  for (const Bf16Problem& problem : bound_problems()) {
    const std::vector<float> y = problem.specified();
    for (int64_t i = 0; i < problem.m * problem.n; ++i) {
      const ExactElement exact(problem, i / problem.n, i % problem.n);
      // A product passes 16 steps of its chain, the sum of two chains, and all sums to come.
      const double roundings = 16.0 + 1.0 + steps_of(problem.k, 32) + 1.0;
      EXPECT_NEAR(
          y[static_cast<size_t>(i)], exact.value,
          1.001 * roundings * kUnitRoundoff * exact.magnitude + flush_bound(exact, problem.k))
          << problem.text() << " element " << i;
    }
  }
}

TEST(GemmBf16, BothOrdersDifferWithinTheStatedBound) {
  ThreadTeam team(1);
  int n_different = 0;
  for (const Bf16Problem& problem : bound_problems()) {
    const std::vector<float> tiles = problem.specified();
    const std::vector<float> lanes = problem.by_lanes(team, Isa::kScalar);
    for (int64_t i = 0; i < problem.m * problem.n; ++i) {
      const ExactElement exact(problem, i / problem.n, i % problem.n);
      const double roundings = steps_of(problem.k, 32) + steps_of(problem.k, 16) + 24.0;
      const auto at = static_cast<size_t>(i);
      EXPECT_NEAR(
          tiles[at], lanes[at],
          1.001 * roundings * kUnitRoundoff * exact.magnitude + flush_bound(exact, problem.k))
          << problem.text() << " element " << i;
      n_different += tiles[at] != lanes[at] ? 1 : 0;
    }
  }
  EXPECT_GT(n_different, 0) << "orders that never differ need no bound";
}

TEST(GemmBf16, NonFiniteOperandsGiveNoFiniteSumInEitherOrder) {
  ThreadTeam team(1);
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  for (const float value : {kInfinity, -kInfinity, std::nanf(""), 3.4e38F}) {  // the last rounds up
    Bf16Problem problem(3, 5, 40);
    problem.x[40 + 7] = value;
    problem.set_weight(2 * 40 + 9, value);
    for (const std::vector<float>& y :
         {problem.specified(), problem.by_lanes(team, active_isa())}) {
      for (int64_t i = 0; i < 15; ++i) {
        const bool is_touched = i / 5 == 1 || i % 5 == 2;
        EXPECT_EQ(std::isfinite(y[static_cast<size_t>(i)]), !is_touched) << value << " " << i;
      }
    }
  }
}

TEST(IsaGemmBf16, LanesHaveTheBitsOfTheFloat32ProductOfRoundedOperands) {
  ThreadTeam team(2);
  const std::vector<std::array<int64_t, 3>> shapes{{1, 7, 33}, {40, 19, 100}, {260, 9, 1030}};
  for (const auto& [m, n, k] : shapes) {
    for (const bool is_fp16 : {false, true}) {
      const Bf16Problem problem(m, n, k, is_fp16);
      std::vector<float> x(static_cast<size_t>(m * k));
      std::vector<float> w(static_cast<size_t>(n * k));
      for (int64_t i = 0; i < m * k; ++i)
        x[static_cast<size_t>(i)] = problem.rounded_x(i / k, i % k);
      for (int64_t i = 0; i < n * k; ++i)
        w[static_cast<size_t>(i)] = problem.rounded_weight(i / k, i % k);
      std::vector<float> expected(static_cast<size_t>(m * n));
      gemm_f32({{x.data(), m, k, k}, w.data(), k, problem.bias.data(), {expected.data(), m, n, n}},
               team, Isa::kScalar);
      for (const Isa isa : supported_isas())
        EXPECT_TRUE(same_bits(problem.by_lanes(team, isa), expected))
            << problem.text() << " " << isa_name(isa);
    }
  }
}

TEST(IsaGemmBf16, BitsDependOnNeitherThreadsNorSetsWithoutTiles) {
  for (const int64_t m : {5, 40}) {
    const Bf16Problem problem(m, 101, 300);
    ThreadTeam one(1);
    const std::vector<float> lanes = problem.by_lanes(one, Isa::kScalar);
    const std::vector<float> tiles = problem.specified();
    for (int n_threads = 1; n_threads <= 4; ++n_threads) {
      ThreadTeam team(n_threads);
      for (const Isa isa : supported_isas()) {
        const bool has_tiles = isa == Isa::kAmx && m >= kBf16FewestTileRows;
        const std::vector<float> y =
            problem.result([&](const GemmBf16Args& args) { gemm_bf16(args, team, isa); });
        EXPECT_TRUE(same_bits(y, has_tiles ? tiles : lanes))
            << problem.text() << " " << isa_name(isa) << " threads " << n_threads;
      }
    }
  }
}

TEST(GemmBf16, RoundingIsHalfToEvenWithoutSubnormals) {
  constexpr uint32_t kPrime = 65521;  // every exponent, and more than 65536 values
  for (uint64_t bits = 0; bits < (uint64_t{1} << 32); bits += kPrime) {
    const auto value = std::bit_cast<float>(static_cast<uint32_t>(bits));
    const float nearest = std::fabs(value) < 0x1p-126F ? std::copysign(0.0F, value) : value;
    ASSERT_EQ(nearest_bf16(value), formats::float_to_bf16(nearest)) << std::hexfloat << value;
  }
  EXPECT_EQ(value_of_bf16(nearest_bf16(0x1.01p0F)), 1.0F) << "a tie goes to even";
  EXPECT_EQ(value_of_bf16(nearest_bf16(0x1.03p0F)), 0x1.04p0F) << "a tie goes to even";
  EXPECT_TRUE(std::isinf(value_of_bf16(nearest_bf16(0x1.ffp127F))));
  EXPECT_EQ(nearest_bf16(-0x1.fffffcp-127F), 0x8000) << "though 2^-126 is nearer";
}

TEST(GemmBf16, OperandsThatDoNotFitAreRefused) {
  ThreadTeam team(1);
  std::vector<float> f(64);
  const auto multiply = [&](formats::DType dtype, int64_t weight_stride, int64_t y_rows) {
    gemm_bf16({{f.data(), 2, 8, 8},
               f.data(),
               dtype,
               weight_stride,
               nullptr,
               {f.data() + 32, y_rows, 4, 4}},
              team);
  };
  EXPECT_NO_THROW(multiply(formats::DType::kBF16, 8, 2));
  EXPECT_THROW(multiply(formats::DType::kF32, 8, 2), formats::Error);
  EXPECT_THROW(multiply(formats::DType::kBF16, 7, 2), formats::Error);
  EXPECT_THROW(multiply(formats::DType::kBF16, 8, 3), formats::Error);
}

TEST(GemmBf16, ItIsListedWithWhatRuns) {
  const KernelFamily& family = kernel_family("gemm_bf16");
  EXPECT_EQ(family.implementation(Isa::kAmx), Isa::kAmx);
  EXPECT_EQ(family.implementation(Isa::kAvx512Vnni), Isa::kAvx512Vnni);
  EXPECT_EQ(family.implementation(Isa::kAvxVnni), Isa::kAvx2);
  EXPECT_EQ(family.implementation(Isa::kScalar), Isa::kScalar);
}

}  // namespace
}  // namespace llmq::quant
