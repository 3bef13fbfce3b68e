#include "formats/w8a8sc.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "formats/error.h"

namespace llmq::formats {
namespace {

constexpr int64_t kFractalsPerTile = 8;  // along either axis, as `info` says
constexpr size_t kEntrySizeBytes = 8;
constexpr int64_t kMostRows = int64_t{1} << 31;

int64_t round_up(int64_t value, int64_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

uint32_t read_u32(const std::byte* bytes) {
  uint32_t value = 0;
  for (int i = 3; i >= 0; --i) value = value << 8 | std::to_integer<uint32_t>(bytes[i]);
  return value;
}

void write_u32(uint32_t value, std::byte* bytes) {
  for (int i = 0; i < 4; ++i) bytes[i] = static_cast<std::byte>(value >> (8 * i) & 0xff);
}

// Calls fn(row, col, count, position) for every run of a tile: `count` codes from (row, col) of the
// tile, kFractalCols of them in stored order from `position`. Runs of padded rows have count 0.
template <typename Fn>
void for_each_run(const TileExtents& tile, Fn fn) {
  int64_t position = 0;
  for (int64_t col = 0; col < tile.padded_cols; col += TileGrid::kFractalCols) {
    const int64_t count = std::min(TileGrid::kFractalCols, tile.n_cols - col);
    for (int64_t row = 0; row < tile.padded_rows; ++row) {
      fn(row, col, row < tile.n_rows ? count : 0, position);
      position += TileGrid::kFractalCols;
    }
  }
}

}  // namespace

TileGrid::TileGrid(int64_t n, int64_t k) : n_(n), k_(k) {
  if (n < 1 || k < 1 || n > kMostRows || k > kMostRows) {
    throw bad_input(fmt::format("a matrix of {} by {} cannot be cut into tiles", n, k));
  }
  n_tile_rows_ = (n + kTileRows - 1) / kTileRows;
  n_tile_cols_ = (k + kTileCols - 1) / kTileCols;
  if (n_tile_rows_ > kMostTiles / n_tile_cols_) {
    throw bad_input(fmt::format("a matrix of {} by {} has more than {} tiles", n, k, kMostTiles));
  }
}

TileGrid TileGrid::from_info(std::span<const int64_t> info) {
  if (info.size() != 5) {
    throw bad_input(fmt::format("info has {} numbers instead of 5", info.size()));
  }
  if (info[0] != kFractalsPerTile || info[1] != kFractalsPerTile || info[4] != 1) {
    throw bad_input(fmt::format("info is {{{}, {}, {}, {}, {}}}; expected {{8, 8, k, n, 1}}",
                                info[0], info[1], info[2], info[3], info[4]));
  }
  return {info[3], info[2]};
}

std::array<int64_t, 5> TileGrid::info() const {
  return {kFractalsPerTile, kFractalsPerTile, k_, n_, 1};
}

TileExtents TileGrid::extents(int64_t tile) const {
  TileExtents result;
  result.first_row = tile / n_tile_cols_ * kTileRows;
  result.first_col = tile % n_tile_cols_ * kTileCols;
  result.n_rows = std::min(kTileRows, n_ - result.first_row);
  result.n_cols = std::min(kTileCols, k_ - result.first_col);
  result.padded_rows = round_up(result.n_rows, kFractalRows);
  result.padded_cols = round_up(result.n_cols, kFractalCols);
  return result;
}

std::string TileGrid::tile_name(int64_t tile) const {
  const TileExtents at = extents(tile);
  return fmt::format("tile {} (rows {} to {}, columns {} to {})", tile, at.first_row,
                     at.first_row + at.n_rows - 1, at.first_col, at.first_col + at.n_cols - 1);
}

std::vector<TileRange> parse_tile_index(std::span<const std::byte> index, const TileGrid& grid,
                                        uint64_t weight_size_bytes) {
  const auto n_tiles = static_cast<size_t>(grid.n_tiles());
  if (index.size() != n_tiles * kEntrySizeBytes) {
    throw bad_input(
        fmt::format("index has {} bytes, but a matrix of {} by {} has {} tiles and needs {} bytes",
                    index.size(), grid.n(), grid.k(), n_tiles, n_tiles * kEntrySizeBytes));
  }
  std::vector<TileRange> ranges(n_tiles);
  for (size_t i = 0; i < n_tiles; ++i) {
    const std::byte* entry = index.data() + i * kEntrySizeBytes;
    ranges[i] = {read_u32(entry), read_u32(entry + 4)};
    const uint64_t end = uint64_t{ranges[i].offset} + ranges[i].size_bytes;
    if (end > weight_size_bytes) {
      throw bad_input(fmt::format("index: {} ends at byte {}, but weight has {} bytes",
                                  grid.tile_name(static_cast<int64_t>(i)), end, weight_size_bytes));
    }
    if (i > 0 && ranges[i].offset != ranges[i - 1].offset + ranges[i - 1].size_bytes) {
      throw bad_input(fmt::format("index: {} begins at byte {} instead of {}",
                                  grid.tile_name(static_cast<int64_t>(i)), ranges[i].offset,
                                  ranges[i - 1].offset + ranges[i - 1].size_bytes));
    }
  }
  const uint64_t end = uint64_t{ranges.back().offset} + ranges.back().size_bytes;
  if (end != weight_size_bytes) {
    throw bad_input(fmt::format("index: the last tile ends at byte {}, but weight has {} bytes",
                                end, weight_size_bytes));
  }
  return ranges;
}

std::vector<std::byte> serialize_tile_index(std::span<const TileRange> ranges) {
  std::vector<std::byte> index(ranges.size() * kEntrySizeBytes);
  for (size_t i = 0; i < ranges.size(); ++i) {
    write_u32(ranges[i].offset, index.data() + i * kEntrySizeBytes);
    write_u32(ranges[i].size_bytes, index.data() + i * kEntrySizeBytes + 4);
  }
  return index;
}

void gather_tile(const ConstCodes& matrix, const TileExtents& tile, int8_t* codes) {
  const int8_t* corner = matrix.data + tile.first_row * matrix.stride + tile.first_col;
  for_each_run(tile, [&](int64_t row, int64_t col, int64_t count, int64_t position) {
    int8_t* run = codes + position;
    if (count < TileGrid::kFractalCols) std::memset(run, 0, TileGrid::kFractalCols);
    if (count == 0) return;
    const int8_t* source = corner + row * matrix.stride + col;
    if (count == TileGrid::kFractalCols) {
      std::memcpy(run, source, TileGrid::kFractalCols);
    } else {
      std::memcpy(run, source, static_cast<size_t>(count));
    }
  });
}

void scatter_tile(const int8_t* codes, const TileExtents& tile, const Codes& matrix) {
  int8_t* corner = matrix.data + tile.first_row * matrix.stride + tile.first_col;
  for_each_run(tile, [&](int64_t row, int64_t col, int64_t count, int64_t position) {
    if (count == 0) return;
    int8_t* destination = corner + row * matrix.stride + col;
    if (count == TileGrid::kFractalCols) {
      std::memcpy(destination, codes + position, TileGrid::kFractalCols);
    } else {
      std::memcpy(destination, codes + position, static_cast<size_t>(count));
    }
  });
}

}  // namespace llmq::formats
