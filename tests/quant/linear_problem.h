#pragma once

#include <cmath>
#include <cstdint>
#include <utility>
#include <vector>

#include "quant/gptq.h"
#include "quant/gram.h"
#include "tests/quant/random_matrix.h"

namespace llmq::quant {

/// Σ x·xᵀ over the rows of x, in float64.
inline Gram gram_of(const OwnedMatrix& x) {
  const auto k = static_cast<size_t>(x.n_cols);
  Gram gram{x.n_cols, x.n_rows, std::vector<double>(k * k, 0.0)};
  for (int64_t row = 0; row < x.n_rows; ++row) {
    const auto values = x.row(row);
    for (size_t i = 0; i < k; ++i) {
      for (size_t j = 0; j < k; ++j)
        gram.values[i * k + j] += static_cast<double>(values[i]) * values[j];
    }
  }
  return gram;
}

inline double diagonal(const Gram& gram, int64_t channel) {
  return gram.values[static_cast<size_t>(channel * (gram.k + 1))];
}

/// What the factor is of, from the words of its header: H in the order of quantization with the
/// damping on its diagonal, dead channels with the mean of it.
inline std::vector<double> damped_in_order(const Gram& gram, const GptqFactor& factor) {
  const int64_t k = gram.k;
  double mean = 0.0;
  for (int64_t i = 0; i < k; ++i) mean += diagonal(gram, i) / static_cast<double>(k);
  const auto channel = [&](int64_t i) {
    return factor.order.empty() ? i : factor.order[static_cast<size_t>(i)];
  };
  std::vector<double> damped(static_cast<size_t>(k * k));
  for (int64_t i = 0; i < k; ++i) {
    for (int64_t j = 0; j < k; ++j) {
      damped[static_cast<size_t>(i * k + j)] =
          gram.values[static_cast<size_t>(channel(i) * k + channel(j))];
    }
    double& own = damped[static_cast<size_t>(i * (k + 1))];
    own += factor.damping * mean + (own == 0.0 ? mean : 0.0);
  }
  return damped;
}

/// The inverse by Gauss and Jordan with the largest pivot of each column.
inline std::vector<double> dense_inverse(std::vector<double> a, int64_t n) {
  const auto k = static_cast<size_t>(n);
  std::vector<double> inverse(k * k, 0.0);
  for (size_t i = 0; i < k; ++i) inverse[i * k + i] = 1.0;
  for (size_t column = 0; column < k; ++column) {
    size_t best = column;
    for (size_t i = column; i < k; ++i) {
      if (std::abs(a[i * k + column]) > std::abs(a[best * k + column])) best = i;
    }
    const double pivot = a[best * k + column];
    for (size_t j = 0; j < k; ++j) {
      std::swap(a[best * k + j], a[column * k + j]);
      std::swap(inverse[best * k + j], inverse[column * k + j]);
      a[column * k + j] /= pivot;
      inverse[column * k + j] /= pivot;
    }
    for (size_t i = 0; i < k; ++i) {
      if (i == column) continue;
      const double factor = a[i * k + column];
      for (size_t j = 0; j < k; ++j) {
        a[i * k + j] -= factor * a[column * k + j];
        inverse[i * k + j] -= factor * inverse[column * k + j];
      }
    }
  }
  return inverse;
}

}  // namespace llmq::quant
