// The kernels of gemm_w8a8 for AMX, over a model of the tile registers, against the scalar
// specification, bit for bit.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "quant/kernels/gemm_w8a8/driver.h"
#include "tests/quant/kernels/amx/emulated_w8a8.h"
#include "tests/quant/kernels/gemm_problem.h"
#include "tests/quant/kernels/guarded_copy.h"
#include "tests/quant/kernels/w8a8_problem.h"

namespace llmq::quant {
namespace {

// Row of pack_row's calls by a table that stands in for that of fewer rows.
std::atomic<int64_t> n_rows_elsewhere{0};
void (*pack_row_of_table)(const int8_t*, int64_t, int64_t, unsigned char*) = nullptr;

void count_and_pack(const int8_t* codes, int64_t count, int64_t padded, unsigned char* out) {
  ++n_rows_elsewhere;
  pack_row_of_table(codes, count, padded, out);
}

class TileKernels : public ::testing::TestWithParam<bool> {
 protected:
  void SetUp() override {
    if (GetParam() && !isa_supported(Isa::kAvx512Vnni)) GTEST_SKIP() << "needs AVX-512";
    tiles_ = GetParam() ? &kEmulatedW8A8Avx512 : &kEmulatedW8A8Plain;
    tiles_->clear_fault();
  }

  void TearDown() override {
    if (tiles_ == nullptr) return;
    EXPECT_EQ(fault(), "");
    EXPECT_FALSE(tiles_->is_configured()) << "tiles were not released";
    tiles_->clear_fault();
  }

  [[nodiscard]] std::string fault() const {
    const char* what = tiles_->first_fault();
    return what == nullptr ? "" : what;
  }

  [[nodiscard]] std::vector<float> run(const W8A8Problem& problem, const PackedInt8& packed,
                                       ThreadTeam& team, int64_t m) const {
    std::vector<float> y(static_cast<size_t>(m * packed.n()), -7.0F);
    gemm_w8a8_by(*tiles_->kernels, problem.args(packed, y.data(), packed.n(), 0, m), team);
    return y;
  }

  [[nodiscard]] std::vector<int32_t> run_sums(const W8A8Problem& problem, const PackedInt8& packed,
                                              ThreadTeam& team) const {
    std::vector<int32_t> sums(static_cast<size_t>(problem.m * problem.n), -7);
    gemm_w8a8_sums_by(*tiles_->kernels,
                      {.x = problem.x.data(),
                       .m = problem.m,
                       .x_stride = problem.k,
                       .weights = &packed,
                       .quant_bias = problem.has_quant_bias ? problem.quant_bias.data() : nullptr,
                       .sums = sums.data(),
                       .sums_stride = problem.n},
                      team);
    return sums;
  }

  // The product of the first m rows and n columns for every m and n at depth k.
  void expect_corners_agree(int64_t k, const std::vector<int64_t>& rows,
                            const std::vector<int64_t>& cols) {
    ThreadTeam team(1);
    for (const int64_t n : cols) {
      const W8A8Problem problem(rows.back(), n, k);
      const PackedInt8 packed = problem.pack(team);
      const std::vector<float> whole = problem.run(packed, team, Isa::kScalar);
      for (const int64_t m : rows) {
        const std::vector<float> expected(whole.begin(), whole.begin() + m * n);
        ASSERT_TRUE(same_bits(run(problem, packed, team, m), expected))
            << "m=" << m << " n=" << n << " k=" << k;
      }
    }
  }

