#include "quant/kernels/gemm_f32/scalar_stream.h"
#include "quant/kernels/gemm_w8a16/coded_rows.h"
#include "quant/kernels/gemm_w8a16/kernels.h"

namespace llmq::quant {

const LaneGemmKernels kGemmW8A16Scalar = scalar_kernels<weight_at<int8_code>>();

}  // namespace llmq::quant
