#pragma once

#include <cstdint>

#include "quant/kernels/isa.h"

/// What the families gemm_f32, gemm_f16, gemm_w8a16 and gemm_w4a16 share: the canonical summation
/// order and the plain structs through which the driver (lane_driver.h) calls the kernels of one
/// instruction set. Free of library code, because files compiled for one instruction set include
/// it.
///
/// The canonical order of a product of k elements: kLanes float32 accumulators start at +0; element
/// i is added to lane i mod kLanes by one fused multiply-add, in increasing i; lanes without an
/// element in the last, incomplete step are left as they are. Then the lanes are added in one tree:
///   s8[i] = lane[i] + lane[i + 8]  (i < 8),   s4[i] = s8[i] + s8[i + 4]  (i < 4),
///   s2[i] = s4[i] + s4[i + 2]      (i < 2),   sum = s2[0] + s2[1].
/// Nothing else enters a sum, so instruction set, thread count, rows per call and blocking cannot
/// change a bit of it (the payload of a NaN excepted).
namespace llmq::quant {

inline constexpr int kLanes = 16;

/// How weights are stored.
enum class WeightType : uint8_t { kF32, kBf16, kFp16, kInt8, kInt4 };

/// Weight rows [n, k] as they lie in memory, at any byte alignment. A kernel multiplies by the
/// float32 values
///   kF32, kBf16, kFp16   the stored number (widening is exact);
///   kInt8, group == 0    q − offset[row] (group_scale is unused, StreamTask::scale has the scale);
///   kInt8, group > 0     (q − offset[row, i / group]) · group_scale[row, i / group],
/// each operation rounded to float32; kInt4 as kInt8, in panels (gemm_w4a16/kernels.h).
struct WeightRows {
  const unsigned char* data = nullptr;
  int64_t row_size_bytes = 0;  ///< distance between rows
  WeightType type = WeightType::kF32;
  const float* offset = nullptr;       ///< [n] or [n, n_groups], or null for zeros
  const float* group_scale = nullptr;  ///< [n, n_groups], used where group > 0
  int64_t group = 0;                   ///< elements of k per group, 0 for one scale per row
  int64_t n_groups = 1;                ///< groups per row
};

/// What happens to a finished sum: y[row, col] = sum · scale[col] + bias[col], as a multiplication
/// and an addition, each left out where its array is null. Arrays begin at column 0 of y.
struct Epilogue {
  const float* scale = nullptr;
  const float* bias = nullptr;
  float* y = nullptr;  ///< row 0 of the rows in question, column 0
  int64_t y_stride = 0;
};

/// Columns [col_begin, col_end) of y for all m rows, with the weights read where they lie.
struct StreamTask {
  const float* x = nullptr;  ///< [m, k]
  int64_t x_stride = 0;
  int64_t m = 0;  ///< 1..LaneGemmKernels::max_stream_rows
  int64_t k = 0;
  const WeightRows* weights = nullptr;
  int64_t col_begin = 0;
  int64_t col_end = 0;
  Epilogue epilogue;
};

/// A part of a weight row widened to float32 into its column of a panel [steps, tile_cols, kLanes],
/// where a step is kLanes elements of k.
struct WidenTask {
  const WeightRows* weights = nullptr;
  int64_t row = 0;
  int64_t k_begin = 0;               ///< a multiple of kLanes
  int64_t count = 0;                 ///< elements; those that fill up the last step are unspecified
  int64_t prefetch_ahead_bytes = 0;  ///< what is this far ahead of each weight will be needed soon
  float* out = nullptr;              ///< the column's part of step 0, aligned to 64 bytes
  int64_t out_step = 0;              ///< floats between steps, tile_cols · kLanes
};

/// One register tile of y over a block of k: tile_rows rows by tile_cols columns, of which n_rows
/// by n_cols are stored.
struct TileTask {
  const float* x = nullptr;      ///< [steps, tile_rows, kLanes], aligned to 64 bytes
  const float* panel = nullptr;  ///< [steps, tile_cols, kLanes], aligned to 64 bytes
  int64_t count = 0;             ///< elements of k; a multiple of kLanes unless `last`
  float* lanes = nullptr;        ///< [tile_rows, tile_cols, kLanes] accumulators between blocks
  bool first = true;             ///< accumulators start at +0 instead of at `lanes`
  bool last = true;              ///< sums are formed and written, instead of `lanes`
  int64_t col = 0;               ///< the tile's first column of y
  int64_t n_rows = 0;
  int64_t n_cols = 0;
  Epilogue epilogue;
};

/// The kernels of one instruction set for one WeightType. Where tile_rows is 0 there is no tile
/// kernel and `stream` takes any number of rows and any group.
struct LaneGemmKernels {
  Isa isa = Isa::kScalar;  ///< instruction set of this implementation
  int64_t max_stream_rows = 0;
  int64_t tile_rows = 0;
  int64_t tile_cols = 0;
  void (*stream)(const StreamTask&) = nullptr;  ///< group must be 0 or a multiple of kLanes
  void (*widen)(const WidenTask&) = nullptr;
  void (*tile)(const TileTask&) = nullptr;
};

}  // namespace llmq::quant
