#include "quant/kernels/gemm_w4a16/gemm_w4a16.h"

#include <fmt/format.h>

#include "formats/error.h"
#include "quant/kernels/choose_kernels.h"
#include "quant/kernels/gemm_f32/lane_driver.h"
#include "quant/kernels/gemm_w4a16/kernels.h"

namespace llmq::quant {
namespace {

using formats::Error;
using formats::ErrorCode;

const LaneGemmKernels& kernels_for(Isa isa) {
  return choose_kernels(isa, kGemmW4A16Scalar, kGemmW4A16Avx2, kGemmW4A16Avx512);
}

// Where the lines of rows without elements begin.
alignas(kInt4LineBytes) constexpr unsigned char kNoCodes[kInt4PanelRows * kInt4LineBytes] = {};

}  // namespace

void gemm_w4a16(const GemmW4A16Args& args, ThreadTeam& team, Isa isa) {
  const bool grouped = args.group_size > 0;
  const bool needs_scale = args.y.n_cols > 0 && (!grouped || args.x.n_cols > 0);
  if (args.group_size < 0 || (needs_scale && args.scale == nullptr)) {
    throw Error(ErrorCode::kInternal,
                fmt::format("gemm_w4a16: the scale is missing, or the group size {} is negative",
                            args.group_size));
  }
  if (args.weights == nullptr || args.weights->n() != args.y.n_cols ||
      args.weights->k() != args.x.n_cols) {
    throw Error(ErrorCode::kInternal,
                fmt::format("gemm_w4a16: x [{}, {}] and y [{}, {}] do not fit the weights",
                            args.x.n_rows, args.x.n_cols, args.y.n_rows, args.y.n_cols));
  }
  const bool is_empty = args.weights->panels() == nullptr;  // then nothing is read
  const WeightRows weights{
      .data = is_empty ? kNoCodes : args.weights->panels(),
      .row_size_bytes = is_empty ? kInt4LineBytes : args.weights->row_size_bytes(),
      .type = WeightType::kInt4,
      .offset = args.offset,
      .group_scale = grouped ? args.scale : nullptr,
      .group = args.group_size,
      .n_groups = grouped ? (args.x.n_cols + args.group_size - 1) / args.group_size : 1};
  run_lane_gemm(kernels_for(isa),
                {"gemm_w4a16", args.x, weights, grouped ? nullptr : args.scale, args.bias, args.y},
                team);
}

Isa gemm_w4a16_implementation(Isa isa) {
  return kernels_for(isa).isa;
}

}  // namespace llmq::quant
