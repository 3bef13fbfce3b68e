#pragma once

// For files compiled for one instruction set; internal linkage.

#include <cstdint>

#include "quant/kernels/elementwise/elementwise.h"

namespace llmq::quant {
namespace {

// Rows [first, first + n) of `rows`, those behind them as their next.
inline StoredRows rows_from(const StoredRows& rows, int64_t first, int64_t n) {
  const auto* data = static_cast<const unsigned char*>(rows.data);
  StoredRows part = rows;
  part.data = data + first * rows.row_size_bytes;
  part.n_rows = n;
  if (rows.next == nullptr || first + n < rows.n_rows)
    part.next = data + (first + n) * rows.row_size_bytes;
  return part;
}

}  // namespace
}  // namespace llmq::quant
