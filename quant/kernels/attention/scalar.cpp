#include <cmath>

#include "quant/kernels/attention/code_sums.h"

namespace llmq::quant {
namespace {

uint32_t product(int16_t a, int8_t b) {
  return static_cast<uint32_t>(int32_t{a} * int32_t{b});
}

void key_sums(const KeySumsTask& task) {
  for (int64_t row = 0; row < task.m; ++row) {
    const int16_t* query = task.queries + row * task.query_stride;
    for (int64_t key = 0; key < task.n_groups * kKeysPerGroup; ++key) {
      uint32_t sum = 0;
      for (int64_t lane = 0; lane < 2 * task.n_lane_pairs; ++lane)
        sum += product(query[lane], task.keys[key_code_offset(key, lane, task.n_lane_pairs)]);
      task.sums[row * task.sums_stride + key] = static_cast<int32_t>(sum);
    }
  }
}

void value_sums(const ValueSumsTask& task) {
  for (int64_t row = 0; row < task.m; ++row) {
    const int16_t* weights = task.weights + row * task.weight_stride;
    int32_t* sums = task.sums + row * task.sums_stride;
    for (int64_t lane = 0; lane < 2 * task.n_lane_pairs; ++lane) {
      auto sum = static_cast<uint32_t>(sums[lane]);
      for (int64_t position = 0; position < 2 * task.n_position_pairs; ++position)
        sum += product(weights[position],
                       task.values[value_code_offset(position, lane, task.n_lane_pairs)]);
      sums[lane] = static_cast<int32_t>(sum);
    }
  }
}

void scores(const ScoresTask& task) {
  for (int64_t row = 0; row < task.m; ++row) {
    const int32_t* sums = task.sums + row * task.sums_stride;
    float* to = task.scores + row * task.scores_stride;
    for (int64_t i = 0; i < task.n; ++i)
      to[i] = static_cast<float>(sums[i] - task.offset[row]) * task.factor[row];
  }
}

void weight_codes(const WeightCodesTask& task) {
  for (int64_t row = 0; row < task.m; ++row) {
    float left[kWeightLanes] = {};
    int32_t total = 0;
    int16_t* codes = task.codes + row * task.codes_stride;
    for (int64_t i = 0; i < task.n; ++i) {
      codes[i] = 0;
      const float weight = task.weights[row * task.weights_stride + i];
      if (!(weight > 0.0F)) continue;
      const float exact = weight * task.steps + left[i % kWeightLanes];
      const float rounded = std::nearbyint(exact);
      const float code = rounded < task.steps ? rounded : task.steps;
      if (task.carries) left[i % kWeightLanes] = exact - code;
      codes[i] = static_cast<int16_t>(code);
      total += codes[i];
    }
    task.sums[row] = total;
  }
}

}  // namespace

const CodeSumsKernels kCodeSumsScalar{Isa::kScalar, key_sums, value_sums, scores, weight_codes};

}  // namespace llmq::quant
