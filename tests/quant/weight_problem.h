#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <vector>

#include "quant/weight_quantizer.h"
#include "tests/quant/linear_problem.h"

namespace llmq::quant {

inline OwnedMatrix random_weights(int64_t n, int64_t k, unsigned seed) {
  OwnedMatrix weights = random_matrix(n, k, seed);
  for (float& w : weights.values) w *= 0.05F;
  return weights;
}

inline LinearInputs inputs_of(const OwnedMatrix& x, const GptqOrder& order = {}) {
  ThreadTeam team(2);
  LinearInputs inputs{gram_of(x), {}};
  inputs.factor = gptq_factor(inputs.gram, order, team);
  return inputs;
}

inline AffineMatrix quantized(const OwnedMatrix& weights, const WeightSpec& spec,
                              const LinearInputs* inputs = nullptr) {
  ThreadTeam team(2);
  return quantize_weight(weights.view(), spec, inputs, team);
}

inline void expect_same(const AffineMatrix& a, const AffineMatrix& b) {
  EXPECT_EQ(a.n_rows, b.n_rows);
  EXPECT_EQ(a.n_cols, b.n_cols);
  EXPECT_EQ(a.n_groups, b.n_groups);
  EXPECT_EQ(a.group_size, b.group_size);
  EXPECT_EQ(a.codes, b.codes);
  EXPECT_EQ(a.scales, b.scales);
  EXPECT_EQ(a.offsets, b.offsets);
  EXPECT_EQ(a.n_subnormal_scales, b.n_subnormal_scales);
}

inline AffineMatrix plain(const OwnedMatrix& weights, const WeightSpec& spec) {
  ThreadTeam team(1);
  const bool grouped = spec.group_size > 0;
  return quantize_affine(weights.view(),
                         {.format = spec.format,
                          .granularity = grouped ? Granularity::kGroup : Granularity::kChannel,
                          .group_size = spec.group_size},
                         team);
}

inline size_t set_of(const AffineMatrix& matrix, int64_t row, int64_t column) {
  const int64_t group = matrix.group_size > 0 ? column / matrix.group_size : 0;
  return static_cast<size_t>(row * matrix.n_groups + group);
}

inline double error_at(const OwnedMatrix& weights, const AffineMatrix& matrix, int64_t row,
                       int64_t column) {
  const size_t set = set_of(matrix, row, column);
  const double code = matrix.codes[static_cast<size_t>(row * matrix.n_cols + column)];
  return weights.at(row, column) - (code - matrix.offsets[set]) * matrix.scales[set];
}

// Squared error of each set of parameters, weighted by column where weights are given.
inline std::vector<double> errors_of_sets(const OwnedMatrix& weights, const AffineMatrix& matrix,
                                          const Gram* gram = nullptr) {
  std::vector<double> errors(matrix.scales.size(), 0.0);
  for (int64_t row = 0; row < matrix.n_rows; ++row) {
    for (int64_t column = 0; column < matrix.n_cols; ++column) {
      const double error = error_at(weights, matrix, row, column);
      const double weight = gram == nullptr ? 1.0 : diagonal(*gram, column);
      errors[set_of(matrix, row, column)] += weight * error * error;
    }
  }
  return errors;
}

inline double sum_of(const std::vector<double>& values) {
  double sum = 0.0;
  for (const double value : values) sum += value;
  return sum;
}

/// Formats, groups (a shorter one at the end among them) and kinds that every promise is tried on.
inline std::vector<WeightSpec> all_specs() {
  std::vector<WeightSpec> specs;
  for (const int n_bits : {4, 8}) {
    for (const bool symmetric : {true, false}) {
      for (const int64_t group_size : {0, 16, 9}) {
        for (const WeightMethod::Kind kind :
             {WeightMethod::Kind::kRound, WeightMethod::Kind::kSsz, WeightMethod::Kind::kGptq}) {
          specs.push_back({.format = {.n_bits = n_bits, .symmetric = symmetric},
                           .group_size = group_size,
                           .method = {.kind = kind}});
        }
      }
    }
  }
  return specs;
}

}  // namespace llmq::quant
