#pragma once

#include "quant/kernels/gemm_f32/lane_gemm.h"

namespace llmq::quant {

/// The table of gemm_w8a16: int8 weights with a scale per row or per group.
extern const LaneGemmKernels kGemmW8A16Scalar;
extern const LaneGemmKernels kGemmW8A16Avx2;
extern const LaneGemmKernels kGemmW8A16Avx512;

}  // namespace llmq::quant
