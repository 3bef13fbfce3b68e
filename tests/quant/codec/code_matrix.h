#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <random>
#include <vector>

#include "quant/codec/w8a8sc.h"
#include "quant/sparse.h"

namespace llmq::quant {

/// An int8 matrix [n, k] that owns its codes, which lie `gap` more apart than k.
struct CodeMatrix {
  int64_t n = 0;
  int64_t k = 0;
  int64_t gap = 0;
  std::vector<int8_t> codes;

  CodeMatrix(int64_t n_rows, int64_t n_cols, int64_t gap_cols = 0)
      : n(n_rows),
        k(n_cols),
        gap(gap_cols),
        codes(static_cast<size_t>(n_rows * (n_cols + gap_cols))) {}

  [[nodiscard]] formats::ConstCodes view() const { return {codes.data(), n, k, k + gap}; }
  [[nodiscard]] formats::Codes view() { return {codes.data(), n, k, k + gap}; }
  bool operator==(const CodeMatrix& other) const = default;
};

inline CodeMatrix filled_matrix(int64_t n, int64_t k, const std::function<int()>& code) {
  CodeMatrix matrix(n, k);
  for (int8_t& c : matrix.codes) c = static_cast<int8_t>(code());
  return matrix;
}

/// What W8A8S makes of weights that `weight` draws: rows on the grid of sparse_threshold.
inline CodeMatrix sparse_matrix(int64_t n, int64_t k, const SparseSpec& spec,
                                const std::function<float()>& weight) {
  CodeMatrix matrix(n, k);
  std::vector<float> row(static_cast<size_t>(k));
  for (int64_t i = 0; i < n; ++i) {
    std::generate(row.begin(), row.end(), weight);
    const auto scale = static_cast<float>(sparse_threshold(row, spec)) / kSparseSteps;
    std::transform(row.begin(), row.end(), matrix.codes.begin() + i * k, [&](float w) {
      return static_cast<int8_t>(std::clamp(std::nearbyint(w / scale), -127.0F, 127.0F));
    });
  }
  return matrix;
}

inline CodeMatrix gaussian_matrix(int64_t n, int64_t k, const SparseSpec& spec, unsigned seed = 1) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  return sparse_matrix(n, k, spec, [&] { return normal(random); });
}

inline SparseSpec sigma(double factor) {
  return {.use_sigma = true, .sigma_factor = factor};
}

inline CompressedView view_of(const CompressedCodes& compressed) {
  return {compressed.weight, compressed.index, compressed.info};
}

/// What the reader makes of compressed codes.
inline CodeMatrix decoded(const CompressedCodes& compressed, ThreadTeam& team,
                          Isa isa = active_isa()) {
  const CompressedReader reader(view_of(compressed));
  CodeMatrix matrix(reader.grid().n(), reader.grid().k());
  reader.decode(matrix.view(), team, isa);
  return matrix;
}

}  // namespace llmq::quant
