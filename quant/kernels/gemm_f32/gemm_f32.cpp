#include "quant/kernels/gemm_f32/gemm_f32.h"

#include "quant/kernels/choose_kernels.h"
#include "quant/kernels/gemm_f32/kernels.h"
#include "quant/kernels/gemm_f32/lane_driver.h"

namespace llmq::quant {
namespace {

const LaneGemmKernels& kernels_for(Isa isa) {
  return choose_kernels(isa, kGemmF32Scalar, kGemmF32Avx2, kGemmF32Avx512);
}

}  // namespace

void gemm_f32(const GemmF32Args& args, ThreadTeam& team, Isa isa) {
  const WeightRows weights{.data = static_cast<const unsigned char*>(args.weights),
                           .row_size_bytes = args.weight_stride * 4,
                           .type = WeightType::kF32};
  run_lane_gemm(kernels_for(isa), {"gemm_f32", args.x, weights, nullptr, args.bias, args.y}, team);
}

Isa gemm_f32_implementation(Isa isa) {
  return kernels_for(isa).isa;
}

}  // namespace llmq::quant
