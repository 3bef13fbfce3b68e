#include "quant/kernels/gemm_f16/gemm_f16.h"

#include <string>

#include "formats/error.h"
#include "quant/kernels/choose_kernels.h"
#include "quant/kernels/gemm_f16/kernels.h"
#include "quant/kernels/gemm_f32/lane_driver.h"

namespace llmq::quant {
namespace {

using formats::DType;
using formats::Error;
using formats::ErrorCode;

const LaneGemmKernels& kernels_for(Isa isa, DType dtype) {
  if (dtype == DType::kBF16)
    return choose_kernels(isa, kGemmBf16Scalar, kGemmBf16Avx2, kGemmBf16Avx512);
  if (dtype == DType::kF16)
    return choose_kernels(isa, kGemmFp16Scalar, kGemmFp16Avx2, kGemmFp16Avx512);
  throw Error(ErrorCode::kInternal, "gemm_f16: weights are " +
                                        std::string(formats::dtype_name(dtype)) +
                                        ", only BF16 and F16 are 16-bit floats");
}

}  // namespace

void gemm_f16(const GemmF16Args& args, ThreadTeam& team, Isa isa) {
  const LaneGemmKernels& kernels = kernels_for(isa, args.weight_dtype);
  const WeightRows weights{
      .data = static_cast<const unsigned char*>(args.weights),
      .row_size_bytes = args.weight_stride * 2,
      .type = args.weight_dtype == DType::kBF16 ? WeightType::kBf16 : WeightType::kFp16};
  run_lane_gemm(kernels, {"gemm_f16", args.x, weights, nullptr, args.bias, args.y}, team);
}

Isa gemm_f16_implementation(Isa isa) {
  return kernels_for(isa, DType::kBF16).isa;
}

}  // namespace llmq::quant
