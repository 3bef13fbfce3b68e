#pragma once

// The specification of the products in the canonical order, for the scalar.cpp of a family.

#include <cmath>
#include <cstdint>
#include <limits>

#include "quant/kernels/gemm_f32/lane_driver.h"

namespace llmq::quant {
namespace {

// The float32 value by which x[.., i] is multiplied for column `row` of y.
using WeightAt = float(const WeightRows& weights, int64_t row, int64_t i);

// One sum after the other.
template <WeightAt* kWeightAt>
void stream_scalar(const StreamTask& task) {
  for (int64_t row = 0; row < task.m; ++row) {
    const float* x = task.x + row * task.x_stride;
    for (int64_t col = task.col_begin; col < task.col_end; ++col) {
      float lanes[kLanes] = {};
      for (int64_t i = 0; i < task.k; ++i)
        lanes[i % kLanes] = std::fma(x[i], kWeightAt(*task.weights, col, i), lanes[i % kLanes]);
      finish_sum(task.epilogue, row, col, lane_tree_sum(lanes));
    }
  }
}

template <WeightAt* kWeightAt>
constexpr LaneGemmKernels scalar_kernels() {
  return {.isa = Isa::kScalar,
          .max_stream_rows = std::numeric_limits<int64_t>::max(),
          .stream = stream_scalar<kWeightAt>};
}

}  // namespace
}  // namespace llmq::quant
