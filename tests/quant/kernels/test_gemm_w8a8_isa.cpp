// Every implementation of the int8 products against the scalar specification, bit for bit.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <vector>

#include "tests/quant/kernels/gemm_problem.h"
#include "tests/quant/kernels/guarded_copy.h"
#include "tests/quant/kernels/w8a8_problem.h"

namespace llmq::quant {
namespace {

// The first rows and columns of a product are the product of the first rows and columns.
::testing::AssertionResult is_corner(const std::vector<float>& y, int64_t m, int64_t n,
                                     const std::vector<float>& whole, int64_t whole_n) {
  for (int64_t i = 0; i < m * n; ++i) {
    const float expected = whole[static_cast<size_t>(i / n * whole_n + i % n)];
    if (!same_bits(y[static_cast<size_t>(i)], expected))
      return ::testing::AssertionFailure() << "row " << i / n << " column " << i % n;
  }
  return ::testing::AssertionSuccess();
}

class GemmW8A8Kernels : public ::testing::TestWithParam<Isa> {
 protected:
  // Every m of `rows` by every n of `cols` at depth k.
  static void expect_corners_agree(int64_t k, const std::vector<int64_t>& rows,
                                   const std::vector<int64_t>& cols) {
    ThreadTeam team(1);
    const W8A8Problem problem(rows.back(), cols.back(), k);
    const std::vector<float> expected = problem.run(team, Isa::kScalar);
    std::vector<float> y(expected.size());
    for (const int64_t n : cols) {
      const PackedInt8 packed = PackedInt8::pack(problem.weights.data(), n, k, k, team);
      for (const int64_t m : rows) {
        std::fill(y.begin(), y.end(), -7.0F);
        gemm_w8a8(problem.args(packed, y.data(), n, 0, m), team, GetParam());
        ASSERT_TRUE(is_corner(y, m, n, expected, problem.n))
            << "m=" << m << " n=" << n << " k=" << k;
      }
    }
  }

