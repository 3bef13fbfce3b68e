#include "quant/cholesky.h"

#include <algorithm>
#include <cmath>

namespace llmq::quant {
namespace {

constexpr int64_t kBlock = 64;

// Factors the diagonal block [first, end) in place.
bool factor_block(double* a, int64_t k, int64_t first, int64_t end) {
  for (int64_t j = first; j < end; ++j) {
    double pivot = a[j * k + j];
    for (int64_t p = first; p < j; ++p) pivot -= a[j * k + p] * a[j * k + p];
    if (!(pivot > 0.0) || !std::isfinite(pivot)) return false;
    const double root = std::sqrt(pivot);
    a[j * k + j] = root;
    for (int64_t i = j + 1; i < end; ++i) {
      double sum = a[i * k + j];
      for (int64_t p = first; p < j; ++p) sum -= a[i * k + p] * a[j * k + p];
      a[i * k + j] = sum / root;
    }
  }
  return true;
}

// Row i below the diagonal block [first, end): solves x · Lᵀ = row.
void solve_row(double* a, int64_t k, int64_t i, int64_t first, int64_t end) {
  double* row = a + i * k;
  for (int64_t j = first; j < end; ++j) {
    double sum = row[j];
    for (int64_t p = first; p < j; ++p) sum -= row[p] * a[j * k + p];
    row[j] = sum / a[j * k + j];
  }
}

}  // namespace

bool cholesky_in_place(std::span<double> a, int64_t k, ThreadTeam& team) {
  std::vector<double> panel;  // the block's columns, transposed: [block, rows below]
  for (int64_t first = 0; first < k; first += kBlock) {
    const int64_t end = std::min(k, first + kBlock);
    if (!factor_block(a.data(), k, first, end)) return false;
    const int64_t n_below = k - end;
    if (n_below == 0) break;
    panel.resize(static_cast<size_t>((end - first) * n_below));
    team.parallel_for(n_below, [&](int64_t i, int) {
      solve_row(a.data(), k, end + i, first, end);
      for (int64_t p = first; p < end; ++p)
        panel[static_cast<size_t>((p - first) * n_below + i)] = a[(end + i) * k + p];
    });
    // The trailing triangle, a row at a time; inner loops run over columns, which vectorizes
    // without changing the order of any sum.
    team.parallel_for(n_below, [&](int64_t i, int) {
      double* row = a.data() + (end + i) * k + end;
      for (int64_t p = 0; p < end - first; ++p) {
        const double* others = panel.data() + p * n_below;
        const double factor = others[i];
        for (int64_t j = 0; j <= i; ++j) row[j] -= factor * others[j];
      }
    });
  }
  return true;
}

std::vector<double> invert_lower(std::span<const double> lower, int64_t k, ThreadTeam& team) {
  std::vector<double> inverse(static_cast<size_t>(k * k), 0.0);
  const int64_t n_blocks = (k + kBlock - 1) / kBlock;
  // Columns of the inverse do not depend on each other.
  team.parallel_for(n_blocks, [&](int64_t block, int) {
    const int64_t first = block * kBlock;
    const int64_t end = std::min(k, first + kBlock);
    for (int64_t i = first; i < k; ++i) {
      double* row = inverse.data() + i * k;
      if (i < end) row[i] = 1.0;
      for (int64_t p = first; p < i; ++p) {
        const double factor = lower[static_cast<size_t>(i * k + p)];
        const double* above = inverse.data() + p * k;
        for (int64_t j = first; j < end; ++j) row[j] -= factor * above[j];
      }
      const double diagonal = lower[static_cast<size_t>(i * k + i)];
      for (int64_t j = first; j < std::min(end, i + 1); ++j) row[j] /= diagonal;
    }
  });
  return inverse;
}

}  // namespace llmq::quant
