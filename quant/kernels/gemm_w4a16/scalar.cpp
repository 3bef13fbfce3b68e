#include <cmath>
#include <limits>

#include "quant/kernels/gemm_f32/lane_driver.h"
#include "quant/kernels/gemm_w4a16/kernels.h"

namespace llmq::quant {
namespace {

// The float32 value by which x is multiplied: with groups the weight itself, else the weight
// without its scale, which the epilogue applies to the sum.
float weight_at(const WeightRows& weights, int64_t row, int64_t i) {
  const int64_t group = weights.group == 0 ? 0 : i / weights.group;
  const int64_t index = row * weights.n_groups + group;
  auto value = static_cast<float>(int4_code(weights, row, i));
  if (weights.offset != nullptr) value = value - weights.offset[index];
  if (weights.group != 0) value = value * weights.group_scale[index];
  return value;
}

// The specification: one sum after the other, in the canonical order.
void stream(const StreamTask& task) {
  for (int64_t row = 0; row < task.m; ++row) {
    const float* x = task.x + row * task.x_stride;
    for (int64_t col = task.col_begin; col < task.col_end; ++col) {
      float lanes[kLanes] = {};
      for (int64_t i = 0; i < task.k; ++i)
        lanes[i % kLanes] = std::fma(x[i], weight_at(*task.weights, col, i), lanes[i % kLanes]);
      finish_sum(task.epilogue, row, col, lane_tree_sum(lanes));
    }
  }
}

}  // namespace

const LaneGemmKernels kGemmW4A16Scalar{
    .isa = Isa::kScalar, .max_stream_rows = std::numeric_limits<int64_t>::max(), .stream = stream};

}  // namespace llmq::quant
