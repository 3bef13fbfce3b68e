#pragma once

#include <cstdint>

#include "quant/kernels/gemm_f32/lane_gemm.h"

namespace llmq::quant {

/// The table of gemm_w8a16: int8 weights with a scale per row or per group.
extern const LaneGemmKernels kGemmW8A16Scalar;
extern const LaneGemmKernels kGemmW8A16Avx2;
extern const LaneGemmKernels kGemmW8A16Avx512;

/// The code at (row, i), −128..127.
static inline int int8_code(const WeightRows& weights, int64_t row, int64_t i) {
  return static_cast<int8_t>(weights.data[row * weights.row_size_bytes + i]);
}

}  // namespace llmq::quant
