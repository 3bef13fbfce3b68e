#include <cmath>
#include <cstring>
#include <limits>

#include "formats/float16.h"
#include "quant/kernels/gemm_f16/kernels.h"
#include "quant/kernels/gemm_f32/lane_driver.h"

namespace llmq::quant {
namespace {

float weight_at(const WeightRows& weights, int64_t row, int64_t i) {
  uint16_t bits = 0;
  std::memcpy(&bits, weights.data + row * weights.row_size_bytes + i * 2, sizeof bits);
  return weights.type == WeightType::kBf16 ? formats::bf16_to_float(bits)
                                           : formats::fp16_to_float(bits);
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

constexpr LaneGemmKernels kBothTypes{
    .isa = Isa::kScalar, .max_stream_rows = std::numeric_limits<int64_t>::max(), .stream = stream};

}  // namespace

const LaneGemmKernels kGemmBf16Scalar = kBothTypes;
const LaneGemmKernels kGemmFp16Scalar = kBothTypes;

}  // namespace llmq::quant
