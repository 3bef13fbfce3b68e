#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <limits>
#include <utility>
#include <vector>

#include "tests/quant/kernels/gemm_problem.h"
#include "tests/quant/kernels/guarded_copy.h"

namespace llmq::quant {
namespace {

class Gemm : public ::testing::TestWithParam<GemmKind> {};

INSTANTIATE_TEST_SUITE_P(Isa, Gemm, ::testing::ValuesIn(gemm_kinds()),
                         [](const auto& kind) { return kind.param.name; });

TEST_P(Gemm, EveryTailGivesTheBitsOfTheScalarSpecification) {
  ThreadTeam team(2);
  const std::vector<std::pair<int64_t, int64_t>> shapes{{1, 1},     {1, 16},  {3, 17},  {6, 15},
                                                        {7, 31},    {8, 64},  {13, 33}, {50, 100},
                                                        {19, 1057}, {97, 40}, {5, 2100}};
  for (const auto& [n, k] : shapes) {
    for (const int64_t m : {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 40}) {
      const GemmProblem problem(GetParam(), m, n, k, 1 + (n + m) % 3);
      const std::vector<float> expected = problem.run(team, Isa::kScalar);
      for (const Isa isa : supported_isas())
        EXPECT_TRUE(same_bits(problem.run(team, isa), expected))
            << problem.text() << " " << isa_name(isa);
    }
  }
}

TEST_P(Gemm, LongRowsGiveTheBitsOfTheScalarSpecification) {
  ThreadTeam team(2);
  for (const int64_t k : {6144, 6147, 6400}) {
    for (const int64_t m : {1, 3}) {
      const GemmProblem problem(GetParam(), m, 23, k);
      const std::vector<float> expected = problem.run(team, Isa::kScalar);
      for (const Isa isa : supported_isas())
        EXPECT_TRUE(same_bits(problem.run(team, isa), expected))
            << problem.text() << " " << isa_name(isa);
    }
  }
}

TEST_P(Gemm, ThreadCountDoesNotChangeBits) {
  for (const int64_t m : {1, 9, 140}) {
    const GemmProblem problem(GetParam(), m, 301, 83);
    ThreadTeam one(1);
    const std::vector<float> expected = problem.run(one, Isa::kScalar);
    for (int n_threads = 1; n_threads <= 4; ++n_threads) {
      ThreadTeam team(n_threads);
      for (const Isa isa : supported_isas())
        EXPECT_TRUE(same_bits(problem.run(team, isa), expected))
            << problem.text() << " " << isa_name(isa) << " threads " << n_threads;
    }
  }
}

TEST_P(Gemm, DividingRowsOverCallsDoesNotChangeBits) {
  const GemmProblem problem(GetParam(), 150, 29, 1300);
  ThreadTeam team(2);
  for (const Isa isa : supported_isas()) {
    if (isa == Isa::kScalar) continue;
    const std::vector<float> at_once = problem.run(team, isa);
    for (const int64_t chunk : {1, 4, 7, 64}) {
      std::vector<float> y(at_once.size());
      for (int64_t row = 0; row < problem.m; row += chunk)
        problem.run(team, isa, {y.data(), problem.m, problem.n, problem.n}, row,
                    std::min(problem.m, row + chunk));
      EXPECT_TRUE(same_bits(y, at_once)) << isa_name(isa) << " chunk " << chunk;
    }
  }
}

TEST_P(Gemm, SumsWithoutElementsAreTheBias) {
  ThreadTeam team(2);
  for (const int64_t m : {1, 6}) {
    const GemmProblem problem(GetParam(), m, 5, 0);
    for (const Isa isa : supported_isas()) {
      const std::vector<float> y = problem.run(team, isa);
      for (size_t i = 0; i < y.size(); ++i) EXPECT_EQ(y[i], problem.bias[i % 5]) << isa_name(isa);
    }
  }
}

TEST_P(Gemm, StridedOutputLeavesTheRestUntouched) {
  ThreadTeam team(2);
  for (const int64_t m : {3, 21}) {
    GemmProblem problem(GetParam(), m, 10, 50);
    problem.has_bias = false;
    for (const Isa isa : supported_isas()) {
      constexpr int64_t kStride = 13;
      std::vector<float> y(static_cast<size_t>((m + 1) * kStride), -7.0F);
      problem.run(team, isa, {y.data(), m, problem.n, kStride}, 0, m);
      const std::vector<float> expected = problem.run(team, Isa::kScalar);
      for (int64_t i = 0; i < static_cast<int64_t>(y.size()); ++i) {
        const bool inside = i / kStride < m && i % kStride < problem.n;
        const float want =
            inside ? expected[static_cast<size_t>(i / kStride * problem.n + i % kStride)] : -7.0F;
        EXPECT_TRUE(same_bits(y[static_cast<size_t>(i)], want)) << isa_name(isa) << " " << i;
      }
    }
  }
}

TEST_P(Gemm, NonFiniteActivationsStayInTheirRow) {
  ThreadTeam team(1);
  for (const int64_t m : {3, 12}) {
    GemmProblem problem(GetParam(), m, 7, 45);
    problem.x[45 + 44] = std::numeric_limits<float>::quiet_NaN();  // in the tail of row 1
    problem.x[2 * 45 + 3] = std::numeric_limits<float>::infinity();
    const std::vector<float> expected = problem.run(team, Isa::kScalar);
    for (int64_t col = 0; col < 7; ++col) {
      EXPECT_TRUE(std::isfinite(expected[static_cast<size_t>(col)]));
      EXPECT_TRUE(std::isnan(expected[static_cast<size_t>(7 + col)]));
      EXPECT_FALSE(std::isfinite(expected[static_cast<size_t>(14 + col)]));
    }
    for (const Isa isa : supported_isas())
      EXPECT_TRUE(same_bits(problem.run(team, isa), expected)) << isa_name(isa);
  }
}

TEST(IsaGemmMemory, NothingBeyondTheLastWeightOrActivationIsRead) {
  ThreadTeam team(1);
  for (const GemmKind& kind : gemm_kinds()) {
    for (const int64_t k : {1, 7, 9, 21, 40}) {
      for (const int64_t m : {1, 5}) {
        const GemmProblem problem(kind, m, 9, k, 0);
        const std::vector<float> expected = problem.run(team, Isa::kScalar);
        const GuardedCopy weights(problem.storage.data(), problem.storage.size());
        const GuardedCopy x(problem.x.data(), problem.x.size() * sizeof(float));
        const ConstMatrixF32 x_view{reinterpret_cast<const float*>(x.data()), m, k, k};
        for (const Isa isa : supported_isas()) {
          std::vector<float> y(expected.size());
          const MatrixF32 y_view{y.data(), m, 9, 9};
          if (kind.dtype == formats::DType::kF32) {
            gemm_f32({x_view, weights.data(), k, problem.bias.data(), y_view}, team, isa);
          } else if (kind.is_int4) {
            const PackedInt4 packed = PackedInt4::pack(
                {reinterpret_cast<const std::byte*>(weights.data()), problem.storage.size()},
                formats::Int4Layout::kOnePerByte, 9, k, team);
            gemm_w4a16({x_view, &packed, problem.scale.data(),
                        kind.has_offset ? problem.offset.data() : nullptr, kind.group,
                        problem.bias.data(), y_view},
                       team, isa);
          } else if (problem.is_int8()) {
            gemm_w8a16({x_view, reinterpret_cast<const int8_t*>(weights.data()), k,
                        problem.scale.data(), kind.has_offset ? problem.offset.data() : nullptr,
                        kind.group, problem.bias.data(), y_view},
                       team, isa);
          } else {
            gemm_f16({x_view, weights.data(), kind.dtype, k, problem.bias.data(), y_view}, team,
                     isa);
          }
          EXPECT_TRUE(same_bits(y, expected)) << problem.text() << " " << isa_name(isa);
        }
      }
    }
  }
}

// Products that round to −0 leave −0 in every lane; lanes beyond the tail must not add a +0.
TEST(IsaGemmZeros, MissingTailElementsContributeNothing) {
  ThreadTeam team(1);
  for (const int64_t m : {1, 6}) {
    GemmProblem problem(gemm_kinds()[0], m, 8, 37);
    problem.has_bias = false;
    std::fill(problem.x.begin(), problem.x.end(), 1e-30F);
    for (int64_t i = 0; i < problem.n * problem.k; ++i) problem.set_weight(i, -1e-30F);
    for (const Isa isa : supported_isas()) {
      for (const float v : problem.run(team, isa))
        EXPECT_TRUE(v == 0.0F && std::signbit(v)) << isa_name(isa);
    }
  }
}

TEST(IsaGemmTable, EveryIsaRunsItsOwnOrTheNextNarrowerImplementation) {
  const std::array<std::pair<Isa, Isa>, 5> served{{{Isa::kScalar, Isa::kScalar},
                                                   {Isa::kAvx2, Isa::kAvx2},
                                                   {Isa::kAvxVnni, Isa::kAvx2},
                                                   {Isa::kAvx512Vnni, Isa::kAvx512Vnni},
                                                   {Isa::kAmx, Isa::kAvx512Vnni}}};
  for (const auto& [isa, implementation] : served) {
    EXPECT_EQ(gemm_f32_implementation(isa), implementation);
    EXPECT_EQ(gemm_f16_implementation(isa), implementation);
    EXPECT_EQ(gemm_w8a16_implementation(isa), implementation);
    EXPECT_EQ(gemm_w4a16_implementation(isa), implementation);
  }
}

}  // namespace
}  // namespace llmq::quant
