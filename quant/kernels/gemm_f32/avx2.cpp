#include <immintrin.h>

#include <cstdint>

#include "quant/kernels/gemm_f32/kernels.h"
#include "quant/kernels/gemm_f32/lanes_avx2.h"
#include "quant/kernels/gemm_f32/tile_kernels.h"

namespace llmq::quant {
namespace {

struct F32Weights {
  static constexpr int64_t kStepBytes = 64;
  struct Row {};
  static Row row(const WeightRows&, int64_t, int64_t) { return {}; }
  static Lanes load(const unsigned char* p, Row) {
    return {_mm256_castsi256_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))),
            _mm256_castsi256_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p + 32)))};
  }
  static Lanes load(int64_t count, const unsigned char* p, Row) {
    alignas(32) unsigned char bytes[64] = {};
    for (int64_t i = 0; i < count * 4; ++i) bytes[i] = p[i];
    return load(bytes, {});
  }
};

void stream(const StreamTask& task) {
  stream_weights<F32Weights>(task);
}

void widen(const WidenTask& task) {
  widen_range<F32Weights>(task, task.k_begin, task.k_begin + task.count);
}

constexpr int kTileRows = kTileRowsAvx2;
constexpr int kTileCols = kTileColsAvx2;

template <int kRows>
inline void multiply_tile(const TileTask& task) {
  constexpr int kSums = kRows * kTileCols;
  Lanes acc[kSums];
#pragma GCC unroll 8
  for (int a = 0; a < kSums; ++a)
    acc[a] = task.first ? zero_lanes() : load_lanes(task.lanes + a * kLanes);
  const float* x = task.x;
  const float* panel = task.panel;
  const int64_t whole = task.count / kLanes * kLanes;
  // The low and the high lanes one after the other: 6 accumulators, 2 rows of x and a weight vector
  // are live at a time beside the 6 waiting accumulators, all in the 16 registers.
  for (int64_t i = 0; i < whole; i += kLanes) {
    __m256 row[kRows];
#pragma GCC unroll 2
    for (int r = 0; r < kRows; ++r) row[r] = _mm256_loadu_ps(x + r * task.x_stride + i);
#pragma GCC unroll 3
    for (int c = 0; c < kTileCols; ++c) {
      const __m256 w = _mm256_load_ps(panel + c * task.panel_stride + i);
#pragma GCC unroll 2
      for (int r = 0; r < kRows; ++r)
        acc[r * kTileCols + c].low = _mm256_fmadd_ps(row[r], w, acc[r * kTileCols + c].low);
    }
#pragma GCC unroll 2
    for (int r = 0; r < kRows; ++r) row[r] = _mm256_loadu_ps(x + r * task.x_stride + i + 8);
#pragma GCC unroll 3
    for (int c = 0; c < kTileCols; ++c) {
      const __m256 w = _mm256_load_ps(panel + c * task.panel_stride + i + 8);
#pragma GCC unroll 2
      for (int r = 0; r < kRows; ++r)
        acc[r * kTileCols + c].high = _mm256_fmadd_ps(row[r], w, acc[r * kTileCols + c].high);
    }
  }
  if (whole < task.count) {
    const LanesMask mask = lanes_mask(task.count - whole);
#pragma GCC unroll 2
    for (int r = 0; r < kRows; ++r) {
      const Lanes row = load_lanes(mask, x + r * task.x_stride + whole);
#pragma GCC unroll 3
      for (int c = 0; c < kTileCols; ++c) {
        const Lanes w = load_lanes(panel + c * task.panel_stride + whole);
        acc[r * kTileCols + c] = multiply_add(mask, row, w, acc[r * kTileCols + c]);
      }
    }
  }
  if (!task.last) {
#pragma GCC unroll 8
    for (int a = 0; a < kSums; ++a) store_lanes(task.lanes + a * kLanes, acc[a]);
    return;
  }
  float sums[8];
  store_tree_sums(acc, sums);
  finish_rows(task.epilogue, kRows, task.col, task.n_cols, sums, kTileCols);
}

}  // namespace

void multiply_tile_avx2(const TileTask& task) {
  if (task.m == 1) return multiply_tile<1>(task);
  return multiply_tile<kTileRows>(task);
}

const LaneGemmKernels kGemmF32Avx2{.isa = Isa::kAvx2,
                                   .max_stream_rows = kMaxStreamRows,
                                   .tile_rows = kTileRows,
                                   .tile_cols = kTileCols,
                                   .stream = stream,
                                   .widen = widen,
                                   .tile = multiply_tile_avx2};

}  // namespace llmq::quant
