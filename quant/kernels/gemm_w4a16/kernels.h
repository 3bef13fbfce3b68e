#pragma once

#include <cstdint>

#include "quant/kernels/gemm_f32/lane_gemm.h"

namespace llmq::quant {

/// The order of PackedInt4 (WeightType::kInt4): panels of kInt4PanelRows rows one after the other,
/// each [padded k / kInt4BlockK, kInt4PanelRows, 16] 32-bit words in little-endian order. Word i of
/// a line of 64 bytes holds, for s = 0..7 from the lowest nibble up, the codes of
/// k = 128 · block + 16 · s + i in two's complement: word i is lane i of the canonical order, and a
/// shift by 4 · s brings the codes of one step of 16 weights to the bottom of their lanes.
inline constexpr int64_t kInt4PanelRows = 8;
inline constexpr int64_t kInt4BlockK = 128;
inline constexpr int64_t kInt4LineBytes = 64;

/// The table of gemm_w4a16: int4 weights with a scale per row or per group.
/// WeightRows::row_size_bytes is half of the padded k. A streaming task begins at a panel.
extern const LaneGemmKernels kGemmW4A16Scalar;
extern const LaneGemmKernels kGemmW4A16Avx2;
extern const LaneGemmKernels kGemmW4A16Avx512;

/// The line of 64 bytes with weights [128 · block, 128 · block + 128) of a row.
static inline const unsigned char* int4_line(const WeightRows& weights, int64_t row,
                                             int64_t block) {
  return weights.data + row / kInt4PanelRows * kInt4PanelRows * weights.row_size_bytes +
         (block * kInt4PanelRows + row % kInt4PanelRows) * kInt4LineBytes;
}

/// The code at (row, i), −8..7.
static inline int int4_code(const WeightRows& weights, int64_t row, int64_t i) {
  const unsigned char* line = int4_line(weights, row, i / kInt4BlockK);
  const int64_t step = i % kInt4BlockK / kLanes;
  const unsigned nibble = line[i % kLanes * 4 + step / 2] >> (step % 2 * 4) & 15U;
  return static_cast<int>(nibble ^ 8U) - 8;
}

}  // namespace llmq::quant
