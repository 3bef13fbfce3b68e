#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <random>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "formats/error.h"
#include "quant/int4_packing.h"
#include "quant/kernels/gemm_w4a16/packed_int4.h"
#include "quant/kernels/gemm_w8a16/gemm_w8a16.h"
#include "tests/quant/kernels/gemm_problem.h"

namespace llmq::quant {
namespace {

using formats::Int4Layout;

std::vector<int8_t> random_codes(int64_t n, int64_t k) {
  std::mt19937 random(static_cast<unsigned>(n * 31 + k));
  std::uniform_int_distribution<int> code(-8, 7);
  std::vector<int8_t> codes(static_cast<size_t>(n * k));
  for (int8_t& c : codes) c = static_cast<int8_t>(code(random));
  return codes;
}

template <typename T>
std::span<const std::byte> bytes_of(const std::vector<T>& values) {
  return std::as_bytes(std::span(values));
}

void expect_codes(const PackedInt4& packed, const std::vector<int8_t>& codes) {
  for (int64_t row = 0; row < packed.n(); ++row) {
    for (int64_t i = 0; i < packed.k(); ++i)
      ASSERT_EQ(packed.at(row, i), codes[static_cast<size_t>(row * packed.k() + i)])
          << row << " " << i;
  }
}

TEST(PackedInt4, HoldsTheCodesOfEveryStoredLayout) {
  ThreadTeam team(2);
  for (const auto& [n, k] :
       std::vector<std::pair<int64_t, int64_t>>{{1, 1}, {8, 128}, {9, 130}, {22, 96}, {7, 257}}) {
    const std::vector<int8_t> codes = random_codes(n, k);
    expect_codes(PackedInt4::pack(bytes_of(codes), Int4Layout::kOnePerByte, n, k, team), codes);
    if (k % 2 == 0) {
      const std::vector<uint8_t> pairs = pack_int4_per_channel(codes, n, k);
      expect_codes(PackedInt4::pack(bytes_of(pairs), Int4Layout::kColumnPairs, n, k, team), codes);
    }
    if (n % 2 == 0) {
      const std::vector<uint8_t> pairs = pack_int4_per_group(codes, n, k);
      expect_codes(PackedInt4::pack(bytes_of(pairs), Int4Layout::kRowPairs, n, k, team), codes);
    }
  }
}

TEST(PackedInt4, TakesHalfAByteACode) {
  ThreadTeam team(1);
  const std::vector<int8_t> codes = random_codes(64, 512);
  const PackedInt4 packed =
      PackedInt4::pack(bytes_of(codes), Int4Layout::kOnePerByte, 64, 512, team);
  EXPECT_EQ(packed.size_bytes(), codes.size() / 2);
  EXPECT_EQ(PackedInt4().size_bytes(), 0U);
}

TEST(PackedInt4, MovingLeavesAnEmptyMatrix) {
  ThreadTeam team(1);
  const std::vector<int8_t> codes = random_codes(3, 5);
  PackedInt4 first = PackedInt4::pack(bytes_of(codes), Int4Layout::kOnePerByte, 3, 5, team);
  PackedInt4 second = std::move(first);
  expect_codes(second, codes);
  PackedInt4 third;
  third = std::move(second);
  expect_codes(third, codes);
  EXPECT_EQ(second.n(), 0);  // NOLINT(bugprone-use-after-move): the state is promised
  EXPECT_EQ(second.panels(), nullptr);
}

TEST(PackedInt4, NamesTheFirstCodeBeyondFourBits) {
  for (const int n_threads : {1, 3}) {
    ThreadTeam team(n_threads);
    std::vector<int8_t> codes(40 * 10, 7);
    codes[123] = -9;
    codes[399] = 8;
    try {
      PackedInt4::pack(bytes_of(codes), Int4Layout::kOnePerByte, 40, 10, team);
      ADD_FAILURE() << "not refused";
    } catch (const formats::Error& error) {
      EXPECT_EQ(error.code(), formats::ErrorCode::kBadInput);
      EXPECT_THAT(error.what(), ::testing::HasSubstr("-9 at element 123"));
    }
  }
}

TEST(PackedInt4, ExtentsThatDoNotFitAreRefused) {
  ThreadTeam team(1);
  const std::vector<int8_t> codes(24);
  const auto refused = [&](Int4Layout layout, int64_t n, int64_t k) {
    try {
      PackedInt4::pack(bytes_of(codes), layout, n, k, team);
    } catch (const formats::Error& error) {
      return error.code() == formats::ErrorCode::kInternal;
    }
    return false;
  };
  EXPECT_FALSE(refused(Int4Layout::kOnePerByte, 4, 6));
  EXPECT_TRUE(refused(Int4Layout::kOnePerByte, 4, 7));
  EXPECT_TRUE(refused(Int4Layout::kOnePerByte, -4, -6));
  EXPECT_FALSE(refused(Int4Layout::kColumnPairs, 8, 6));
  EXPECT_TRUE(refused(Int4Layout::kColumnPairs, 16, 3));
  EXPECT_FALSE(refused(Int4Layout::kRowPairs, 8, 6));
  EXPECT_TRUE(refused(Int4Layout::kRowPairs, 3, 16));
  EXPECT_TRUE(refused(Int4Layout::kOnePerByte, int64_t{1} << 32, int64_t{1} << 32));
}

// Models of int4 ran as int8 ones: no result may change.
TEST(IsaGemmW4A16, GivesTheBitsOfGemmW8A16OnTheSameCodes) {
  for (const GemmKind& kind : gemm_kinds()) {
    if (!kind.is_int4) continue;
    GemmKind as_bytes = kind;
    as_bytes.is_int4 = false;
    for (const auto& [n, k] :
         std::vector<std::pair<int64_t, int64_t>>{{21, 300}, {8, 512}, {35, 1447}}) {
      for (const int64_t m : {1, 2, 3, 4, 5, 6, 7, 8, 9, 130}) {
        const GemmProblem problem(kind, m, n, k);
        GemmProblem same = problem;
        same.kind = as_bytes;
        for (int n_threads = 1; n_threads <= 4; n_threads += 3) {
          ThreadTeam team(n_threads);
          for (const Isa isa : supported_isas()) {
            if (isa == Isa::kScalar && m > 9) continue;
            EXPECT_TRUE(same_bits(problem.run(team, isa), same.run(team, isa)))
                << problem.text() << " " << isa_name(isa);
          }
        }
      }
    }
  }
}

TEST(GemmW4A16Shapes, OperandsThatDoNotFitAreRefused) {
  ThreadTeam team(1);
  std::vector<float> f(64);
  const std::vector<int8_t> codes(32);
  const PackedInt4 packed = PackedInt4::pack(bytes_of(codes), Int4Layout::kOnePerByte, 4, 8, team);
  const ConstMatrixF32 x{f.data(), 2, 8, 8};
  const MatrixF32 y{f.data(), 2, 4, 4};
  EXPECT_THROW(gemm_w4a16({x, nullptr, f.data(), nullptr, 0, nullptr, y}, team), formats::Error);
  EXPECT_THROW(gemm_w4a16({x, &packed, nullptr, nullptr, 0, nullptr, y}, team), formats::Error);
  EXPECT_THROW(gemm_w4a16({x, &packed, f.data(), nullptr, -1, nullptr, y}, team), formats::Error);
  EXPECT_THROW(gemm_w4a16({x, &packed, f.data(), nullptr, 0, nullptr, {f.data(), 2, 3, 3}}, team),
               formats::Error);
  EXPECT_THROW(gemm_w4a16({{f.data(), 2, 7, 7}, &packed, f.data(), nullptr, 0, nullptr, y}, team),
               formats::Error);
}

}  // namespace
}  // namespace llmq::quant
