// The specification of the family.
#include <cstdint>

#include "quant/kernels/gemm_w8a8/kernels.h"

namespace llmq::quant {
namespace {

int8_t weight_at(const Int8Columns& t, int64_t col, int64_t i) {
  const int8_t* panel = t.panels + col / kPanelCols * t.panel_bytes;
  return panel[(i / kGroup * kPanelCols + col % kPanelCols) * kGroup + i % kGroup];
}

// Unsigned arithmetic, which wraps where that of int32 would be undefined.
uint32_t sum_of_products(const Int8Columns& t, int64_t row, int64_t col) {
  const int8_t* x = t.x + row * t.x_stride;
  uint32_t sum = 0;
  for (int64_t i = 0; i < t.k; ++i)
    sum += static_cast<uint32_t>(int32_t{x[i]} * int32_t{weight_at(t, col, i)});
  return sum;
}

void finish(const Int8Epilogue& e, int64_t row, int64_t col, uint32_t sum) {
  if (e.quant_bias != nullptr) sum += static_cast<uint32_t>(e.quant_bias[col]);
  const auto signed_sum = static_cast<int32_t>(sum);
  if (e.sums != nullptr) {
    e.sums[row * e.stride + col] = signed_sum;
    return;
  }
  float y = static_cast<float>(signed_sum) * e.deq_scale[col];
  if (e.row_scale != nullptr) y = y * e.row_scale[row];
  if (e.bias != nullptr) y = y + e.bias[col];
  e.y[row * e.stride + col] = y;
}

void multiply_columns(const Int8Columns& t) {
  for (int64_t row = 0; row < t.m; ++row) {
    for (int64_t col = t.col_begin; col < t.col_end; ++col)
      finish(t.epilogue, row, col, sum_of_products(t, row, col));
  }
}

}  // namespace

const Int8Kernels kGemmW8A8Scalar{.isa = Isa::kScalar, .multiply_columns = multiply_columns};

}  // namespace llmq::quant