  static std::vector<int64_t> up_to(int64_t last) {
    std::vector<int64_t> all;
    for (int64_t i = 1; i <= last; ++i) all.push_back(i);
    return all;
  }
};

INSTANTIATE_TEST_SUITE_P(Isa, GemmW8A8Kernels, ::testing::ValuesIn(supported_isas()),
                         [](const auto& test) { return std::string(isa_name(test.param)); });

TEST_P(GemmW8A8Kernels, EveryNumberOfRowsAndColumnsAgrees) {
  for (const int64_t k : {1, 7, 64, 130}) expect_corners_agree(k, up_to(40), up_to(70));
}

TEST_P(GemmW8A8Kernels, EveryDepthAgrees) {
  for (int64_t k = 1; k <= 130; ++k)
    expect_corners_agree(k, {1, 2, 3, 4, 6, 7, 8, 9, 40}, {1, 15, 33, 70});
}

TEST_P(GemmW8A8Kernels, SeveralBlocksTasksAndChunksAgree) {
  ThreadTeam team(2);
  const std::vector<std::array<int64_t, 3>> shapes{{1, 1100, 513},  {8, 700, 1025},
                                                   {9, 700, 511},   {70, 530, 2100},
                                                   {530, 70, 1100}, {1030, 17, 70}};
  for (const auto& [m, n, k] : shapes) {
    const W8A8Problem problem(m, n, k);
    const PackedInt8 packed = problem.pack(team);
    const std::vector<float> expected = problem.run(packed, team, Isa::kScalar);
    EXPECT_TRUE(same_bits(problem.run(packed, team, GetParam()), expected)) << problem.text();
  }
}

TEST_P(GemmW8A8Kernels, ExtremeCodesNeitherSaturateNorLoseABit) {
  ThreadTeam team(1);
  constexpr int64_t kDepth = 1030;
  for (const int m : {1, 5, 14}) {
    for (const int x : {-128, -127, 127}) {
      for (const int w : {-128, -127, 127}) {
        W8A8Problem problem(m, 35, kDepth);
        std::fill(problem.x.begin(), problem.x.end(), static_cast<int8_t>(x));
        std::fill(problem.weights.begin(), problem.weights.end(), static_cast<int8_t>(w));
        problem.has_quant_bias = false;
        for (const int32_t sum : problem.run_sums(problem.pack(team), team, GetParam()))
          ASSERT_EQ(sum, x * w * kDepth) << "x=" << x << " w=" << w << " m=" << m;
      }
    }
  }
}

TEST_P(GemmW8A8Kernels, SumsAreExactUpToADepthOf131071AndWrapBeyond) {
  ThreadTeam team(1);
  for (const int64_t k : {65536, 131071, 131072}) {
    for (const int64_t m : {1, 10}) {
      W8A8Problem problem(m, 2, k);
      std::fill(problem.x.begin(), problem.x.end(), int8_t{-128});
      std::fill(problem.weights.begin(), problem.weights.end(), int8_t{-128});
      problem.has_quant_bias = false;
      const auto expected =
          static_cast<int32_t>(static_cast<uint32_t>(static_cast<uint64_t>(k) * 128U * 128U));
      EXPECT_EQ(expected > 0, k < 131072);
      for (const int32_t sum : problem.run_sums(problem.pack(team), team, GetParam()))
        EXPECT_EQ(sum, expected) << problem.text();
    }
  }
}

TEST_P(GemmW8A8Kernels, EachOptionalOperandAgrees) {
  ThreadTeam team(1);
  for (const int64_t m : {1, 4, 13}) {
    for (unsigned given = 0; given < 8; ++given) {
      W8A8Problem problem(m, 39, 75);
      problem.has_quant_bias = (given & 1U) != 0;
      problem.has_row_scale = (given & 2U) != 0;
      problem.has_bias = (given & 4U) != 0;
      const PackedInt8 packed = problem.pack(team);
      EXPECT_TRUE(
          same_bits(problem.run(packed, team, GetParam()), problem.run(packed, team, Isa::kScalar)))
          << problem.text() << " operands " << given;
      EXPECT_EQ(problem.run_sums(packed, team, GetParam()),
                problem.run_sums(packed, team, Isa::kScalar))
          << problem.text() << " operands " << given;
    }
  }
}

TEST_P(GemmW8A8Kernels, UnusualScalesAgree) {
  ThreadTeam team(1);
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  const std::vector<float> unusual{0.0F,  -0.0F,     1e-44F,     0x1p-126F,
                                   3e38F, kInfinity, -kInfinity, std::nanf("")};
  for (const int64_t m : {1, 16}) {
    W8A8Problem problem(m, 40, 20);
    for (size_t i = 0; i < problem.deq_scale.size(); ++i)
      problem.deq_scale[i] = unusual[i % unusual.size()];
    for (size_t i = 0; i < problem.row_scale.size(); ++i)
      problem.row_scale[i] = unusual[(i + 3) % unusual.size()];
    const std::vector<float> expected = problem.run(team, Isa::kScalar);
    EXPECT_TRUE(same_bits(problem.run(team, GetParam()), expected)) << problem.text();
  }
}

TEST_P(GemmW8A8Kernels, ThreadCountDoesNotChangeBits) {
  for (const int64_t m : {1, 9, 140}) {
    const W8A8Problem problem(m, 301, 600);
    ThreadTeam one(1);
    const std::vector<float> expected = problem.run(one, Isa::kScalar);
    for (int n_threads = 1; n_threads <= 4; ++n_threads) {
      ThreadTeam team(n_threads);
      EXPECT_TRUE(same_bits(problem.run(team, GetParam()), expected))
          << problem.text() << " threads " << n_threads;
    }
  }
}

TEST_P(GemmW8A8Kernels, DividingRowsOverCallsDoesNotChangeBits) {
  ThreadTeam team(2);
  const W8A8Problem problem(150, 29, 1300);
  const PackedInt8 packed = problem.pack(team);
  const std::vector<float> at_once = problem.run(packed, team, GetParam());
  for (const int64_t chunk : {1, 4, 7, 64}) {
    std::vector<float> y(at_once.size());
    for (int64_t row = 0; row < problem.m; row += chunk) {
      const int64_t end = std::min(problem.m, row + chunk);
      gemm_w8a8(problem.args(packed, y.data(), problem.n, row, end), team, GetParam());
    }
    EXPECT_TRUE(same_bits(y, at_once)) << "chunk " << chunk;
  }
}

TEST_P(GemmW8A8Kernels, SumsWithoutProductsAreTheQuantBias) {
  ThreadTeam team(2);
  for (const int64_t m : {1, 20}) {
    const W8A8Problem problem(m, 21, 0);
    const std::vector<int32_t> sums = problem.run_sums(problem.pack(team), team, GetParam());
    for (size_t i = 0; i < sums.size(); ++i) EXPECT_EQ(sums[i], problem.quant_bias[i % 21]);
  }
}

TEST_P(GemmW8A8Kernels, StridedOutputLeavesTheRestUntouched) {
  ThreadTeam team(2);
  for (const int64_t m : {3, 21}) {
    const W8A8Problem problem(m, 21, 50);
    const PackedInt8 packed = problem.pack(team);
    const std::vector<float> expected = problem.run(packed, team, Isa::kScalar);
    constexpr int64_t kStride = 25;
    std::vector<float> y(static_cast<size_t>((m + 1) * kStride), -7.0F);
    gemm_w8a8(problem.args(packed, y.data(), kStride, 0, m), team, GetParam());
    for (int64_t i = 0; i < static_cast<int64_t>(y.size()); ++i) {
      const bool inside = i / kStride < m && i % kStride < problem.n;
      const float want =
          inside ? expected[static_cast<size_t>(i / kStride * problem.n + i % kStride)] : -7.0F;
      EXPECT_TRUE(same_bits(y[static_cast<size_t>(i)], want)) << i;
    }
  }
}

TEST_P(GemmW8A8Kernels, NothingBeyondTheLastOperandIsReadOrWritten) {
  ThreadTeam team(1);
  for (const int64_t k : {1, 7, 21, 66}) {
    for (const int64_t n : {1, 9, 17}) {
      for (const int64_t m : {1, 4, 10}) {
        const W8A8Problem problem(m, n, k);
        const GuardedCopy weights(problem.weights.data(), problem.weights.size());
        const auto* codes = reinterpret_cast<const int8_t*>(weights.data());
        const PackedInt8 packed = PackedInt8::pack(codes, n, k, k, team);
        const std::vector<float> expected = problem.run(packed, team, Isa::kScalar);
        const GuardedCopy x(problem.x.data(), problem.x.size());
        const GuardedCopy bias(problem.bias.data(), problem.bias.size() * sizeof(float));
        const GuardedCopy scale(problem.deq_scale.data(), problem.deq_scale.size() * sizeof(float));
        const GuardedCopy quant_bias(problem.quant_bias.data(),
                                     problem.quant_bias.size() * sizeof(int32_t));
        GuardedCopy y(expected.data(), expected.size() * sizeof(float));
        auto* y_data = reinterpret_cast<float*>(y.mutable_data());
        std::fill_n(y_data, expected.size(), -7.0F);
        GemmW8A8Args args = problem.args(packed, y_data, n, 0, m);
        args.x = reinterpret_cast<const int8_t*>(x.data());
        args.bias = reinterpret_cast<const float*>(bias.data());
        args.deq_scale = reinterpret_cast<const float*>(scale.data());
        args.quant_bias = reinterpret_cast<const int32_t*>(quant_bias.data());
        gemm_w8a8(args, team, GetParam());
        EXPECT_TRUE(same_bits(std::vector<float>(y_data, y_data + expected.size()), expected))
            << problem.text();
      }
    }
  }
}

TEST(IsaGemmW8A8Table, EveryIsaRunsItsOwnImplementation) {
  for (const Isa isa : kAllIsas) EXPECT_EQ(gemm_w8a8_implementation(isa), isa) << isa_name(isa);
}

}  // namespace
}  // namespace llmq::quant
