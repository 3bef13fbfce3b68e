#pragma once

#include "quant/kernels/gemm_f32/lane_gemm.h"

namespace llmq::quant {

/// The table of gemm_f32: float32 weights. max_stream_rows of the scalar entry is without limit.
extern const LaneGemmKernels kGemmF32Scalar;
extern const LaneGemmKernels kGemmF32Avx2;
extern const LaneGemmKernels kGemmF32Avx512;

}  // namespace llmq::quant
