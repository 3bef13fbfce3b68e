#pragma once

// The tile kernels of gemm_bf16. `Tiles` is HardwareTiles or, in tests, a model of it; `Engine` has
//   transpose(from, to)   16 × 16 words of 32 bits, lines of 64 bytes, both aligned
//   store_sums(task)      a tile of complete sums, transposed, plus bias, to y
// Compiled once for each engine, with internal linkage.

#include <cstdint>

#include "quant/kernels/amx/tiles.h"
#include "quant/kernels/gemm_bf16/kernels.h"
#include "quant/kernels/gemm_bf16/round_bf16.h"

namespace llmq::quant {
namespace {

static_assert(kBf16Side == kTileRows && kBf16StepK * 2 == kTileRowBytes);
static_assert(kBf16TileBytes == kTileRows * kTileRowBytes);

// Tiles 0 to 3 hold the sums of (columns 0..15, rows 0..15), (columns 0..15, rows 16..31), (columns
// 16..31, rows 0..15), (columns 16..31, rows 16..31); 4 and 5 the two tiles of weights, 6 and 7
// those of x. What does not exist is zeros in memory, so that all are whole.
constexpr TileConfig whole_tiles() {
  TileConfig config;
  for (int tile = 0; tile < kTileCount; ++tile) config.set(tile, kTileRows);
  return config;
}
// NOLINTNEXTLINE(misc-definitions-in-headers): constexpr, so that every file has its own
alignas(64) constexpr TileConfig kBf16TileConfig = whole_tiles();

template <typename Engine>
void make_bf16_pairs(const Bf16PairsTask& task) {
  alignas(64) uint16_t rows[kBf16Side][kBf16StepK] = {};
  unsigned char* out = task.out;
  for (int64_t begin = 0; begin < task.k; begin += kBf16StepK, out += kBf16TileBytes) {
    const int64_t count = task.k - begin < kBf16StepK ? task.k - begin : int64_t{kBf16StepK};
    for (int64_t row = 0; row < task.n_rows; ++row) {
      const float* from = task.x + row * task.x_stride + begin;
      for (int64_t i = 0; i < count; ++i) rows[row][i] = nearest_bf16(from[i]);
      for (int64_t i = count; i < kBf16StepK; ++i) rows[row][i] = 0;
    }
    // Two bfloat16 to a word: what a tile wants is the transpose of the words.
    Engine::transpose(&rows[0][0], out);
  }
}

// The weights of a panel over the block of k: [2, steps] tiles, zeros where there are none.
inline void copy_weight_tiles(const Bf16Block& b, int64_t first_col, int64_t n_steps) {
  for (int64_t col = 0; col < kBf16PanelCols; ++col) {
    unsigned char* out = b.weight_tiles + col / kBf16Side * n_steps * kBf16TileBytes +
                         col % kBf16Side * kTileRowBytes;
    if (first_col + col >= b.n_cols) {
      if (first_col + col / kBf16Side * kBf16Side >= b.n_cols) return;  // a tile that is not used
      for (int64_t step = 0; step < n_steps; ++step)
        __builtin_memset(out + step * kBf16TileBytes, 0, kTileRowBytes);
      continue;
    }
    const unsigned char* from = b.weights + (first_col + col) * b.weight_row_bytes;
    const int64_t n_whole = b.count / kBf16StepK;
    for (int64_t step = 0; step < n_whole; ++step)
      __builtin_memcpy(out + step * kBf16TileBytes, from + step * kTileRowBytes, kTileRowBytes);
    if (n_whole == n_steps) continue;
    const auto rest = static_cast<size_t>((b.count - n_whole * kBf16StepK) * 2);
    __builtin_memset(out + n_whole * kBf16TileBytes, 0, kTileRowBytes);
    __builtin_memcpy(out + n_whole * kBf16TileBytes, from + n_whole * kTileRowBytes, rest);
  }
}

// kCols by kRows tiles of sums. Instructions name their registers, so that loops are written out.
// Loads and products take turns, each product following the load that it waited for.
template <class Tiles, int kCols, int kRows>
void multiply_bf16_tiles(const Bf16Block& b, const unsigned char* x, float* sums,
                         int64_t half_sums) {
  const int64_t n_steps = (b.count + kBf16StepK - 1) / kBf16StepK;
  const unsigned char* weights = b.weight_tiles;
  const int64_t half_bytes = n_steps * kBf16TileBytes;
  if (b.first) {
    Tiles::template zero<0>();
    if constexpr (kRows == 2) Tiles::template zero<1>();
    if constexpr (kCols == 2) Tiles::template zero<2>();
    if constexpr (kCols == 2 && kRows == 2) Tiles::template zero<3>();
  } else {
    Tiles::template load<0>(sums, kTileRowBytes);
    if constexpr (kRows == 2) Tiles::template load<1>(sums + kBf16TileSums, kTileRowBytes);
    if constexpr (kCols == 2) Tiles::template load<2>(sums + half_sums, kTileRowBytes);
    if constexpr (kCols == 2 && kRows == 2)
      Tiles::template load<3>(sums + half_sums + kBf16TileSums, kTileRowBytes);
  }
  for (int64_t step = 0; step < n_steps; ++step) {
    const unsigned char* w = weights + step * kBf16TileBytes;
    const unsigned char* pairs = x + step * kBf16TileBytes;
    Tiles::template load<4>(w, kTileRowBytes);
    Tiles::template load<6>(pairs, kTileRowBytes);
    Tiles::template add_bf16_products<0, 4, 6>();
    if constexpr (kRows == 2) {
      Tiles::template load<7>(pairs + b.x_tile_bytes, kTileRowBytes);
      Tiles::template add_bf16_products<1, 4, 7>();
    }
    if constexpr (kCols == 2) {
      Tiles::template load<5>(w + half_bytes, kTileRowBytes);
      Tiles::template add_bf16_products<2, 5, 6>();
    }
    if constexpr (kCols == 2 && kRows == 2) Tiles::template add_bf16_products<3, 5, 7>();
  }
  Tiles::template store<0>(sums, kTileRowBytes);
  if constexpr (kRows == 2) Tiles::template store<1>(sums + kBf16TileSums, kTileRowBytes);
  if constexpr (kCols == 2) Tiles::template store<2>(sums + half_sums, kTileRowBytes);
  if constexpr (kCols == 2 && kRows == 2)
    Tiles::template store<3>(sums + half_sums + kBf16TileSums, kTileRowBytes);
}

// Only once a whole panel has been stored, so that no store is read before it is in the cache.
template <typename Engine>
void finish_bf16_panel(const Bf16Block& b, int64_t first_col, const float* sums) {
  for (int64_t col = first_col; col < b.n_cols && col < first_col + kBf16PanelCols;
       col += kBf16Side) {
    const int64_t n_cols = b.n_cols - col < kBf16Side ? b.n_cols - col : int64_t{kBf16Side};
    for (int64_t row = 0; row < b.n_rows; row += kBf16Side, sums += kBf16TileSums) {
      const int64_t n_rows = b.n_rows - row < kBf16Side ? b.n_rows - row : int64_t{kBf16Side};
      Engine::store_sums({sums, n_rows, n_cols, b.bias == nullptr ? nullptr : b.bias + col,
                          b.y + row * b.y_stride + col, b.y_stride});
    }
  }
}

template <class Tiles, int kCols>
void multiply_bf16_panel(const Bf16Block& b, float* sums, int64_t n_row_tiles) {
  const int64_t half_sums = n_row_tiles * kBf16TileSums;
  for (int64_t tile = 0; tile < n_row_tiles; tile += 2) {
    const unsigned char* x = b.x + tile * b.x_tile_bytes;
    if (tile + 1 < n_row_tiles) {
      multiply_bf16_tiles<Tiles, kCols, 2>(b, x, sums + tile * kBf16TileSums, half_sums);
    } else {
      multiply_bf16_tiles<Tiles, kCols, 1>(b, x, sums + tile * kBf16TileSums, half_sums);
    }
  }
}

// Tiles belong to the thread: they are configured and released here, for nobody else's use.
template <class Tiles, typename Engine>
void multiply_bf16_block(const Bf16Block& b) {
  const int64_t n_row_tiles = (b.n_rows + kBf16Side - 1) / kBf16Side;
  const int64_t n_steps = (b.count + kBf16StepK - 1) / kBf16StepK;
  Tiles::configure(kBf16TileConfig);
  float* sums = b.sums;
  for (int64_t col = 0; col < b.n_cols; col += kBf16PanelCols) {
    copy_weight_tiles(b, col, n_steps);
    if (b.n_cols - col > kBf16Side) {
      multiply_bf16_panel<Tiles, 2>(b, sums, n_row_tiles);
    } else {
      multiply_bf16_panel<Tiles, 1>(b, sums, n_row_tiles);
    }
    if (b.last) finish_bf16_panel<Engine>(b, col, sums);
    sums += 2 * n_row_tiles * kBf16TileSums;
  }
  Tiles::release();
}

template <class Tiles, typename Engine>
constexpr Bf16TileKernels bf16_tile_kernels() {
  return {Isa::kAmx, make_bf16_pairs<Engine>, multiply_bf16_block<Tiles, Engine>};
}

}  // namespace
}  // namespace llmq::quant
