#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "formats/dtype.h"

namespace llmq::quant {

/// A read-only matrix of float weights (BF16, F16 or F32, little-endian, any alignment) that lies
/// in memory owned by another, such as a mapped checkpoint: n_rows rows of n_cols consecutive
/// elements, each row row_stride elements after the one before. Cheap to copy; thread safe.
class MatrixView {
 public:
  /// Rows follow each other without a gap. Throws as the next one does.
  MatrixView(formats::DType dtype, std::span<const std::byte> bytes, int64_t n_rows,
             int64_t n_cols);

  /// Throws Error{kBadInput} when dtype is not one of the three, an extent is negative,
  /// row_stride < n_cols, or `bytes` is too short for the last row. Overflow-safe.
  MatrixView(formats::DType dtype, std::span<const std::byte> bytes, int64_t n_rows, int64_t n_cols,
             int64_t row_stride);

  [[nodiscard]] formats::DType dtype() const { return dtype_; }
  [[nodiscard]] int64_t n_rows() const { return n_rows_; }
  [[nodiscard]] int64_t n_cols() const { return n_cols_; }
  /// In elements.
  [[nodiscard]] int64_t row_stride() const { return row_stride_; }

  /// First element of a row, or the element at `col` of it. Unchecked: 0 <= row < n_rows,
  /// 0 <= col <= n_cols.
  [[nodiscard]] const std::byte* row(int64_t row, int64_t col = 0) const {
    return data_ + (row * row_stride_ + col) * static_cast<int64_t>(element_size_bytes_);
  }

  /// Rows [first, first + count), all columns. Throws Error{kInternal} outside the extents.
  [[nodiscard]] MatrixView rows(int64_t first, int64_t count) const;

  /// Columns [first, first + count) of every row. Throws Error{kInternal} outside the extents.
  [[nodiscard]] MatrixView cols(int64_t first, int64_t count) const;

 private:
  formats::DType dtype_;
  size_t element_size_bytes_;
  const std::byte* data_;
  int64_t n_rows_;
  int64_t n_cols_;
  int64_t row_stride_;
};

}  // namespace llmq::quant
