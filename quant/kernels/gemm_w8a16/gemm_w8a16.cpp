#include "quant/kernels/gemm_w8a16/gemm_w8a16.h"

#include <string>

#include "formats/error.h"
#include "quant/kernels/choose_kernels.h"
#include "quant/kernels/gemm_f32/lane_driver.h"
#include "quant/kernels/gemm_w8a16/kernels.h"

namespace llmq::quant {
namespace {

using formats::Error;
using formats::ErrorCode;

const LaneGemmKernels& kernels_for(Isa isa) {
  return choose_kernels(isa, kGemmW8A16Scalar, kGemmW8A16Avx2, kGemmW8A16Avx512);
}

}  // namespace

void gemm_w8a16(const GemmW8A16Args& args, ThreadTeam& team, Isa isa) {
  const bool grouped = args.group_size > 0;
  const bool needs_scale = args.y.n_cols > 0 && (!grouped || args.x.n_cols > 0);
  if (args.group_size < 0 || (needs_scale && args.scale == nullptr)) {
    throw Error(ErrorCode::kInternal, "gemm_w8a16: the scale is missing, or the group size " +
                                          std::to_string(args.group_size) + " is negative");
  }
  const WeightRows weights{
      .data = reinterpret_cast<const unsigned char*>(args.weights),
      .row_size_bytes = args.weight_stride,
      .type = WeightType::kInt8,
      .offset = args.offset,
      .group_scale = grouped ? args.scale : nullptr,
      .group = args.group_size,
      .n_groups = grouped ? (args.x.n_cols + args.group_size - 1) / args.group_size : 1};
  run_lane_gemm(kernels_for(isa),
                {"gemm_w8a16", args.x, weights, grouped ? nullptr : args.scale, args.bias, args.y},
                team);
}

Isa gemm_w8a16_implementation(Isa isa) {
  return kernels_for(isa).isa;
}

}  // namespace llmq::quant
