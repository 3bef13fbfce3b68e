#pragma once

// Integer weights one by one, for the specifications and for what the vector kernels leave over.
// Included by files of several instruction sets and compiled for each with internal linkage.

#include <cstdint>

#include "quant/kernels/gemm_f32/lane_gemm.h"

namespace llmq::quant {
namespace {

// Reads the code at (row, i).
using CodeAt = int(const WeightRows& weights, int64_t row, int64_t i);

// The float32 value by which x is multiplied: with groups the weight itself, else the weight
// without its scale, which the epilogue applies to the sum.
template <CodeAt* kCodeAt>
inline float weight_at(const WeightRows& weights, int64_t row, int64_t i) {
  const int64_t group = weights.group == 0 ? 0 : i / weights.group;
  const int64_t index = row * weights.n_groups + group;
  auto value = static_cast<float>(kCodeAt(weights, row, i));
  if (weights.offset != nullptr) value = value - weights.offset[index];
  if (weights.group != 0) value = value * weights.group_scale[index];
  return value;
}

// LaneGemmKernels::widen for groups that do not begin at a multiple of kLanes.
template <CodeAt* kCodeAt>
void widen_uneven_groups(const WidenTask& task) {
  for (int64_t i = 0; i < task.count; ++i) {
    task.out[i / kLanes * task.out_step + i % kLanes] =
        weight_at<kCodeAt>(*task.weights, task.row, task.k_begin + i);
  }
}

}  // namespace
}  // namespace llmq::quant
