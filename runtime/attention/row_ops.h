#pragma once

#include <cstdint>

namespace llmq::runtime {

/// Largest of x[0, n), n >= 1. NaN where an element is NaN.
float row_max(const float* x, int64_t n);

/// x[i] = exp(x[i] − max) for i in [0, n); returns their sum.
float exp_row(float* x, int64_t n, float max);

/// acc[c] += Σ_j weights[j] · rows[j, c], in the order of j. rows [n_rows, n_cols].
void add_weighted_rows(const float* weights, const float* rows, int64_t n_rows, int64_t n_cols,
                       float* acc);

/// gate[i] = gate[i] / (1 + exp(−gate[i])) · up[i].
void silu_multiply_row(const float* up, float* gate, int64_t n);

/// y = x / √(mean(x²) + epsilon) · weight (+ bias where not null); y may be x.
void rms_norm_row(const float* x, const float* weight, const float* bias, float epsilon, int64_t n,
                  float* y);

}  // namespace llmq::runtime
