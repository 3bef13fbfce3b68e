#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "formats/float16.h"
#include "quant/kernels/elementwise/elementwise.h"
#include "quant/kernels/elementwise/exp_constants.h"
#include "quant/kernels/gemm_f32/lane_driver.h"

namespace llmq::quant {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

float exp_of(float x) {
  if (x < kExpMin) return 0.0F;
  if (!(x <= kExpMax)) return x + kInfinity;  // +infinity, or a NaN
  const float shifted = std::fma(x, kLog2E, kRoundMagic);
  const float n = shifted - kRoundMagic;
  const float r = std::fma(n, -kLn2Low, std::fma(n, -kLn2High, x));
  float h = kExpH4;
  h = std::fma(h, r, kExpH3);
  h = std::fma(h, r, kExpH2);
  h = std::fma(h, r, kExpH1);
  h = std::fma(h, r, kExpH0);
  const float p = 1.0F + std::fma(h, r * r, r);
  // The low bits of `shifted` are n; adding them to the exponent of p multiplies it by 2^n.
  return std::bit_cast<float>(std::bit_cast<uint32_t>(p) +
                              (std::bit_cast<uint32_t>(shifted) << 23));
}

float row_element(const StoredRows& rows, int64_t row, int64_t i) {
  const auto* bytes = static_cast<const unsigned char*>(rows.data) + row * rows.row_size_bytes;
  if (rows.type == RowType::kF32) {
    float value = 0.0F;
    std::memcpy(&value, bytes + i * 4, sizeof value);
    return value;
  }
  uint16_t bits = 0;
  std::memcpy(&bits, bytes + i * 2, sizeof bits);
  return rows.type == RowType::kBf16 ? formats::bf16_to_float(bits) : formats::fp16_to_float(bits);
}

void rms_norm(const RmsNormTask& task) {
  float lanes[kLanes] = {};
  for (int64_t i = 0; i < task.n; ++i)
    lanes[i % kLanes] = std::fma(task.x[i], task.x[i], lanes[i % kLanes]);
  const float mean = lane_tree_sum(lanes) / static_cast<float>(task.n);
  const float inverse = 1.0F / std::sqrt(mean + task.eps);
  for (int64_t i = 0; i < task.n; ++i) task.y[i] = (task.x[i] * inverse) * task.weight[i];
}

void rope(const RopeTask& task) {
  const int64_t h = task.n_pairs;
  for (int64_t i = 0; i < h; ++i) {
    const float a = task.x[i];
    const float b = task.x[i + h];
    const float b_sin = b * task.sin[i];
    const float a_sin = a * task.sin[i];
    task.y[i] = std::fma(a, task.cos[i], -b_sin);
    task.y[i + h] = std::fma(b, task.cos[i], a_sin);
  }
}

void dot_rows(const DotRowsTask& task) {
  for (int64_t query = 0; query < task.m; ++query) {
    const float* q = task.queries + query * task.query_stride;
    for (int64_t row = 0; row < task.rows.n_rows; ++row) {
      float lanes[kLanes] = {};
      for (int64_t i = 0; i < task.d; ++i)
        lanes[i % kLanes] = std::fma(q[i], row_element(task.rows, row, i), lanes[i % kLanes]);
      task.out[query * task.out_stride + row] = lane_tree_sum(lanes) * task.scale;
    }
  }
}

void add_rows(const AddRowsTask& task) {
  for (int64_t sum = 0; sum < task.m; ++sum) {
    float* acc = task.acc + sum * task.acc_stride;
    for (int64_t row = 0; row < task.rows.n_rows; ++row) {
      const float p = task.p[sum * task.p_stride + row];
      for (int64_t i = 0; i < task.d; ++i)
        acc[i] = std::fma(p, row_element(task.rows, row, i), acc[i]);
    }
  }
}

void exp_array(const float* x, float* y, int64_t n) {
  for (int64_t i = 0; i < n; ++i) y[i] = exp_of(x[i]);
}

void sigmoid(const float* x, float* y, int64_t n) {
  for (int64_t i = 0; i < n; ++i) y[i] = 1.0F / (1.0F + exp_of(-x[i]));
}

void silu_multiply(const float* gate, const float* up, float* y, int64_t n) {
  for (int64_t i = 0; i < n; ++i) y[i] = (gate[i] / (1.0F + exp_of(-gate[i]))) * up[i];
}

void add(const float* a, const float* b, float* y, int64_t n) {
  for (int64_t i = 0; i < n; ++i) y[i] = a[i] + b[i];
}

void scale(const float* x, float factor, float* y, int64_t n) {
  for (int64_t i = 0; i < n; ++i) y[i] = x[i] * factor;
}

float row_max(const float* x, int64_t n) {
  float lanes[kLanes];
  for (float& lane : lanes) lane = -kInfinity;
  for (int64_t i = 0; i < n; ++i)
    lanes[i % kLanes] = x[i] > lanes[i % kLanes] ? x[i] : lanes[i % kLanes];
  for (int width = kLanes / 2; width > 0; width /= 2) {
    for (int i = 0; i < width; ++i)
      lanes[i] = lanes[i + width] > lanes[i] ? lanes[i + width] : lanes[i];
  }
  return lanes[0];
}

float exp_sum(const float* x, float max, float* y, int64_t n) {
  const float shift = max == -kInfinity ? 0.0F : max;
  float lanes[kLanes] = {};
  for (int64_t i = 0; i < n; ++i) {
    y[i] = exp_of(x[i] - shift);
    lanes[i % kLanes] = lanes[i % kLanes] + y[i];
  }
  return lane_tree_sum(lanes);
}

}  // namespace

const ElementwiseKernels kElementwiseScalar{.isa = Isa::kScalar,
                                            .rms_norm = rms_norm,
                                            .rope = rope,
                                            .dot_rows = dot_rows,
                                            .add_rows = add_rows,
                                            .exp = exp_array,
                                            .sigmoid = sigmoid,
                                            .silu_multiply = silu_multiply,
                                            .add = add,
                                            .scale = scale,
                                            .row_max = row_max,
                                            .exp_sum = exp_sum};

}  // namespace llmq::quant