  const EmulatedW8A8* tiles_ = nullptr;
};

INSTANTIATE_TEST_SUITE_P(IsaEpilogue, TileKernels, ::testing::Bool(), [](const auto& test) {
  return std::string(test.param ? "avx512" : "plain");
});

TEST_P(TileKernels, EveryNumberOfRowsAgrees) {
  std::vector<int64_t> rows;
  for (int64_t m = 1; m <= 70; ++m) rows.push_back(m);
  for (const int64_t k : {1, 64, 130}) expect_corners_agree(k, rows, {1, 16, 33});
}

TEST_P(TileKernels, EveryNumberOfColumnsAgrees) {
  std::vector<int64_t> cols;
  for (int64_t n = 1; n <= 70; ++n) cols.push_back(n);
  expect_corners_agree(67, {1, 16, 17, 32, 40}, cols);
}

TEST_P(TileKernels, EveryDepthAgrees) {
  for (int64_t k = 1; k <= 140; ++k) expect_corners_agree(k, {2, 19, 35}, {17, 33});
}

TEST_P(TileKernels, SeveralBlocksTasksAndChunksAgree) {
  ThreadTeam team(2);
  const std::vector<std::array<int64_t, 3>> shapes{
      {1, 70, 1025}, {17, 300, 2100}, {70, 530, 1090}, {300, 50, 1100}, {530, 40, 1024}};
  for (const auto& [m, n, k] : shapes) {
    const W8A8Problem problem(m, n, k);
    const PackedInt8 packed = problem.pack(team);
    EXPECT_TRUE(same_bits(run(problem, packed, team, m), problem.run(packed, team, Isa::kScalar)))
        << problem.text();
    EXPECT_EQ(run_sums(problem, packed, team), problem.run_sums(packed, team, Isa::kScalar))
        << problem.text();
  }
}

TEST_P(TileKernels, ExtremeCodesNeitherSaturateNorLoseABit) {
  ThreadTeam team(1);
  constexpr int64_t kDepth = 1100;
  for (const int m : {1, 18, 33}) {
    for (const int x : {-128, -127, 127}) {
      for (const int w : {-128, -127, 127}) {
        W8A8Problem problem(m, 35, kDepth);
        std::fill(problem.x.begin(), problem.x.end(), static_cast<int8_t>(x));
        std::fill(problem.weights.begin(), problem.weights.end(), static_cast<int8_t>(w));
        problem.has_quant_bias = false;
        for (const int32_t sum : run_sums(problem, problem.pack(team), team))
          ASSERT_EQ(sum, x * w * kDepth) << "x=" << x << " w=" << w << " m=" << m;
      }
    }
  }
}

TEST_P(TileKernels, SumsAreExactUpToADepthOf131071AndWrapBeyond) {
  ThreadTeam team(1);
  for (const int64_t k : {65536, 131071, 131072}) {
    W8A8Problem problem(3, 2, k);
    std::fill(problem.x.begin(), problem.x.end(), int8_t{-128});
    std::fill(problem.weights.begin(), problem.weights.end(), int8_t{-128});
    problem.has_quant_bias = false;
    const auto expected =
        static_cast<int32_t>(static_cast<uint32_t>(static_cast<uint64_t>(k) * 128U * 128U));
    for (const int32_t sum : run_sums(problem, problem.pack(team), team))
      EXPECT_EQ(sum, expected) << problem.text();
  }
}

TEST_P(TileKernels, EachOptionalOperandAgrees) {
  ThreadTeam team(1);
  for (const int64_t m : {4, 40}) {
    for (unsigned given = 0; given < 8; ++given) {
      W8A8Problem problem(m, 39, 75);
      problem.has_quant_bias = (given & 1U) != 0;
      problem.has_row_scale = (given & 2U) != 0;
      problem.has_bias = (given & 4U) != 0;
      const PackedInt8 packed = problem.pack(team);
      EXPECT_TRUE(same_bits(run(problem, packed, team, m), problem.run(packed, team, Isa::kScalar)))
          << problem.text() << " operands " << given;
      EXPECT_EQ(run_sums(problem, packed, team), problem.run_sums(packed, team, Isa::kScalar))
          << problem.text() << " operands " << given;
    }
  }
}

TEST_P(TileKernels, UnusualScalesAgree) {
  ThreadTeam team(1);
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  const std::vector<float> unusual{0.0F,  -0.0F,     1e-44F,     0x1p-126F,
                                   3e38F, kInfinity, -kInfinity, std::nanf("")};
  W8A8Problem problem(35, 40, 20);
  for (size_t i = 0; i < problem.deq_scale.size(); ++i)
    problem.deq_scale[i] = unusual[i % unusual.size()];
  for (size_t i = 0; i < problem.row_scale.size(); ++i)
    problem.row_scale[i] = unusual[(i + 3) % unusual.size()];
  const PackedInt8 packed = problem.pack(team);
  EXPECT_TRUE(
      same_bits(run(problem, packed, team, problem.m), problem.run(packed, team, Isa::kScalar)));
}

TEST_P(TileKernels, ThreadCountDoesNotChangeBits) {
  for (const int64_t m : {9, 140}) {
    const W8A8Problem problem(m, 101, 1200);
    ThreadTeam one(1);
    const PackedInt8 packed = problem.pack(one);
    const std::vector<float> expected = problem.run(packed, one, Isa::kScalar);
    for (int n_threads = 1; n_threads <= 4; ++n_threads) {
      ThreadTeam team(n_threads);
      EXPECT_TRUE(same_bits(run(problem, packed, team, m), expected))
          << problem.text() << " threads " << n_threads;
    }
  }
}

TEST_P(TileKernels, SumsWithoutProductsAreTheQuantBias) {
  ThreadTeam team(1);
  const W8A8Problem problem(20, 21, 0);
  const std::vector<int32_t> sums = run_sums(problem, problem.pack(team), team);
  for (size_t i = 0; i < sums.size(); ++i) EXPECT_EQ(sums[i], problem.quant_bias[i % 21]);
}

TEST_P(TileKernels, NothingBeyondTheLastOperandIsReadOrWritten) {
  ThreadTeam team(1);
  for (const int64_t k : {1, 21, 66}) {
    for (const int64_t n : {1, 9, 17, 33}) {
      for (const int64_t m : {1, 17, 36}) {
        const W8A8Problem problem(m, n, k);
        const PackedInt8 packed = problem.pack(team);
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
        gemm_w8a8_by(*tiles_->kernels, args, team);
        EXPECT_TRUE(same_bits(std::vector<float>(y_data, y_data + expected.size()), expected))
            << problem.text();
      }
    }
  }
}

TEST_P(TileKernels, ChunksOfFewRowsGoToTheTableForThem) {
  ThreadTeam team(1);
  Int8Kernels elsewhere = *tiles_->kernels;
  pack_row_of_table = elsewhere.pack_row;
  elsewhere.pack_row = count_and_pack;
  Int8Kernels kernels = *tiles_->kernels;
  kernels.min_rows = 16;
  kernels.fewer_rows = &elsewhere;
  const W8A8Problem problem(512 + 16, 18, 70);
  const PackedInt8 packed = problem.pack(team);
  const std::vector<float> whole = problem.run(packed, team, Isa::kScalar);
  for (const auto& [m, n_elsewhere] : std::vector<std::array<int64_t, 2>>{
           {1, 1}, {15, 15}, {16, 0}, {512, 0}, {512 + 15, 15}, {512 + 16, 0}}) {
    n_rows_elsewhere = 0;
    std::vector<float> y(static_cast<size_t>(m * problem.n));
    gemm_w8a8_by(kernels, problem.args(packed, y.data(), problem.n, 0, m), team);
    EXPECT_EQ(n_rows_elsewhere, n_elsewhere) << m;
    EXPECT_TRUE(same_bits(y, std::vector<float>(whole.begin(), whole.begin() + m * problem.n)));
  }
}

TEST_P(TileKernels, TilesThatWereNotConfiguredAreNoticed) {
  ThreadTeam team(1);
  const W8A8Problem problem(20, 18, 70);
  const PackedInt8 packed = problem.pack(team);
  std::vector<float> y(static_cast<size_t>(problem.m * problem.n));
  gemm_w8a8_by(*tiles_->unconfigured, problem.args(packed, y.data(), problem.n, 0, problem.m),
               team);
  EXPECT_EQ(fault(), "#UD: TILEZERO of a tile without a shape");
  tiles_->clear_fault();
}

TEST(IsaTileKernels, TheHardwaresTableLeavesUnderSixteenRowsToVnni) {
  EXPECT_EQ(kGemmW8A8Amx.isa, Isa::kAmx);
  EXPECT_EQ(kGemmW8A8Amx.min_rows, 16);
  EXPECT_EQ(kGemmW8A8Amx.fewer_rows, &kGemmW8A8Avx512Vnni);
}

}  // namespace
}  // namespace llmq::quant
