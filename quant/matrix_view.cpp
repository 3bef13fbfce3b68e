#include "quant/matrix_view.h"

#include <string>

#include "formats/error.h"

namespace llmq::quant {
namespace {

void check_part(const char* what, int64_t first, int64_t count, int64_t extent) {
  if (first >= 0 && count >= 0 && first <= extent && count <= extent - first) return;
  throw formats::Error(formats::ErrorCode::kInternal,
                       std::string(what) + " " + std::to_string(first) + " + " +
                           std::to_string(count) + " exceed a matrix of " + std::to_string(extent));
}

// True when `size_bytes` hold the elements up to the end of the last row.
bool holds(size_t size_bytes, size_t element_size_bytes, int64_t n_rows, int64_t n_cols,
           int64_t row_stride) {
  if (n_rows == 0 || n_cols == 0) return true;
  int64_t needed = 0;
  return !__builtin_mul_overflow(n_rows - 1, row_stride, &needed) &&
         !__builtin_add_overflow(needed, n_cols, &needed) &&
         !__builtin_mul_overflow(needed, static_cast<int64_t>(element_size_bytes), &needed) &&
         static_cast<uint64_t>(needed) <= size_bytes;
}

}  // namespace

MatrixView::MatrixView(formats::DType dtype, std::span<const std::byte> bytes, int64_t n_rows,
                       int64_t n_cols)
    : MatrixView(dtype, bytes, n_rows, n_cols, n_cols) {}

MatrixView::MatrixView(formats::DType dtype, std::span<const std::byte> bytes, int64_t n_rows,
                       int64_t n_cols, int64_t row_stride)
    : dtype_(dtype),
      element_size_bytes_(formats::dtype_size_bytes(dtype)),
      data_(bytes.data()),
      n_rows_(n_rows),
      n_cols_(n_cols),
      row_stride_(row_stride) {
  if (!formats::is_weight_float(dtype)) {
    throw formats::bad_input("a tensor of " + std::string(formats::dtype_name(dtype)) +
                             " holds no float weights; expected BF16, F16 or F32");
  }
  if (n_rows < 0 || n_cols < 0 || row_stride < n_cols) {
    throw formats::bad_input("a matrix cannot have " + std::to_string(n_rows) + " rows of " +
                             std::to_string(n_cols) + " columns, " + std::to_string(row_stride) +
                             " elements apart");
  }
  if (!holds(bytes.size(), element_size_bytes_, n_rows, n_cols, row_stride)) {
    throw formats::bad_input("a matrix of " + std::to_string(n_rows) + " rows of " +
                             std::to_string(n_cols) + " columns, " + std::to_string(row_stride) +
                             " elements apart, does not fit into " + std::to_string(bytes.size()) +
                             " bytes of " + std::string(formats::dtype_name(dtype)));
  }
}

MatrixView MatrixView::rows(int64_t first, int64_t count) const {
  check_part("rows", first, count, n_rows_);
  MatrixView part = *this;
  if (count > 0) part.data_ = row(first);
  part.n_rows_ = count;
  return part;
}

MatrixView MatrixView::cols(int64_t first, int64_t count) const {
  check_part("columns", first, count, n_cols_);
  MatrixView part = *this;
  if (n_rows_ > 0 && count > 0) part.data_ = row(0, first);
  part.n_cols_ = count;
  return part;
}

}  // namespace llmq::quant
