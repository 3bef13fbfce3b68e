// Products by packed sparse weights against gemm_w8a8's specification on the same codes, bit for
// bit, whatever the instruction set.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "quant/kernels/gemm_w8a8sc/gemm_w8a8sc.h"
#include "tests/quant/kernels/gemm_problem.h"
#include "tests/quant/kernels/guarded_copy.h"
#include "tests/quant/kernels/w8a8_problem.h"

namespace llmq::quant {
namespace {

// Weights as W8A8S makes them: `escaped` of 1000 codes are any, the others within ±7.
W8A8Problem sparse_problem(int64_t m, int64_t n, int64_t k, unsigned escaped = 20) {
  W8A8Problem problem(m, n, k);
  std::mt19937 random(static_cast<unsigned>(m * 31 + n * 17 + k));
  for (int8_t& code : problem.weights) {
    const auto bits = static_cast<unsigned>(random());
    if (bits % 1000 >= escaped) code = static_cast<int8_t>(static_cast<int>(bits / 1000 % 15) - 7);
  }
  return problem;
}

PackedW8A8sc pack(const W8A8Problem& problem, int64_t n, ThreadTeam& team) {
  return PackedW8A8sc::pack(problem.weights.data(), n, problem.k, problem.k, team);
}

GemmW8A8scArgs args_of(const W8A8Problem& problem, const PackedW8A8sc& packed, float* y,
                       int64_t begin, int64_t end) {
  return {.x = problem.x.data() + begin * problem.k,
          .m = end - begin,
          .x_stride = problem.k,
          .weights = &packed,
          .quant_bias = problem.has_quant_bias ? problem.quant_bias.data() : nullptr,
          .deq_scale = problem.deq_scale.data(),
          .row_scale = problem.has_row_scale ? problem.row_scale.data() + begin : nullptr,
          .bias = problem.has_bias ? problem.bias.data() : nullptr,
          .y = {y, end - begin, packed.n(), packed.n()}};
}

std::vector<float> run(const W8A8Problem& problem, const PackedW8A8sc& packed, ThreadTeam& team,
                       Isa isa) {
  std::vector<float> y(static_cast<size_t>(problem.m * packed.n()), -7.0F);
  gemm_w8a8sc(args_of(problem, packed, y.data(), 0, problem.m), team, isa);
  return y;
}

std::vector<int32_t> run_sums(const W8A8Problem& problem, const PackedW8A8sc& packed,
                              ThreadTeam& team, Isa isa) {
  std::vector<int32_t> sums(static_cast<size_t>(problem.m * problem.n), -7);
  gemm_w8a8sc_sums({.x = problem.x.data(),
                    .m = problem.m,
                    .x_stride = problem.k,
                    .weights = &packed,
                    .quant_bias = problem.has_quant_bias ? problem.quant_bias.data() : nullptr,
                    .sums = sums.data(),
                    .sums_stride = problem.n},
                   team, isa);
  return sums;
}

class GemmW8A8scKernels : public ::testing::TestWithParam<Isa> {
 protected:
  static void expect_same(const W8A8Problem& problem, ThreadTeam& team) {
    const std::vector<float> expected = problem.run(team, Isa::kScalar);
    const PackedW8A8sc packed = pack(problem, problem.n, team);
    ASSERT_TRUE(same_bits(run(problem, packed, team, GetParam()), expected)) << problem.text();
  }

  // The first rows and columns of a product are the product of the first rows and columns.
  static void expect_corners_agree(int64_t k, const std::vector<int64_t>& rows,
                                   const std::vector<int64_t>& cols) {
    ThreadTeam team(1);
    const W8A8Problem problem = sparse_problem(rows.back(), cols.back(), k, 60);
    const std::vector<float> expected = problem.run(team, Isa::kScalar);
    for (const int64_t n : cols) {
      const PackedW8A8sc packed = pack(problem, n, team);
      for (const int64_t m : rows) {
        std::vector<float> y(static_cast<size_t>(m * n), -7.0F);
        gemm_w8a8sc(args_of(problem, packed, y.data(), 0, m), team, GetParam());
        for (int64_t i = 0; i < m * n; ++i) {
          ASSERT_TRUE(same_bits(y[static_cast<size_t>(i)],
                                expected[static_cast<size_t>(i / n * problem.n + i % n)]))
              << "row " << i / n << " column " << i % n << " of m=" << m << " n=" << n
              << " k=" << k;
        }
      }
    }
  }

