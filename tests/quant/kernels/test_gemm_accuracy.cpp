#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "formats/error.h"
#include "tests/quant/kernels/gemm_problem.h"

namespace llmq::quant {
namespace {

constexpr double kUnitRoundoff = 0x1p-24;

class Accuracy : public ::testing::TestWithParam<GemmKind> {};

INSTANTIATE_TEST_SUITE_P(Gemm, Accuracy, ::testing::ValuesIn(gemm_kinds()),
                         [](const auto& kind) { return kind.param.name; });

TEST_P(Accuracy, ScalarIsWithinTheSummationBoundOfFloat64) {
  ThreadTeam team(1);
  for (const int64_t k : {1, 100, 3000}) {
    const GemmProblem problem(GetParam(), 3, 11, k);
    const std::vector<float> y = problem.run(team, Isa::kScalar);
    for (int64_t row = 0; row < problem.m; ++row) {
      for (int64_t col = 0; col < problem.n; ++col) {
        double sum = 0.0;
        double magnitude = 0.0;
        for (int64_t i = 0; i < k; ++i) {
          double w = problem.unscaled_weight(col, i);
          if (problem.is_int8()) w *= problem.scale[problem.scale_index(col, i)];
          const double product = w * problem.x[static_cast<size_t>(row * k + i)];
          sum += product;
          magnitude += std::fabs(product);
        }
        const double bias = problem.bias[static_cast<size_t>(col)];
        // One rounding per step of a lane, four in the tree, at most two for weight and scale, and
        // the bias.
        const double roundings = std::ceil(static_cast<double>(k) / 16.0) + 4.0 + 2.0 + 1.0;
        const double bound = 1.001 * roundings * kUnitRoundoff * (magnitude + std::fabs(bias));
        EXPECT_NEAR(y[static_cast<size_t>(row * problem.n + col)], sum + bias, bound)
            << problem.text() << " row " << row << " col " << col;
      }
    }
  }
}

// The other families are gemm_f32 of their widened weights, bit for bit; a scale per row multiplies
// the finished sum.
TEST_P(Accuracy, EqualsTheFloat32ProductOfTheWidenedWeights) {
  ThreadTeam team(1);
  GemmProblem problem(GetParam(), 5, 11, 130);
  problem.has_bias = false;
  std::vector<float> weights(static_cast<size_t>(problem.n * problem.k));
  for (int64_t row = 0; row < problem.n; ++row) {
    for (int64_t i = 0; i < problem.k; ++i) {
      float w = problem.unscaled_weight(row, i);
      if (problem.kind.group != 0) w = w * problem.scale[problem.scale_index(row, i)];
      weights[static_cast<size_t>(row * problem.k + i)] = w;
    }
  }
  std::vector<float> expected(static_cast<size_t>(problem.m * problem.n));
  gemm_f32({{problem.x.data(), problem.m, problem.k, problem.k},
            weights.data(),
            problem.k,
            nullptr,
            {expected.data(), problem.m, problem.n, problem.n}},
           team, Isa::kScalar);
  if (problem.is_int8() && problem.kind.group == 0) {
    for (size_t i = 0; i < expected.size(); ++i)
      expected[i] = expected[i] * problem.scale[i % static_cast<size_t>(problem.n)];
  }
  EXPECT_TRUE(same_bits(problem.run(team, active_isa()), expected));
}

TEST(GemmShapes, OperandsThatDoNotFitAreRefused) {
  ThreadTeam team(1);
  std::vector<float> f(64);
  std::vector<int8_t> q(64);
  const ConstMatrixF32 x{f.data(), 2, 8, 8};
  EXPECT_THROW(gemm_f32({x, f.data(), 8, nullptr, {f.data(), 3, 4, 4}}, team), formats::Error);
  EXPECT_THROW(gemm_f32({x, f.data(), 7, nullptr, {f.data(), 2, 4, 4}}, team), formats::Error);
  EXPECT_THROW(gemm_f32({x, f.data(), 8, nullptr, {f.data(), 2, 4, 3}}, team), formats::Error);
  EXPECT_THROW(gemm_f16({x, f.data(), formats::DType::kF32, 8, nullptr, {f.data(), 2, 4, 4}}, team),
               formats::Error);
  EXPECT_THROW(
      gemm_w8a16({x, q.data(), 8, nullptr, nullptr, 0, nullptr, {f.data(), 2, 4, 4}}, team),
      formats::Error);
  EXPECT_THROW(
      gemm_w8a16({x, q.data(), 8, f.data(), nullptr, -1, nullptr, {f.data(), 2, 4, 4}}, team),
      formats::Error);
}

}  // namespace
}  // namespace llmq::quant
