#include <cstdint>

#include "quant/kernels/gemm_w8a8/kernels.h"

namespace llmq::quant {
namespace {

// The sums of a panel as sums_avx512.h has them, in plain C++.
struct PlainSums {
  int32_t col[kPanelCols];
};
struct PlainFloats {
  float col[kPanelCols];
};
struct PlainMask {
  int64_t n_cols;
};

PlainSums add(const PlainSums& a, const PlainSums& b) {
  PlainSums sums;
  for (int i = 0; i < kPanelCols; ++i)
    sums.col[i] =
        static_cast<int32_t>(static_cast<uint32_t>(a.col[i]) + static_cast<uint32_t>(b.col[i]));
  return sums;
}
PlainFloats add(const PlainFloats& a, const PlainFloats& b) {
  PlainFloats sums;
  for (int i = 0; i < kPanelCols; ++i) sums.col[i] = a.col[i] + b.col[i];
  return sums;
}
PlainFloats multiply(const PlainFloats& a, const PlainFloats& b) {
  PlainFloats products;
  for (int i = 0; i < kPanelCols; ++i) products.col[i] = a.col[i] * b.col[i];
  return products;
}
PlainFloats to_float(const PlainSums& sums) {
  PlainFloats values;
  for (int i = 0; i < kPanelCols; ++i) values.col[i] = static_cast<float>(sums.col[i]);
  return values;
}
PlainSums load_sums(const int32_t* p, PlainMask mask = {kPanelCols}) {
  PlainSums sums{};
  for (int i = 0; i < mask.n_cols; ++i) sums.col[i] = p[i];
  return sums;
}
PlainFloats load_floats(const float* p, PlainMask mask) {
  PlainFloats values{};
  for (int i = 0; i < mask.n_cols; ++i) values.col[i] = p[i];
  return values;
}
void store_sums(int32_t* p, PlainMask mask, const PlainSums& sums) {
  for (int i = 0; i < mask.n_cols; ++i) p[i] = sums.col[i];
}
void store_floats(float* p, PlainMask mask, const PlainFloats& values) {
  for (int i = 0; i < mask.n_cols; ++i) p[i] = values.col[i];
}

struct PlainEngine {
  static constexpr bool kShift = false;
  using Sums = PlainSums;
  static PlainMask cols_mask(int64_t n_cols) { return {n_cols}; }
  static PlainFloats all(float value) {
    PlainFloats values;
    for (float& v : values.col) v = value;
    return values;
  }
};

}  // namespace
}  // namespace llmq::quant

// After the sums, whose functions its templates use.
#include "quant/kernels/gemm_w8a8/tile_multiply.h"
#include "tests/quant/kernels/amx/emulated_w8a8_table.h"

namespace llmq::quant {

const EmulatedW8A8 kEmulatedW8A8Plain = emulated_table<PlainEngine>();

}  // namespace llmq::quant