  static std::vector<int64_t> up_to(int64_t last) {
    std::vector<int64_t> all;
    for (int64_t i = 1; i <= last; ++i) all.push_back(i);
    return all;
  }
};

INSTANTIATE_TEST_SUITE_P(Isa, GemmW8A8scKernels, ::testing::ValuesIn(supported_isas()),
                         [](const auto& test) { return std::string(isa_name(test.param)); });

TEST_P(GemmW8A8scKernels, EveryNumberOfRowsAgrees) {
  for (const int64_t k : {1, 7, 64, 131}) expect_corners_agree(k, up_to(40), {1, 15, 16, 33, 70});
}

TEST_P(GemmW8A8scKernels, EveryNumberOfColumnsAgrees) {
  expect_corners_agree(75, {1, 2, 5, 8, 9}, up_to(70));
}

TEST_P(GemmW8A8scKernels, EveryDepthAgrees) {
  for (int64_t k = 1; k <= 130; ++k) expect_corners_agree(k, {1, 3, 8, 9, 20}, {1, 33});
}

TEST_P(GemmW8A8scKernels, SeveralBlocksTasksAndChunksAgree) {
  ThreadTeam team(2);
  const std::vector<std::array<int64_t, 3>> shapes{{1, 1100, 2113}, {8, 700, 1025},
                                                   {9, 700, 4100},  {70, 530, 2100},
                                                   {530, 70, 1100}, {1030, 17, 70}};
  for (const auto& [m, n, k] : shapes) expect_same(sparse_problem(m, n, k), team);
}

TEST_P(GemmW8A8scKernels, RandomShapesAndSharesOfEscapesAgree) {
  std::mt19937 random(3);
  ThreadTeam team(2);
  for (int round = 0; round < 150; ++round) {
    const auto m = static_cast<int64_t>(random() % 40 + 1);
    const auto n = static_cast<int64_t>(random() % 150 + 1);
    const auto k = static_cast<int64_t>(random() % 300 + 1);
    const std::array<unsigned, 6> shares{0, 1, 13, 100, 500, 1000};
    expect_same(sparse_problem(m, n, k, shares.at(random() % 6)), team);
  }
}

TEST_P(GemmW8A8scKernels, EveryCodeEverywhereGivesItsExactSum) {
  ThreadTeam team(1);
  constexpr int64_t kDepth = 130;
  for (const int64_t m : {1, 5, 14}) {
    for (int w = -128; w <= 127; ++w) {
      for (const int x : {-128, 127}) {
        W8A8Problem problem(m, 19, kDepth);
        std::fill(problem.x.begin(), problem.x.end(), static_cast<int8_t>(x));
        std::fill(problem.weights.begin(), problem.weights.end(), static_cast<int8_t>(w));
        problem.has_quant_bias = false;
        const PackedW8A8sc packed = pack(problem, problem.n, team);
        for (const int32_t sum : run_sums(problem, packed, team, GetParam()))
          ASSERT_EQ(sum, x * w * kDepth) << "x=" << x << " w=" << w << " m=" << m;
      }
    }
  }
}

TEST_P(GemmW8A8scKernels, SumsWrapAsThoseOfInt8WeightsDo) {
  ThreadTeam team(1);
  for (const int64_t m : {1, 10}) {
    W8A8Problem problem(m, 2, 131072);
    std::fill(problem.x.begin(), problem.x.end(), int8_t{-128});
    std::fill(problem.weights.begin(), problem.weights.end(), int8_t{-128});
    EXPECT_EQ(run_sums(problem, pack(problem, 2, team), team, GetParam()),
              problem.run_sums(problem.pack(team), team, Isa::kScalar));
  }
}

TEST_P(GemmW8A8scKernels, EachOptionalOperandAgrees) {
  ThreadTeam team(1);
  for (const int64_t m : {1, 4, 13}) {
    for (unsigned given = 0; given < 8; ++given) {
      W8A8Problem problem = sparse_problem(m, 39, 75);
      problem.has_quant_bias = (given & 1U) != 0;
      problem.has_row_scale = (given & 2U) != 0;
      problem.has_bias = (given & 4U) != 0;
      expect_same(problem, team);
      EXPECT_EQ(run_sums(problem, pack(problem, problem.n, team), team, GetParam()),
                problem.run_sums(problem.pack(team), team, Isa::kScalar))
          << problem.text() << " operands " << given;
    }
  }
}

TEST_P(GemmW8A8scKernels, ThreadCountDoesNotChangeBits) {
  for (const int64_t m : {1, 9, 140}) {
    const W8A8Problem problem = sparse_problem(m, 301, 600);
    for (int n_threads = 1; n_threads <= 4; ++n_threads) {
      ThreadTeam team(n_threads);
      expect_same(problem, team);
    }
  }
}

TEST_P(GemmW8A8scKernels, DividingRowsOverCallsDoesNotChangeBits) {
  ThreadTeam team(2);
  const W8A8Problem problem = sparse_problem(150, 29, 1300);
  const PackedW8A8sc packed = pack(problem, problem.n, team);
  const std::vector<float> at_once = run(problem, packed, team, GetParam());
  for (const int64_t chunk : {1, 4, 7, 64}) {
    std::vector<float> y(at_once.size());
    for (int64_t row = 0; row < problem.m; row += chunk) {
      gemm_w8a8sc(args_of(problem, packed, y.data() + row * problem.n, row,
                          std::min(problem.m, row + chunk)),
                  team, GetParam());
    }
    EXPECT_TRUE(same_bits(y, at_once)) << "chunk " << chunk;
  }
}

TEST_P(GemmW8A8scKernels, SumsWithoutProductsAreTheQuantBias) {
  ThreadTeam team(2);
  for (const int64_t m : {1, 20}) {
    const W8A8Problem problem(m, 21, 0);
    const std::vector<int32_t> sums = run_sums(problem, pack(problem, 21, team), team, GetParam());
    for (size_t i = 0; i < sums.size(); ++i) EXPECT_EQ(sums[i], problem.quant_bias[i % 21]);
  }
}

TEST_P(GemmW8A8scKernels, NothingBeyondTheLastOperandIsReadOrWritten) {
  ThreadTeam team(1);
  for (const int64_t k : {1, 21, 66}) {
    for (const int64_t n : {1, 9, 17}) {
      for (const int64_t m : {1, 4, 10}) {
        const W8A8Problem problem = sparse_problem(m, n, k, 300);
        const std::vector<float> expected = problem.run(team, Isa::kScalar);
        const GuardedCopy weights(problem.weights.data(), problem.weights.size());
        const auto* codes = reinterpret_cast<const int8_t*>(weights.data());
        const PackedW8A8sc packed = PackedW8A8sc::pack(codes, n, k, k, team);
        const GuardedCopy x(problem.x.data(), problem.x.size());
        GuardedCopy y(expected.data(), expected.size() * sizeof(float));
        auto* y_data = reinterpret_cast<float*>(y.mutable_data());
        std::fill_n(y_data, expected.size(), -7.0F);
        GemmW8A8scArgs args = args_of(problem, packed, y_data, 0, m);
        args.x = reinterpret_cast<const int8_t*>(x.data());
        gemm_w8a8sc(args, team, GetParam());
        EXPECT_TRUE(same_bits(std::vector<float>(y_data, y_data + expected.size()), expected))
            << problem.text();
      }
    }
  }
}

TEST(IsaGemmW8A8scTable, EveryIsaRunsItsOwnImplementation) {
  const Isa wide = has_avx512_vbmi2() ? Isa::kAvx512Vnni : Isa::kAvx2;
  struct Row {
    Isa isa;
    Isa multiplies;
    Isa expands;
  };
  const std::array<Row, 5> rows{{{Isa::kScalar, Isa::kScalar, Isa::kScalar},
                                 {Isa::kAvx2, Isa::kAvx2, Isa::kAvx2},
                                 {Isa::kAvxVnni, Isa::kAvxVnni, Isa::kAvx2},
                                 {Isa::kAvx512Vnni, Isa::kAvx512Vnni, wide},
                                 {Isa::kAmx, Isa::kAmx, wide}}};
  for (const Row& row : rows) {
    const W8A8scImplementation runs = gemm_w8a8sc_implementation(row.isa);
    EXPECT_EQ(runs.multiplies, row.multiplies) << isa_name(row.isa);
    EXPECT_EQ(runs.expands, row.expands) << isa_name(row.isa);
  }
}

}  // namespace
}  // namespace llmq::quant
