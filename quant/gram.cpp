#include "quant/gram.h"

#include <fmt/format.h>

#include <algorithm>

#include "formats/error.h"
#include "quant/kernels/gemm_f32/gemm_f32.h"

namespace llmq::quant {
namespace {

// Rows of the result per product: enough to keep the kernel busy, few against the half that is
// computed for nothing on the diagonal.
constexpr int64_t kRowsPerProduct = 128;

}  // namespace

void GramObserver::observe(const ConstMatrixF32& x, ThreadTeam& team) {
  if (x.n_rows == 0) return;
  if (sum_.k == 0) {
    sum_.k = x.n_cols;
    sum_.values.assign(static_cast<size_t>(sum_.k * sum_.k), 0.0);
  }
  if (x.n_cols != sum_.k) {
    throw formats::Error(formats::ErrorCode::kInternal,
                         fmt::format("rows of {} added to a Gram matrix of {}", x.n_cols, sum_.k));
  }
  const int64_t k = sum_.k;
  const int64_t m = x.n_rows;
  transposed_.resize(static_cast<size_t>(k * m));
  team.parallel_for(k, [&](int64_t column, int) {
    for (int64_t row = 0; row < m; ++row)
      transposed_[static_cast<size_t>(column * m + row)] = x.data[row * x.row_stride + column];
  });
  product_.resize(static_cast<size_t>(std::min(k, kRowsPerProduct) * k));
  for (int64_t first = 0; first < k; first += kRowsPerProduct) {
    const int64_t n = std::min(kRowsPerProduct, k - first);
    const int64_t n_cols = k - first;
    gemm_f32({.x = {transposed_.data() + first * m, n, m, m},
              .weights = transposed_.data() + first * m,
              .weight_stride = m,
              .bias = nullptr,
              .y = {product_.data(), n, n_cols, n_cols}},
             team);
    team.parallel_for(n, [&](int64_t row, int) {
      double* to = sum_.values.data() + (first + row) * k + first;
      const float* from = product_.data() + row * n_cols;
      for (int64_t column = 0; column < n_cols; ++column)
        to[column] += static_cast<double>(from[column]);
    });
  }
  sum_.n_rows += m;
}

Gram GramObserver::gram() const {
  Gram result = sum_;
  for (int64_t row = 0; row < result.k; ++row) {
    for (int64_t column = 0; column < row; ++column) {
      result.values[static_cast<size_t>(row * result.k + column)] =
          result.values[static_cast<size_t>(column * result.k + row)];
    }
  }
  return result;
}

}  // namespace llmq::quant
