#include "runtime/attention/row_ops.h"

#include <array>
#include <bit>
#include <cmath>

namespace llmq::runtime {
namespace {

constexpr int64_t kLanes = 16;

float exp_nonpositive(float x) {
  if (!(x > -87.0F)) return std::isnan(x) ? x : 0.0F;
  constexpr float kMagic = 12582912.0F;
  const float n = (x * 1.44269504F + kMagic) - kMagic;
  const float r = (x - n * 0.693145752F) - n * 1.42860677e-6F;
  float p = 1.0F / 720.0F;
  p = p * r + 1.0F / 120.0F;
  p = p * r + 1.0F / 24.0F;
  p = p * r + 1.0F / 6.0F;
  p = p * r + 0.5F;
  p = p * r + 1.0F;
  p = p * r + 1.0F;
  return p * std::bit_cast<float>((static_cast<int32_t>(n) + 127) << 23);
}

}  // namespace

float row_max(const float* x, int64_t n) {
  float best = x[0];
  for (int64_t i = 1; i < n; ++i) best = std::isnan(x[i]) || x[i] > best ? x[i] : best;
  return best;
}

float exp_row(float* x, int64_t n, float max) {
  std::array<float, kLanes> sums{};
  for (int64_t i = 0; i < n; ++i) {
    x[i] = exp_nonpositive(x[i] - max);
    sums[static_cast<size_t>(i % kLanes)] += x[i];
  }
  float total = 0.0F;
  for (const float sum : sums) total += sum;
  return total;
}

void add_weighted_rows(const float* weights, const float* rows, int64_t n_rows, int64_t n_cols,
                       float* acc) {
  for (int64_t row = 0; row < n_rows; ++row) {
    for (int64_t col = 0; col < n_cols; ++col) acc[col] += weights[row] * rows[row * n_cols + col];
  }
}

void silu_multiply_row(const float* up, float* gate, int64_t n) {
  for (int64_t i = 0; i < n; ++i) gate[i] = gate[i] / (1.0F + std::exp(-gate[i])) * up[i];
}

void rms_norm_row(const float* x, const float* weight, const float* bias, float epsilon, int64_t n,
                  float* y) {
  std::array<float, kLanes> sums{};
  for (int64_t i = 0; i < n; ++i) sums[static_cast<size_t>(i % kLanes)] += x[i] * x[i];
  float total = 0.0F;
  for (const float sum : sums) total += sum;
  const float factor = 1.0F / std::sqrt(total / static_cast<float>(n) + epsilon);
  for (int64_t i = 0; i < n; ++i) {
    const float value = x[i] * factor * weight[i];
    y[i] = bias == nullptr ? value : value + bias[i];
  }
}

}  // namespace llmq::runtime
