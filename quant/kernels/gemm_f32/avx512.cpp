#include <cstdint>

#include "quant/kernels/gemm_f32/kernels.h"
#include "quant/kernels/gemm_f32/lanes_avx512.h"
#include "quant/kernels/gemm_f32/tile_kernels.h"

namespace llmq::quant {
namespace {

struct F32Weights {
  static constexpr int64_t kStepBytes = 64;
  struct Row {};
  static Row row(const WeightRows&, int64_t, int64_t) { return {}; }
  static __m512 load(const unsigned char* p, Row) { return _mm512_loadu_ps(p); }
  static __m512 load(__mmask16 mask, const unsigned char* p, Row) {
    return _mm512_maskz_loadu_ps(mask, p);
  }
};

void stream(const StreamTask& task) {
  stream_weights<F32Weights>(task);
}

void widen(const WidenTask& task) {
  widen_range<F32Weights>(task, task.k_begin, task.k_begin + task.count);
}

constexpr int kTileRows = kTileRowsAvx512;
constexpr int kTileCols = kTileColsAvx512;

template <int kRows>
inline void multiply_tile(const TileTask& task) {
  constexpr int kSums = kRows * kTileCols;
  __m512 acc[kSums];
#pragma GCC unroll 24
  for (int a = 0; a < kSums; ++a)
    acc[a] = task.first ? _mm512_setzero_ps() : _mm512_load_ps(task.lanes + a * kLanes);
  const float* x = task.x;
  const float* panel = task.panel;
  const int64_t whole = task.count / kLanes * kLanes;
  for (int64_t i = 0; i < whole; i += kLanes) {
    __m512 row[kRows];
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r) row[r] = _mm512_loadu_ps(x + r * task.x_stride + i);
#pragma GCC unroll 6
    for (int c = 0; c < kTileCols; ++c) {
      const __m512 w = _mm512_load_ps(panel + c * task.panel_stride + i);
#pragma GCC unroll 4
      for (int r = 0; r < kRows; ++r)
        acc[r * kTileCols + c] = _mm512_fmadd_ps(row[r], w, acc[r * kTileCols + c]);
    }
  }
  if (whole < task.count) {
    const __mmask16 mask = lanes_mask(task.count - whole);
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r) {
      const __m512 row = _mm512_maskz_loadu_ps(mask, x + r * task.x_stride + whole);
#pragma GCC unroll 6
      for (int c = 0; c < kTileCols; ++c) {
        const __m512 w = _mm512_load_ps(panel + c * task.panel_stride + whole);
        acc[r * kTileCols + c] = _mm512_mask3_fmadd_ps(row, w, acc[r * kTileCols + c], mask);
      }
    }
  }
  if (!task.last) {
#pragma GCC unroll 24
    for (int a = 0; a < kSums; ++a) _mm512_store_ps(task.lanes + a * kLanes, acc[a]);
    return;
  }
  float sums[32];
  store_tree_sums(acc, sums);
  finish_rows(task.epilogue, kRows, task.col, task.n_cols, sums, kTileCols);
}

}  // namespace

void multiply_tile_avx512(const TileTask& task) {
  switch (task.m) {
    case 1:
      return multiply_tile<1>(task);
    case 2:
      return multiply_tile<2>(task);
    case 3:
      return multiply_tile<3>(task);
    default:
      return multiply_tile<kTileRows>(task);
  }
}

const LaneGemmKernels kGemmF32Avx512{.isa = Isa::kAvx512Vnni,
                                     .max_stream_rows = kMaxStreamRows,
                                     .tile_rows = kTileRows,
                                     .tile_cols = kTileCols,
                                     .stream = stream,
                                     .widen = widen,
                                     .tile = multiply_tile_avx512};

}  // namespace llmq::quant
