#include <immintrin.h>

#include <cstdint>

#include "quant/kernels/gemm_f32/kernels.h"
#include "quant/kernels/gemm_f32/lanes_avx2.h"
#include "quant/kernels/gemm_f32/tile_kernels.h"

namespace llmq::quant {
namespace {

void stream(const StreamTask& task) {
  stream_weights<F32Values>(task);
}

void widen(const WidenTask& task) {
  widen_range<F32Values>(task, task.k_begin, task.k_begin + task.count);
}

constexpr int kTileRows = kTileRowsAvx2;
constexpr int kTileCols = kTileColsAvx2;

constexpr int kSums = kTileRows * kTileCols;

inline void multiply_tile_tail(const TileTask& task, int64_t step, Lanes (&acc)[kSums]) {
  const LanesMask mask = lanes_mask(task.count - step * kLanes);
#pragma GCC unroll 2
  for (int r = 0; r < kTileRows; ++r) {
    const Lanes x = load_lanes(task.x + (step * kTileRows + r) * kLanes);
#pragma GCC unroll 3
    for (int c = 0; c < kTileCols; ++c) {
      const Lanes w = load_lanes(task.panel + (step * kTileCols + c) * kLanes);
      acc[r * kTileCols + c] = multiply_add(mask, x, w, acc[r * kTileCols + c]);
    }
  }
}

}  // namespace

void multiply_tile_avx2(const TileTask& task) {
  Lanes acc[kSums];
#pragma GCC unroll 8
  for (int a = 0; a < kSums; ++a)
    acc[a] = task.first ? zero_lanes() : load_lanes(task.lanes + a * kLanes);
  const float* x = task.x;
  const float* panel = task.panel;
  const int64_t n_steps = task.count / kLanes;
  for (int64_t step = 0; step < n_steps; ++step) {
    // First the low lanes, then the high ones: 12 accumulators, 2 rows of x and a weight vector
    // are in the 16 registers.
    __m256 row[kTileRows];
#pragma GCC unroll 2
    for (int r = 0; r < kTileRows; ++r) row[r] = _mm256_load_ps(x + r * kLanes);
#pragma GCC unroll 3
    for (int c = 0; c < kTileCols; ++c) {
      const __m256 w = _mm256_load_ps(panel + c * kLanes);
#pragma GCC unroll 2
      for (int r = 0; r < kTileRows; ++r)
        acc[r * kTileCols + c].low = _mm256_fmadd_ps(row[r], w, acc[r * kTileCols + c].low);
    }
#pragma GCC unroll 2
    for (int r = 0; r < kTileRows; ++r) row[r] = _mm256_load_ps(x + r * kLanes + 8);
#pragma GCC unroll 3
    for (int c = 0; c < kTileCols; ++c) {
      const __m256 w = _mm256_load_ps(panel + c * kLanes + 8);
#pragma GCC unroll 2
      for (int r = 0; r < kTileRows; ++r)
        acc[r * kTileCols + c].high = _mm256_fmadd_ps(row[r], w, acc[r * kTileCols + c].high);
    }
    x += kTileRows * kLanes;
    panel += kTileCols * kLanes;
  }
  if (n_steps * kLanes < task.count) multiply_tile_tail(task, n_steps, acc);
  if (!task.last) {
#pragma GCC unroll 8
    for (int a = 0; a < kSums; ++a) store_lanes(task.lanes + a * kLanes, acc[a]);
    return;
  }
  float sums[8];
  store_tree_sums(acc, sums);
  finish_rows(task.epilogue, task.n_rows, task.col, task.n_cols, sums, kTileCols);
}

const LaneGemmKernels kGemmF32Avx2{.isa = Isa::kAvx2,
                                   .max_stream_rows = kMaxStreamRows,
                                   .tile_rows = kTileRows,
                                   .tile_cols = kTileCols,
                                   .stream = stream,
                                   .widen = widen,
                                   .tile = multiply_tile_avx2};

}  // namespace llmq::quant
