#pragma once

#include <cmath>
#include <cstdint>
#include <random>
#include <span>
#include <vector>

#include "quant/kernels/gemm_f32/matrix_f32.h"
#include "quant/matrix_view.h"

namespace llmq::quant {

/// A float32 matrix [n_rows, n_cols], row-major, that owns its elements.
struct OwnedMatrix {
  int64_t n_rows = 0;
  int64_t n_cols = 0;
  std::vector<float> values;

  float& at(int64_t row, int64_t column) {
    return values[static_cast<size_t>(row * n_cols + column)];
  }
  [[nodiscard]] float at(int64_t row, int64_t column) const {
    return values[static_cast<size_t>(row * n_cols + column)];
  }
  [[nodiscard]] std::span<const float> row(int64_t row) const {
    return std::span(values).subspan(static_cast<size_t>(row * n_cols),
                                     static_cast<size_t>(n_cols));
  }
  [[nodiscard]] MatrixView view() const {
    return {formats::DType::kF32, std::as_bytes(std::span(values)), n_rows, n_cols};
  }
  [[nodiscard]] ConstMatrixF32 matrix() const { return {values.data(), n_rows, n_cols, n_cols}; }
};

/// Normal with deviation 1.
inline OwnedMatrix random_matrix(int64_t n_rows, int64_t n_cols, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  OwnedMatrix result{n_rows, n_cols, std::vector<float>(static_cast<size_t>(n_rows * n_cols))};
  for (float& value : result.values) value = normal(random);
  return result;
}

/// Like the inputs of a linear: channels follow a few common directions, so that they are
/// correlated, and their sizes differ by up to a hundred.
inline OwnedMatrix random_inputs(int64_t n_rows, int64_t n_cols, unsigned seed) {
  constexpr int64_t kDirections = 5;
  OwnedMatrix result = random_matrix(n_rows, n_cols, seed);
  const OwnedMatrix common = random_matrix(n_rows, kDirections, seed + 1000);
  const OwnedMatrix mix = random_matrix(kDirections, n_cols, seed + 2000);
  std::mt19937 random(seed + 3000);
  std::uniform_real_distribution<float> exponent(-1.0F, 1.0F);
  for (int64_t column = 0; column < n_cols; ++column) {
    const float size = std::pow(10.0F, exponent(random));
    for (int64_t row = 0; row < n_rows; ++row) {
      float& value = result.at(row, column);
      for (int64_t i = 0; i < kDirections; ++i) value += common.at(row, i) * mix.at(i, column);
      value *= size;
    }
  }
  return result;
}

}  // namespace llmq::quant
