#include "quant/codec/w8a8sc_transcode.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "formats/error.h"

namespace llmq::quant {
namespace {

using formats::TileExtents;
using formats::TileGrid;

constexpr int64_t kTilesAtOnce = 4;  // as many as the reader decodes side by side

// Rows [first, last) of the matrix, going to `codes`, [last − first, k].
struct WantedRows {
  int64_t first;
  int64_t last;
  int64_t k;
  int8_t* codes;
};

// Takes over those rows of a decoded tile that are wanted.
void take_rows(const int8_t* tile_codes, const TileExtents& tile, const WantedRows& wanted,
               std::vector<int8_t>& buffer) {
  TileExtents alone = tile;
  alone.first_row = 0;
  alone.first_col = 0;
  formats::scatter_tile(tile_codes, alone, {buffer.data(), tile.n_rows, tile.n_cols, tile.n_cols});
  const int64_t begin = std::max(wanted.first, tile.first_row);
  const int64_t end = std::min(wanted.last, tile.first_row + tile.n_rows);
  for (int64_t row = begin; row < end; ++row) {
    std::memcpy(wanted.codes + (row - wanted.first) * wanted.k + tile.first_col,
                buffer.data() + (row - tile.first_row) * tile.n_cols,
                static_cast<size_t>(tile.n_cols));
  }
}

void read_rows(const CompressedReader& reader, const WantedRows& wanted, Isa isa) {
  const TileGrid& grid = reader.grid();
  const int64_t n_tile_cols = (grid.k() + TileGrid::kTileCols - 1) / TileGrid::kTileCols;
  const int64_t end = (wanted.last + TileGrid::kTileRows - 1) / TileGrid::kTileRows * n_tile_cols;
  std::vector<int8_t> tiles(static_cast<size_t>(kTilesAtOnce * TileGrid::kTileCodes));
  std::vector<int8_t> buffer(static_cast<size_t>(TileGrid::kTileCodes));
  int64_t tile = wanted.first / TileGrid::kTileRows * n_tile_cols;
  while (tile < end) {
    const int64_t count = std::min(kTilesAtOnce, end - tile);
    reader.decode_tiles(tile, count,
                        std::span(tiles).first(static_cast<size_t>(count * TileGrid::kTileCodes)),
                        isa);
    for (int64_t i = 0; i < count; ++i) {
      take_rows(tiles.data() + i * TileGrid::kTileCodes, grid.extents(tile + i), wanted, buffer);
    }
    tile += count;
  }
}

}  // namespace

PackedW8A8sc pack_compressed(const CompressedReader& reader, int64_t first_row, int64_t n_rows,
                             ThreadTeam& team, Isa isa) {
  const int64_t n = reader.grid().n();
  const int64_t k = reader.grid().k();
  if (first_row < 0 || n_rows < 0 || first_row > n || n_rows > n - first_row) {
    throw formats::Error(
        formats::ErrorCode::kInternal,
        fmt::format("{} rows from {} on of a compressed matrix of {} rows", n_rows, first_row, n));
  }
  const auto source = [&](int64_t row, int64_t count, int8_t* codes) {
    read_rows(reader, {first_row + row, first_row + row + count, k, codes}, isa);
  };
  return PackedW8A8sc::pack(n_rows, k, source, team);
}

}  // namespace llmq::quant
