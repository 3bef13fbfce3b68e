#pragma once

#include "quant/kernels/gemm_f32/lane_gemm.h"

namespace llmq::quant {

/// The tables of gemm_f16: bfloat16 and IEEE binary16 weights. WeightRows::type must agree.
extern const LaneGemmKernels kGemmBf16Scalar;
extern const LaneGemmKernels kGemmBf16Avx2;
extern const LaneGemmKernels kGemmBf16Avx512;
extern const LaneGemmKernels kGemmFp16Scalar;
extern const LaneGemmKernels kGemmFp16Avx2;
extern const LaneGemmKernels kGemmFp16Avx512;

}  // namespace llmq::quant
