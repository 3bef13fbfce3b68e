#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

/// The container of W8A8SC: a matrix of int8 codes [n, k] in tiles of 128 rows by 256 columns. A
/// linear has three tensors: `weight`, the bytes of the tiles; `index`, 8 bytes a tile that say
/// where they lie; `info`, the extents. What the bytes of a tile mean is for quant/codec.
namespace llmq::formats {

/// Codes of a matrix [n, k] that lie in memory owned by another: n rows of k consecutive codes,
/// each row `stride` codes after the one before.
struct ConstCodes {
  const int8_t* data = nullptr;
  int64_t n = 0;
  int64_t k = 0;
  int64_t stride = 0;  ///< at least k
};

/// The same, to be written.
struct Codes {
  int8_t* data = nullptr;
  int64_t n = 0;
  int64_t k = 0;
  int64_t stride = 0;  ///< at least k
};

/// The part of the matrix that a tile holds. Tiles at the lower and right edge are cut to the
/// matrix padded with zeros to multiples of 16 rows and 32 columns.
struct TileExtents {
  int64_t first_row = 0;
  int64_t first_col = 0;
  int64_t n_rows = 0;       ///< rows of the matrix, 1 to 128
  int64_t n_cols = 0;       ///< columns of the matrix, 1 to 256
  int64_t padded_rows = 0;  ///< a multiple of 16
  int64_t padded_cols = 0;  ///< a multiple of 32
  [[nodiscard]] int64_t n_codes() const { return padded_rows * padded_cols; }
};

/// How a matrix is cut. Tiles are numbered with the columns running fastest: tile t holds the rows
/// from 128·(t / n_tile_cols) and the columns from 256·(t mod n_tile_cols). Immutable.
class TileGrid {
 public:
  static constexpr int64_t kTileRows = 128;
  static constexpr int64_t kTileCols = 256;
  static constexpr int64_t kFractalRows = 16;
  static constexpr int64_t kFractalCols = 32;
  /// Codes of a whole tile.
  static constexpr int64_t kTileCodes = kTileRows * kTileCols;
  /// Of a matrix; 32 GiB of codes.
  static constexpr int64_t kMostTiles = int64_t{1} << 20;

  /// Throws Error{kBadInput} where n or k is less than 1 or there would be more than kMostTiles.
  TileGrid(int64_t n, int64_t k);

  /// The grid that the tensor `info` [5] = {8, 8, k, n, 1} describes: fractals of a tile along k
  /// and n, extents, 1. Throws Error{kBadInput} for anything else.
  static TileGrid from_info(std::span<const int64_t> info);
  [[nodiscard]] std::array<int64_t, 5> info() const;

  [[nodiscard]] int64_t n() const { return n_; }
  [[nodiscard]] int64_t k() const { return k_; }
  [[nodiscard]] int64_t n_tiles() const { return n_tile_rows_ * n_tile_cols_; }
  /// 0 <= tile < n_tiles(), unchecked.
  [[nodiscard]] TileExtents extents(int64_t tile) const;
  /// "tile 7 (rows 0 to 127, columns 1792 to 2047)", for messages.
  [[nodiscard]] std::string tile_name(int64_t tile) const;

 private:
  int64_t n_;
  int64_t k_;
  int64_t n_tile_rows_;
  int64_t n_tile_cols_;
};

/// Where a tile's bytes lie in the tensor `weight`.
struct TileRange {
  uint32_t offset = 0;
  uint32_t size_bytes = 0;
};

/// Reads the tensor `index`: per tile its offset and its size in bytes, little-endian uint32 each.
/// Throws Error{kBadInput}, naming the tile, unless there is one entry per tile, each begins where
/// the one before ends, and the last ends at `weight_size_bytes`. The first may begin anywhere.
std::vector<TileRange> parse_tile_index(std::span<const std::byte> index, const TileGrid& grid,
                                        uint64_t weight_size_bytes);

/// The inverse: 8 bytes per range.
std::vector<std::byte> serialize_tile_index(std::span<const TileRange> ranges);

/// Copies a tile out of `matrix` in the order in which it is stored, padding with zeros: fractals
/// of 16 rows by 32 columns, row-major inside; those of the same columns follow each other down the
/// rows. `codes` [tile.n_codes()]. The tile must lie in the matrix; thread safe.
void gather_tile(const ConstCodes& matrix, const TileExtents& tile, int8_t* codes);

/// Copies a tile in stored order back to its place in `matrix`, without the padding. Thread safe.
void scatter_tile(const int8_t* codes, const TileExtents& tile, const Codes& matrix);

}  // namespace llmq::formats
