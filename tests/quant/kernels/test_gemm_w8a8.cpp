// The scalar specification against int64 and float64 arithmetic, and the packed weights.
#include "quant/kernels/gemm_w8a8/gemm_w8a8.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>
#include <utility>
#include <vector>

#include "formats/error.h"
#include "tests/quant/kernels/gemm_problem.h"
#include "tests/quant/kernels/w8a8_problem.h"

namespace llmq::quant {
namespace {

// Σ x · w + quant_bias, reduced to int32 at the end.
int32_t exact_sum(const W8A8Problem& problem, int64_t row, int64_t col) {
  int64_t sum = problem.has_quant_bias ? problem.quant_bias[static_cast<size_t>(col)] : 0;
  for (int64_t i = 0; i < problem.k; ++i) {
    sum += int64_t{problem.x[static_cast<size_t>(row * problem.k + i)]} *
           int64_t{problem.weights[static_cast<size_t>(col * problem.k + i)]};
  }
  return static_cast<int32_t>(static_cast<uint32_t>(static_cast<uint64_t>(sum)));
}

// In float64, rounded to float32 after each operation. A float64 operation on float32 operands has
// enough bits that rounding it again gives the correctly rounded float32 result.
float exact_output(const W8A8Problem& problem, int64_t row, int64_t col, int32_t sum) {
  const auto j = static_cast<size_t>(col);
  auto y = static_cast<float>(static_cast<double>(sum));
  y = static_cast<float>(static_cast<double>(y) * static_cast<double>(problem.deq_scale[j]));
  if (problem.has_row_scale) {
    const float scale = problem.row_scale[static_cast<size_t>(row)];
    y = static_cast<float>(static_cast<double>(y) * static_cast<double>(scale));
  }
  if (problem.has_bias)
    y = static_cast<float>(static_cast<double>(y) + static_cast<double>(problem.bias[j]));
  return y;
}

TEST(GemmW8A8, ScalarIsTheFormulaWithAndWithoutEachOperand) {
  ThreadTeam team(2);
  for (const int64_t k : {1, 4, 31, 200}) {
    for (unsigned given = 0; given < 8; ++given) {
      W8A8Problem problem(9, 37, k);
      problem.has_quant_bias = (given & 1U) != 0;
      problem.has_row_scale = (given & 2U) != 0;
      problem.has_bias = (given & 4U) != 0;
      const PackedInt8 packed = problem.pack(team);
      const std::vector<float> y = problem.run(packed, team, Isa::kScalar);
      const std::vector<int32_t> sums = problem.run_sums(packed, team, Isa::kScalar);
      for (int64_t i = 0; i < problem.m * problem.n; ++i) {
        const int64_t row = i / problem.n;
        const int64_t col = i % problem.n;
        const int32_t sum = exact_sum(problem, row, col);
        ASSERT_EQ(sums[static_cast<size_t>(i)], sum) << problem.text() << " at " << i;
        ASSERT_TRUE(same_bits(y[static_cast<size_t>(i)], exact_output(problem, row, col, sum)))
            << problem.text() << " operands " << given << " at " << i;
      }
    }
  }
}

TEST(GemmW8A8, ShapesThatDoNotFitAreRefused) {
  ThreadTeam team(1);
  const W8A8Problem problem(3, 4, 5);
  const PackedInt8 packed = problem.pack(team);
  std::vector<float> y(12);
  const GemmW8A8Args good = problem.args(packed, y.data(), 4, 0, 3);
  EXPECT_NO_THROW(gemm_w8a8(good, team));
  for (int damage = 0; damage < 6; ++damage) {
    GemmW8A8Args args = good;
    if (damage == 0) args.weights = nullptr;
    if (damage == 1) args.m = -1;
    if (damage == 2) args.x_stride = 4;
    if (damage == 3) args.y.row_stride = 3;
    if (damage == 4) args.y.n_cols = 5;
    if (damage == 5) args.deq_scale = nullptr;
    EXPECT_THROW(gemm_w8a8(args, team), formats::Error) << damage;
  }
}

TEST(GemmW8A8, NoRowsAndNoColumnsAreNothingToDo) {
  ThreadTeam team(2);
  for (const Isa isa : supported_isas()) {
    EXPECT_THAT(W8A8Problem(0, 5, 7).run(team, isa), testing::IsEmpty());
    EXPECT_THAT(W8A8Problem(3, 0, 7).run(team, isa), testing::IsEmpty());
  }
}

TEST(PackedInt8, EveryCodeIsReadBackAndRowsAreSummed) {
  ThreadTeam team(2);
  for (const int64_t n : {1, 15, 16, 17, 50}) {
    for (const int64_t k : {1, 3, 4, 63, 64, 65, 130}) {
      const W8A8Problem source(1, n, k + 3);  // rows with a gap between them
      const int8_t* codes = source.weights.data() + 1;
      const PackedInt8 packed = PackedInt8::pack(codes, n, k, k + 3, team);
      ASSERT_EQ(packed.n(), n);
      ASSERT_EQ(packed.k(), k);
      for (int64_t row = 0; row < n; ++row) {
        const int8_t* from = codes + row * (k + 3);
        for (int64_t i = 0; i < k; ++i) ASSERT_EQ(packed.at(row, i), from[i]) << row << " " << i;
        ASSERT_EQ(packed.row_sums()[row], std::accumulate(from, from + k, 0)) << row;
      }
    }
  }
}

TEST(PackedInt8, LinesHoldFourCodesOfSixteenRowsAndPaddingIsZero) {
  ThreadTeam team(1);
  std::vector<int8_t> ones(17 * 70, 1);
  const PackedInt8 packed = PackedInt8::pack(ones.data(), 17, 70, 70, team);
  ASSERT_EQ(packed.n_panels(), 2);
  ASSERT_EQ(packed.padded_k(), 128);
  ASSERT_EQ(packed.panel_size_bytes(), 128 * 16);
  EXPECT_EQ(packed.size_bytes(), 2U * 128 * 16 + 32 * sizeof(int32_t));
  EXPECT_EQ(reinterpret_cast<uintptr_t>(packed.panels()) % 64, 0U);
  for (int64_t byte = 0; byte < 2 * packed.panel_size_bytes(); ++byte) {
    const int64_t row = byte / packed.panel_size_bytes() * 16 + byte / 4 % 16;
    const int64_t column = byte % packed.panel_size_bytes() / 64 * 4 + byte % 4;
    ASSERT_EQ(packed.panels()[byte], row < 17 && column < 70 ? 1 : 0) << byte;
  }
  for (int64_t row = 17; row < 32; ++row) EXPECT_EQ(packed.row_sums()[row], 0);
}

TEST(PackedInt8, MovingLeavesAnEmptyMatrix) {
  ThreadTeam team(1);
  const W8A8Problem problem(2, 20, 30);
  PackedInt8 first = problem.pack(team);
  const std::vector<float> expected = problem.run(first, team, Isa::kScalar);
  PackedInt8 second = std::move(first);
  PackedInt8 third;
  third = std::move(second);
  for (const PackedInt8* empty : {&first, &second}) {  // NOLINT(bugprone-use-after-move)
    EXPECT_EQ(empty->n(), 0);
    EXPECT_EQ(empty->k(), 0);
    EXPECT_EQ(empty->size_bytes(), 0U);
  }
  EXPECT_TRUE(same_bits(problem.run(third, team, Isa::kScalar), expected));
}

TEST(PackedInt8, ExtentsThatAreNoMatrixAreRefused) {
  ThreadTeam team(1);
  const std::vector<int8_t> codes(64);
  constexpr int64_t kHuge = int64_t{1} << 62;
  EXPECT_THROW(PackedInt8::pack(codes.data(), -1, 4, 4, team), formats::Error);
  EXPECT_THROW(PackedInt8::pack(codes.data(), 4, -1, 4, team), formats::Error);
  EXPECT_THROW(PackedInt8::pack(codes.data(), 4, 5, 4, team), formats::Error);
  EXPECT_THROW(PackedInt8::pack(codes.data(), kHuge, 4, 4, team), formats::Error);
  EXPECT_THROW(PackedInt8::pack(codes.data(), 1, kHuge, kHuge, team), formats::Error);
}

}  // namespace
}  // namespace llmq::quant
