// The tile kernels of gemm_bf16, over a model of the tile registers, against the scalar
// specification, bit for bit.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "tests/quant/kernels/amx/emulated_bf16.h"
#include "tests/quant/kernels/bf16_problem.h"
#include "tests/quant/kernels/guarded_copy.h"

namespace llmq::quant {
namespace {

class Bf16Tiles : public ::testing::TestWithParam<bool> {
 protected:
  void SetUp() override {
    if (GetParam() && !isa_supported(Isa::kAvx512Vnni)) GTEST_SKIP() << "needs AVX-512";
    tiles_ = GetParam() ? &kEmulatedBf16Avx512 : &kEmulatedBf16Plain;
    tiles_->clear_fault();
  }

  void TearDown() override {
    if (tiles_ == nullptr) return;
    EXPECT_EQ(tiles_->first_fault(), nullptr) << tiles_->first_fault();
    EXPECT_FALSE(tiles_->is_configured()) << "tiles were not released";
    tiles_->clear_fault();
  }

  [[nodiscard]] std::vector<float> run(const Bf16Problem& problem, ThreadTeam& team) const {
    return problem.result(
        [&](const GemmBf16Args& args) { gemm_bf16_by_tiles(*tiles_->kernels, args, team); });
  }

  const EmulatedBf16* tiles_ = nullptr;
};

INSTANTIATE_TEST_SUITE_P(IsaEngine, Bf16Tiles, ::testing::Bool(), [](const auto& test) {
  return std::string(test.param ? "avx512" : "plain");
});

TEST_P(Bf16Tiles, EveryNumberOfRowsAgrees) {
  ThreadTeam team(1);
  const std::vector<std::array<int64_t, 2>> shapes{{1, 1}, {16, 32}, {17, 65}, {35, 50}};
  for (const auto& [n, k] : shapes) {
    const Bf16Problem problem(40, n, k);
    const std::vector<float> expected = problem.specified();
    for (int64_t m = 1; m <= 40; ++m) {
      std::vector<float> y(static_cast<size_t>(m * n), -7.0F);
      gemm_bf16_by_tiles(*tiles_->kernels, problem.args(y, m), team);
      ASSERT_TRUE(same_bits(y, std::vector<float>(expected.begin(), expected.begin() + m * n)))
          << "m=" << m << " n=" << n << " k=" << k;
    }
  }
}

TEST_P(Bf16Tiles, EveryDepthAndNumberOfColumnsAgrees) {
  ThreadTeam team(1);
  for (int64_t i = 1; i <= 70; ++i) {
    const Bf16Problem deep(3, 5, i);
    ASSERT_TRUE(same_bits(run(deep, team), deep.specified())) << deep.text();
    const Bf16Problem wide(18, i, 33);
    ASSERT_TRUE(same_bits(run(wide, team), wide.specified())) << wide.text();
  }
}

TEST_P(Bf16Tiles, SeveralBlocksTasksAndChunksAgree) {
  ThreadTeam team(2);
  const std::vector<std::array<int64_t, 3>> shapes{
      {17, 40, 1100}, {5, 530, 513}, {520, 20, 70}, {33, 50, 1024}};
  for (const auto& [m, n, k] : shapes) {
    for (const bool is_fp16 : {false, true}) {
      const Bf16Problem problem(m, n, k, is_fp16);
      EXPECT_TRUE(same_bits(run(problem, team), problem.specified())) << problem.text();
    }
  }
}

// Infinities, NaN, zeros, subnormals, products that overflow and products that underflow.
TEST_P(Bf16Tiles, UnusualValuesAgree) {
  ThreadTeam team(1);
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  const std::vector<float> unusual{0.0F,       -0.0F,    1e-44F,     0x1p-126F,        -0x1p-127F,
                                   0x1p-100F,  3.39e38F, -kInfinity, std::nanf(""),    kInfinity,
                                   0x1.8p-64F, -1e-30F,  3.4e38F,    0x1.fffffcp-127F, 1.0F};
  for (size_t shift = 0; shift < unusual.size(); ++shift) {
    Bf16Problem problem(20, 19, 40);
    problem.has_bias = shift % 2 == 0;
    for (int64_t i = 0; i < problem.n; ++i) {
      const auto at = static_cast<size_t>(i);
      problem.x[at * 40 + at] = unusual[(at + shift) % unusual.size()];
      problem.set_weight(i * 40 + (i * 7) % 40, unusual[(at * 3 + shift) % unusual.size()]);
    }
    EXPECT_TRUE(same_bits(run(problem, team), problem.specified())) << shift;
  }
  for (const float tiny : {0x1p-60F, 0x1.3p-64F}) {  // products and sums at the edge of subnormals
    Bf16Problem problem(17, 18, 70);
    for (float& x : problem.x) x *= tiny;
    for (int64_t i = 0; i < problem.n * problem.k; ++i)
      problem.set_weight(i, 0x1p-63F * problem.unscaled_weight(i / problem.k, i % problem.k));
    problem.has_bias = false;
    EXPECT_TRUE(same_bits(run(problem, team), problem.specified())) << tiny;
  }
}

TEST_P(Bf16Tiles, ThreadCountDoesNotChangeBits) {
  for (const int64_t m : {9, 70}) {
    const Bf16Problem problem(m, 101, 600);
    const std::vector<float> expected = problem.specified();
    for (int n_threads = 1; n_threads <= 4; ++n_threads) {
      ThreadTeam team(n_threads);
      EXPECT_TRUE(same_bits(run(problem, team), expected))
          << problem.text() << " threads " << n_threads;
    }
  }
}

TEST_P(Bf16Tiles, SumsWithoutProductsAreTheBias) {
  ThreadTeam team(1);
  const Bf16Problem problem(20, 21, 0);
  const std::vector<float> y = run(problem, team);
  for (size_t i = 0; i < y.size(); ++i) EXPECT_EQ(y[i], problem.bias[i % 21]);
}

TEST_P(Bf16Tiles, NothingBeyondTheLastOperandIsReadOrWritten) {
  ThreadTeam team(1);
  for (const int64_t k : {1, 21, 66}) {
    for (const int64_t n : {1, 9, 17, 33}) {
      for (const int64_t m : {1, 17, 36}) {
        const Bf16Problem problem(m, n, k);
        std::vector<float> expected = problem.specified();
        const GuardedCopy x(problem.x.data(), problem.x.size() * sizeof(float));
        const GuardedCopy bias(problem.bias.data(), problem.bias.size() * sizeof(float));
        const GuardedCopy weights(problem.storage.data() + problem.misalignment,
                                  problem.storage.size() - 1);
        GuardedCopy y(expected.data(), expected.size() * sizeof(float));
        auto* y_data = reinterpret_cast<float*>(y.mutable_data());
        std::fill_n(y_data, expected.size(), -7.0F);
        GemmBf16Args args = problem.args(expected, m);
        args.x.data = reinterpret_cast<const float*>(x.data());
        args.weights = weights.data();
        args.bias = reinterpret_cast<const float*>(bias.data());
        args.y.data = y_data;
        gemm_bf16_by_tiles(*tiles_->kernels, args, team);
        EXPECT_TRUE(same_bits(std::vector<float>(y_data, y_data + expected.size()), expected))
            << problem.text();
      }
    }
  }
}

}  // namespace
}  // namespace llmq::quant
