#pragma once

#include <cstdint>

#include "quant/kernels/isa.h"

/// The plain structs through which gemm_bf16's driver calls the tile kernels. Free of library code,
/// because files compiled for one instruction set include it. A "column" is a column of y, that is,
/// a row of the weights.
///
/// A tile of sums has 16 columns of y by 16 rows of x: the weights are the left operand, whose rows
/// the instruction takes as they lie, and x the right one, which it wants in pairs of k. So a call
/// arranges x once and weights are only copied to where rows are a line apart.
namespace llmq::quant {

inline constexpr int kBf16Side = 16;   ///< rows or columns of a tile
inline constexpr int kBf16StepK = 32;  ///< elements of k that an instruction adds
inline constexpr int64_t kBf16TileBytes = 1024;
inline constexpr int64_t kBf16TileSums = 256;
/// Columns that one pass over x serves: two tiles of weights.
inline constexpr int64_t kBf16PanelCols = 2 * kBf16Side;

/// Up to kBf16Side rows of x to be rounded and put into pairs.
struct Bf16PairsTask {
  const float* x = nullptr;
  int64_t x_stride = 0;
  int64_t n_rows = 0;  ///< 1 to kBf16Side; rows that are missing become zeros
  int64_t k = 0;
  /// [⌈k / 32⌉, 16 pairs of k, 16 rows, 2] bfloat16, what is past k being zeros.
  unsigned char* out = nullptr;
};

/// A block of y over a block of k.
struct Bf16Block {
  const unsigned char* weights = nullptr;  ///< bfloat16: the first column at this block of k
  int64_t weight_row_bytes = 0;            ///< distance between columns
  int64_t n_cols = 0;
  int64_t count = 0;                 ///< elements of k, a multiple of 32 unless `last`
  const unsigned char* x = nullptr;  ///< pairs of the first 16 rows at this block of k
  int64_t x_tile_bytes = 0;          ///< distance to those of the next 16 rows
  int64_t n_rows = 0;
  unsigned char* weight_tiles = nullptr;  ///< scratch: 2 · ⌈count / 32⌉ tiles; 64-byte aligned
  float* sums = nullptr;  ///< sums between blocks of k: [panels, 2, ⌈n_rows / 16⌉] tiles; aligned
  bool first = true;      ///< nothing is in `sums` yet
  bool last = true;       ///< sums are complete and go to y
  const float* bias = nullptr;  ///< of the first column, or null
  float* y = nullptr;           ///< of the first row and column
  int64_t y_stride = 0;         ///< elements between rows
};

/// Where a tile of complete sums goes.
struct Bf16SumsTask {
  const float* tile = nullptr;  ///< [16 columns, 16 rows]
  int64_t n_rows = 0;           ///< 1 to 16 of them exist
  int64_t n_cols = 0;
  const float* bias = nullptr;  ///< [n_cols], or null
  float* y = nullptr;
  int64_t y_stride = 0;
};

struct Bf16TileKernels {
  Isa isa = Isa::kAmx;
  void (*make_pairs)(const Bf16PairsTask& task) = nullptr;
  void (*multiply)(const Bf16Block& block) = nullptr;
};

extern const Bf16TileKernels kGemmBf16Amx;

}  // namespace llmq::quant
