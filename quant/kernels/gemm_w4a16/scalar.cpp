#include "quant/kernels/gemm_f32/scalar_stream.h"
#include "quant/kernels/gemm_w4a16/kernels.h"
#include "quant/kernels/gemm_w8a16/coded_rows.h"

namespace llmq::quant {

const LaneGemmKernels kGemmW4A16Scalar = scalar_kernels<weight_at<int4_code>>();

}  // namespace llmq::quant
