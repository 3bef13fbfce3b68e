#include <cstdint>

#include "quant/kernels/gemm_f32/kernels.h"
#include "quant/kernels/gemm_f32/lanes_avx512.h"
#include "quant/kernels/gemm_f32/tile_kernels.h"

namespace llmq::quant {
namespace {

void stream(const StreamTask& task) {
  stream_weights<F32Values>(task);
}

void widen(const WidenTask& task) {
  widen_range<F32Values>(task, task.k_begin, task.k_begin + task.count);
}

constexpr int kTileRows = kTileRowsAvx512;
constexpr int kTileCols = kTileColsAvx512;

constexpr int kSums = kTileRows * kTileCols;

inline void multiply_tile_tail(const TileTask& task, int64_t step, __m512 (&acc)[kSums]) {
  const __mmask16 mask = lanes_mask(task.count - step * kLanes);
#pragma GCC unroll 4
  for (int r = 0; r < kTileRows; ++r) {
    const __m512 x = _mm512_load_ps(task.x + (step * kTileRows + r) * kLanes);
#pragma GCC unroll 6
    for (int c = 0; c < kTileCols; ++c) {
      const __m512 w = _mm512_load_ps(task.panel + (step * kTileCols + c) * kLanes);
      acc[r * kTileCols + c] = _mm512_mask3_fmadd_ps(x, w, acc[r * kTileCols + c], mask);
    }
  }
}

}  // namespace

void multiply_tile_avx512(const TileTask& task) {
  __m512 acc[kSums];
#pragma GCC unroll 24
  for (int a = 0; a < kSums; ++a)
    acc[a] = task.first ? _mm512_setzero_ps() : _mm512_load_ps(task.lanes + a * kLanes);
  const float* x = task.x;
  const float* panel = task.panel;
  const int64_t n_steps = task.count / kLanes;
  for (int64_t step = 0; step < n_steps; ++step) {
    __m512 row[kTileRows];
#pragma GCC unroll 4
    for (int r = 0; r < kTileRows; ++r) row[r] = _mm512_load_ps(x + r * kLanes);
#pragma GCC unroll 6
    for (int c = 0; c < kTileCols; ++c) {
      const __m512 w = _mm512_load_ps(panel + c * kLanes);
#pragma GCC unroll 4
      for (int r = 0; r < kTileRows; ++r)
        acc[r * kTileCols + c] = _mm512_fmadd_ps(row[r], w, acc[r * kTileCols + c]);
    }
    x += kTileRows * kLanes;
    panel += kTileCols * kLanes;
  }
  if (n_steps * kLanes < task.count) multiply_tile_tail(task, n_steps, acc);
  if (!task.last) {
#pragma GCC unroll 24
    for (int a = 0; a < kSums; ++a) _mm512_store_ps(task.lanes + a * kLanes, acc[a]);
    return;
  }
  float sums[32];
  store_tree_sums(acc, sums);
  finish_rows(task.epilogue, task.n_rows, task.col, task.n_cols, sums, kTileCols);
}

const LaneGemmKernels kGemmF32Avx512{.isa = Isa::kAvx512Vnni,
                                     .max_stream_rows = kMaxStreamRows,
                                     .tile_rows = kTileRows,
                                     .tile_cols = kTileCols,
                                     .stream = stream,
                                     .widen = widen,
                                     .tile = multiply_tile_avx512};

}  // namespace llmq::quant
