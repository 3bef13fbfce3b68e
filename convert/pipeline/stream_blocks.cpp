#include "convert/pipeline/stream_blocks.h"

#include <fmt/format.h>

#include <algorithm>

#include "formats/error.h"
#include "quant/affine.h"
#include "quant/kernels/rounding/rounding.h"

namespace llmq::convert {
RowExtents row_extents(const formats::StoredTensor& tensor) {
  if (tensor.shape.size() == 2) return {tensor.shape[0], tensor.shape[1]};
  return {1, formats::shape_elements(tensor.shape)};
}

void require_finite(const formats::StoredTensor& tensor) {
  const auto [n_rows, n_cols] = row_extents(tensor);
  const quant::MatrixView rows(tensor.dtype, tensor.bytes, n_rows, n_cols);
  const auto range = quant::rounding_kernels().range[quant::float_type_index(tensor.dtype)];
  for (int64_t row = 0; row < n_rows; ++row) {
    quant::RowRange extremes{};
    range(rows.row(row), n_cols, &extremes);
    if (extremes.first_non_finite < 0) continue;
    throw formats::bad_input(
        fmt::format("tensor {}: the value in row {}, column {} is NaN or infinite; the model is "
                    "damaged, download it again",
                    tensor.name, row, extremes.first_non_finite));
  }
}

formats::StoredTensor prepared_source(const LedgerEntry& entry,
                                      const EntryPreparation& preparation) {
  formats::StoredTensor source = *entry.source;
  if (preparation.values.empty()) return source;
  source.dtype = formats::DType::kF32;
  source.bytes = std::as_bytes(preparation.values);
  if (source.bytes.size() != formats::tensor_size_bytes(source.dtype, source.shape)) {
    throw formats::Error(formats::ErrorCode::kInternal,
                         "values of another size prepared for " + source.name);
  }
  return source;
}

bool is_computed(const LedgerEntry& entry) {
  return !entry.outputs.empty() &&
         !formats::scheme_row(entry.outputs.front().rule.scheme).is_linear;
}

std::vector<Block> make_blocks(std::span<const LedgerEntry> entries) {
  std::vector<Block> blocks;
  for (size_t i = 0; i < entries.size(); ++i) {
    if (entries[i].outputs.empty() || is_computed(entries[i])) continue;
    const auto [n_rows, n_cols] = row_extents(*entries[i].source);
    const uint64_t row_bytes =
        static_cast<uint64_t>(n_cols) * formats::dtype_size_bytes(entries[i].source->dtype);
    // Even, because int4 codes of neighbouring rows may share a byte.
    const auto rows_a_block = static_cast<int64_t>(
        std::max<uint64_t>(2, kBlockBytes / std::max<uint64_t>(1, row_bytes) / 2 * 2));
    for (int64_t row = 0; row < n_rows; row += rows_a_block) {
      blocks.push_back({i, row, std::min(rows_a_block, n_rows - row)});
    }
  }
  return blocks;
}

}  // namespace llmq::convert
