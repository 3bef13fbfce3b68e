#include <cmath>
#include <cstring>
#include <limits>

#include "quant/kernels/gemm_f32/kernels.h"
#include "quant/kernels/gemm_f32/lane_driver.h"

namespace llmq::quant {
namespace {

float weight_at(const WeightRows& weights, int64_t row, int64_t i) {
  float value = 0.0F;
  std::memcpy(&value, weights.data + row * weights.row_size_bytes + i * 4, sizeof value);
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

const LaneGemmKernels kGemmF32Scalar{
    .isa = Isa::kScalar, .max_stream_rows = std::numeric_limits<int64_t>::max(), .stream = stream};

}  // namespace llmq::quant
