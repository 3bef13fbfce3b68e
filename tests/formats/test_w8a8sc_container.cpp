#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <cstring>
#include <string>
#include <vector>

#include "formats/error.h"
#include "formats/w8a8sc.h"

namespace llmq::formats {
namespace {

using ::testing::HasSubstr;

std::string error_of(const std::function<void()>& call) {
  try {
    call();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kBadInput);
    return error.what();
  }
  return "nothing was thrown";
}

// A number for every place, different from its neighbours'.
int8_t code_at(int64_t row, int64_t col) {
  return static_cast<int8_t>((row * 37 + col * 11) % 251 - 125);
}

std::vector<int8_t> numbered_matrix(int64_t n, int64_t stride) {
  std::vector<int8_t> matrix(static_cast<size_t>(n * stride));
  for (size_t i = 0; i < matrix.size(); ++i) {
    const auto place = static_cast<int64_t>(i);
    matrix[i] = code_at(place / stride, place % stride);
  }
  return matrix;
}

std::vector<std::byte> index_bytes(std::initializer_list<uint32_t> numbers) {
  std::vector<std::byte> bytes(4 * numbers.size());
  std::memcpy(bytes.data(), std::data(numbers), bytes.size());  // tests run on x86
  return bytes;
}

TEST(W8A8scGrid, InfoHoldsFractalsOfATileThenColumnsThenRows) {
  const TileGrid grid(300, 700);
  EXPECT_THAT(grid.info(), ::testing::ElementsAre(8, 8, 700, 300, 1));
  const auto info = grid.info();
  const TileGrid again = TileGrid::from_info(info);
  EXPECT_EQ(again.n(), 300);
  EXPECT_EQ(again.k(), 700);
}

TEST(W8A8scGrid, TilesRunAlongColumnsFirstAndAreCutAtThePaddedEdge) {
  const TileGrid grid(300, 700);  // 3 tiles of rows, 3 of columns
  ASSERT_EQ(grid.n_tiles(), 9);
  const TileExtents whole = grid.extents(4);
  EXPECT_EQ(whole.first_row, 128);
  EXPECT_EQ(whole.first_col, 256);
  EXPECT_EQ(whole.n_codes(), TileGrid::kTileCodes);
  const TileExtents corner = grid.extents(8);
  EXPECT_EQ(corner.n_rows, 44);
  EXPECT_EQ(corner.padded_rows, 48);
  EXPECT_EQ(corner.n_cols, 188);
  EXPECT_EQ(corner.padded_cols, 192);
  EXPECT_EQ(grid.tile_name(5), "tile 5 (rows 128 to 255, columns 512 to 699)");
}

TEST(W8A8scGrid, RefusesInfoThatDescribesNoMatrix) {
  const auto error_of_info = [](std::vector<int64_t> info) {
    return error_of([&] { TileGrid::from_info(info); });
  };
  EXPECT_THAT(error_of_info({8, 8, 64, 64}), HasSubstr("4 numbers instead of 5"));
  EXPECT_THAT(error_of_info({4, 8, 64, 64, 1}), HasSubstr("{4, 8, 64, 64, 1}"));
  EXPECT_THAT(error_of_info({8, 8, 64, 64, 0}), HasSubstr("expected {8, 8, k, n, 1}"));
  EXPECT_THAT(error_of_info({8, 8, 0, 64, 1}), HasSubstr("64 by 0 cannot be cut"));
  EXPECT_THAT(error_of_info({8, 8, 64, -1, 1}), HasSubstr("-1 by 64"));
  EXPECT_THAT(error_of_info({8, 8, INT64_MAX, INT64_MAX, 1}), HasSubstr("cannot be cut"));
  EXPECT_THAT(error_of_info({8, 8, int64_t{1} << 31, int64_t{1} << 31, 1}),
              HasSubstr("more than 1048576 tiles"));
}

TEST(W8A8scTile, FractalsOf16RowsBy32ColumnsRunDownTheRows) {
  const std::vector<int8_t> matrix = numbered_matrix(128, 256);
  const TileGrid grid(128, 256);
  std::vector<int8_t> codes(TileGrid::kTileCodes);
  gather_tile({matrix.data(), 128, 256, 256}, grid.extents(0), codes.data());
  // The layout [k / 32][n / 16][16][32] of the container.
  for (int64_t i = 0; i < TileGrid::kTileCodes; ++i) {
    const int64_t fractal_col = i / (8 * 512);
    const int64_t fractal_row = i / 512 % 8;
    const int64_t row = fractal_row * 16 + i % 512 / 32;
    const int64_t col = fractal_col * 32 + i % 32;
    ASSERT_EQ(codes[static_cast<size_t>(i)], code_at(row, col)) << i;
  }
}

TEST(W8A8scTile, EdgesArePaddedWithZerosAndComeBackWithoutThem) {
  constexpr int64_t kN = 145;
  constexpr int64_t kK = 300;
  constexpr int64_t kStride = 310;
  const std::vector<int8_t> matrix = numbered_matrix(kN, kStride);
  std::vector<int8_t> again(matrix.size(), 99);
  const TileGrid grid(kN, kK);
  for (int64_t tile = 0; tile < grid.n_tiles(); ++tile) {
    const TileExtents extents = grid.extents(tile);
    std::vector<int8_t> codes(static_cast<size_t>(extents.n_codes()), 77);
    gather_tile({matrix.data(), kN, kK, kStride}, extents, codes.data());
    int64_t n_zeros = 0;
    for (int64_t i = 0; i < extents.n_codes(); ++i) {
      const int64_t fractal = i / 512;
      const int64_t n_fractal_rows = extents.padded_rows / 16;
      const int64_t row = fractal % n_fractal_rows * 16 + i % 512 / 32;
      const int64_t col = fractal / n_fractal_rows * 32 + i % 32;
      const bool inside = row < extents.n_rows && col < extents.n_cols;
      n_zeros += inside ? 0 : 1;
      ASSERT_EQ(codes[static_cast<size_t>(i)],
                inside ? code_at(extents.first_row + row, extents.first_col + col) : 0);
    }
    EXPECT_EQ(n_zeros, extents.n_codes() - extents.n_rows * extents.n_cols);
    scatter_tile(codes.data(), extents, {again.data(), kN, kK, kStride});
  }
  for (int64_t row = 0; row < kN; ++row) {
    for (int64_t col = 0; col < kStride; ++col) {
      const int8_t expected = col < kK ? code_at(row, col) : 99;
      ASSERT_EQ(again[static_cast<size_t>(row * kStride + col)], expected) << row << ' ' << col;
    }
  }
}

TEST(W8A8scIndex, HoldsOffsetAndSizeOfEveryTile) {
  const TileGrid grid(10, 600);
  const auto index = index_bytes({20, 100, 120, 50, 170, 30});
  const std::vector<TileRange> ranges = parse_tile_index(index, grid, 200);
  ASSERT_EQ(ranges.size(), 3U);
  EXPECT_EQ(ranges[1].offset, 120U);
  EXPECT_EQ(ranges[1].size_bytes, 50U);
  EXPECT_EQ(serialize_tile_index(ranges), index);
}

TEST(W8A8scIndex, RefusesRangesThatDoNotFollowEachOtherToTheEnd) {
  const TileGrid grid(10, 600);
  const auto error_of_index = [&](std::initializer_list<uint32_t> numbers) {
    return error_of([&] { parse_tile_index(index_bytes(numbers), grid, 200); });
  };
  EXPECT_THAT(error_of_index({20, 100, 120, 80}), HasSubstr("16 bytes, but"));
  EXPECT_THAT(error_of_index({20, 100, 120, 50, 170, 30, 200, 0}), HasSubstr("3 tiles"));
  EXPECT_THAT(error_of_index({20, 100, 120, 50, 171, 30}), HasSubstr("tile 2"));
  EXPECT_THAT(error_of_index({20, 100, 121, 49, 170, 30}),
              HasSubstr("tile 1 (rows 0 to 9, columns 256 to 511) begins at byte 121 instead of"));
  EXPECT_THAT(error_of_index({20, 100, 120, 50, 170, 29}), HasSubstr("ends at byte 199"));
  EXPECT_THAT(error_of_index({20, 100, 120, 0xffffffff, 119, 81}), HasSubstr("tile 1"));
  EXPECT_THAT(error_of_index({0xffffffff, 0xffffffff, 120, 50, 170, 30}), HasSubstr("tile 0"));
}

}  // namespace
}  // namespace llmq::formats
