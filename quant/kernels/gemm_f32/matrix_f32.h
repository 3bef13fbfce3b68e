#pragma once

#include <cstdint>

namespace llmq::quant {

/// Read-only view of a float32 matrix [n_rows, n_cols]: row r begins at data + r·row_stride, its
/// elements are contiguous. row_stride counts elements and is at least n_cols.
struct ConstMatrixF32 {
  const float* data = nullptr;
  int64_t n_rows = 0;
  int64_t n_cols = 0;
  int64_t row_stride = 0;
};

/// Writable view of a float32 matrix, laid out as ConstMatrixF32.
struct MatrixF32 {
  float* data = nullptr;
  int64_t n_rows = 0;
  int64_t n_cols = 0;
  int64_t row_stride = 0;
};

}  // namespace llmq::quant
