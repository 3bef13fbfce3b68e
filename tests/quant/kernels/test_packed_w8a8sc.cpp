#include "quant/kernels/gemm_w8a8sc/packed_w8a8sc.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <numeric>
#include <random>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "formats/error.h"

namespace llmq::quant {
namespace {

// A matrix of which one code in `every` is any.
std::vector<int8_t> random_codes(int64_t n, int64_t k, unsigned every) {
  std::mt19937 random(static_cast<unsigned>(n * 1000 + k));
  std::vector<int8_t> codes(static_cast<size_t>(n * k));
  for (int8_t& code : codes) {
    const auto bits = static_cast<unsigned>(random());
    code = bits % every == 0 ? static_cast<int8_t>(bits >> 8 & 0xff)
                             : static_cast<int8_t>(static_cast<int>(bits >> 8 & 0xff) % 8);
  }
  return codes;
}

std::vector<int8_t> all_rows(const PackedW8A8sc& packed) {
  std::vector<int8_t> codes(static_cast<size_t>(packed.n() * packed.k()));
  for (int64_t row = 0; row < packed.n(); ++row)
    packed.read_row(row, codes.data() + row * packed.k());
  return codes;
}

std::vector<int8_t> bytes_of(const PackedW8A8sc& packed) {
  return {packed.bytes(), packed.bytes() + packed.panel_offsets()[packed.n_panels()]};
}

TEST(PackedW8A8sc, RowsAreReadBackWithTheirSums) {
  ThreadTeam team(2);
  for (const auto& [n, k] : std::vector<std::pair<int64_t, int64_t>>{
           {1, 1}, {16, 64}, {17, 65}, {130, 77}, {300, 200}, {128, 3}}) {
    for (const unsigned every : {1U, 5U, 70U}) {
      const std::vector<int8_t> codes = random_codes(n, k, every);
      const PackedW8A8sc packed = PackedW8A8sc::pack(codes.data(), n, k, k, team);
      EXPECT_EQ(all_rows(packed), codes) << n << " " << k;
      for (int64_t row = 0; row < n; ++row) {
        EXPECT_EQ(packed.row_sums()[row],
                  std::accumulate(codes.begin() + row * k, codes.begin() + (row + 1) * k, 0));
      }
      EXPECT_EQ(packed.n_escapes(), std::count_if(codes.begin(), codes.end(), [](int8_t code) {
                  return code < -7 || code > 7;
                }));
    }
  }
}

// The header describes the bytes; this spells out a matrix.
TEST(PackedW8A8sc, BytesAreThoseThatTheHeaderDescribes) {
  ThreadTeam team(1);
  std::vector<int8_t> codes(2 * 9, 0);
  codes[0] = 1;     // row 0, k 0: line 0, code 0
  codes[3] = 100;   // row 0, k 3: line 0, code 3
  codes[5] = -7;    // row 0, k 5: line 1, code 1
  codes[9] = -8;    // row 1, k 0: line 0, code 4
  codes[13] = -1;   // row 1, k 4: line 1, code 4
  codes[17] = 127;  // row 1, k 8: line 2, code 4
  const PackedW8A8sc packed = PackedW8A8sc::pack(codes.data(), 2, 9, 9, team);
  std::vector<int8_t> expected(64 + 512, 0);
  expected[0] = 100;
  expected[1] = -8;
  expected[2] = 127;
  int8_t* nibbles = expected.data() + 64;
  nibbles[0] = 1;
  nibbles[3] = 8;
  nibbles[1] = static_cast<int8_t>(9 << 4);
  nibbles[4] = static_cast<int8_t>(8 | 15 << 4);
  nibbles[64 + 4] = 8;
  EXPECT_EQ(bytes_of(packed), expected);
  EXPECT_EQ(packed.size_bytes(), expected.size() + 2 * sizeof(int64_t) + 16 * sizeof(int32_t));
}

TEST(PackedW8A8sc, ExtremesTakeWhatTheirEscapesTake) {
  ThreadTeam team(1);
  constexpr int64_t kSize = 128;
  const auto bytes_with = [&](int8_t code) {
    const std::vector<int8_t> codes(kSize * kSize, code);
    const PackedW8A8sc packed = PackedW8A8sc::pack(codes.data(), kSize, kSize, kSize, team);
    EXPECT_EQ(all_rows(packed), codes);
    return static_cast<int64_t>(bytes_of(packed).size());
  };
  EXPECT_EQ(bytes_with(7), kSize * kSize / 2);
  EXPECT_EQ(bytes_with(-7), kSize * kSize / 2);
  EXPECT_EQ(bytes_with(8), kSize * kSize * 3 / 2);
  EXPECT_EQ(bytes_with(-8), kSize * kSize * 3 / 2);
  EXPECT_EQ(bytes_with(-128), kSize * kSize * 3 / 2);
}

TEST(PackedW8A8sc, RowsOfALargerMatrixAndASourceGiveTheSameBytesOnAnyThreads) {
  constexpr int64_t kRows = 700;
  constexpr int64_t kCols = 90;
  const std::vector<int8_t> codes = random_codes(kRows, kCols, 40);
  ThreadTeam one(1);
  for (const auto& [first, last] :
       std::vector<std::pair<int64_t, int64_t>>{{0, kRows}, {33, 450}, {128, 256}}) {
    const int8_t* begin = codes.data() + first * kCols;
    const int64_t n = last - first;
    const PackedW8A8sc expected = PackedW8A8sc::pack(begin, n, kCols, kCols, one);
    for (int n_threads = 1; n_threads <= 4; ++n_threads) {
      ThreadTeam team(n_threads);
      EXPECT_EQ(bytes_of(PackedW8A8sc::pack(begin, n, kCols, kCols, team)), bytes_of(expected));
      std::atomic<int64_t> n_asked = 0;
      const PackedW8A8sc packed = PackedW8A8sc::pack(
          n, kCols,
          [&](int64_t row, int64_t n_rows, int8_t* out) {
            EXPECT_EQ(row % PackedW8A8sc::kSourceRows, 0);
            n_asked += n_rows;
            std::copy(begin + row * kCols, begin + (row + n_rows) * kCols, out);
          },
          team);
      EXPECT_EQ(n_asked, n);
      EXPECT_EQ(bytes_of(packed), bytes_of(expected));
      EXPECT_EQ(all_rows(packed), std::vector<int8_t>(begin, begin + n * kCols));
    }
  }
}

TEST(PackedW8A8sc, AnErrorOfTheSourceIsThatOfTheFirstRows) {
  ThreadTeam team(4);
  try {
    PackedW8A8sc::pack(
        1000, 10,
        [](int64_t row, int64_t n_rows, int8_t* out) {
          std::fill_n(out, n_rows * 10, int8_t{0});
          if (row >= 256) throw std::runtime_error("row " + std::to_string(row));
        },
        team);
    FAIL() << "no error";
  } catch (const std::runtime_error& error) {
    EXPECT_STREQ(error.what(), "row 256");
  }
}

TEST(PackedW8A8sc, MovedFromIsEmptyAndImpossibleExtentsAreRefused) {
  ThreadTeam team(1);
  const std::vector<int8_t> codes = random_codes(20, 20, 3);
  PackedW8A8sc packed = PackedW8A8sc::pack(codes.data(), 20, 20, 20, team);
  const PackedW8A8sc moved = std::move(packed);
  EXPECT_EQ(packed.n(), 0);  // NOLINT(bugprone-use-after-move)
  EXPECT_EQ(packed.size_bytes(), 0U);
  EXPECT_EQ(all_rows(moved), codes);
  EXPECT_EQ(PackedW8A8sc::pack(nullptr, 0, 5, 5, team).n(), 0);
  EXPECT_THROW(PackedW8A8sc::pack(codes.data(), -1, 5, 5, team), formats::Error);
  EXPECT_THROW(PackedW8A8sc::pack(codes.data(), 2, 5, 4, team), formats::Error);
  EXPECT_THROW(
      PackedW8A8sc::pack(codes.data(), int64_t{1} << 40, int64_t{1} << 40, int64_t{1} << 40, team),
      formats::Error);
}

}  // namespace
}  // namespace llmq::quant
