#include "runtime/model/int4_weights.h"

#include <fmt/format.h>

#include "formats/dialect.h"
#include "formats/error.h"

namespace llmq::runtime {

using formats::Int4Layout;

quant::PackedInt4 packed_int4(const formats::StoredTensor& tensor, int64_t n, int64_t k,
                              int64_t group_size, quant::ThreadTeam& team) {
  if (tensor.dtype != formats::DType::kI8) {
    throw formats::bad_input(fmt::format("{} is stored as {}; codes of int4 are I8", tensor.name,
                                         formats::dtype_name(tensor.dtype)));
  }
  const auto layout = formats::int4_layout(tensor.shape, n, k);
  const bool fits = layout == Int4Layout::kOnePerByte ||
                    (layout == Int4Layout::kColumnPairs && group_size == 0) ||
                    (layout == Int4Layout::kRowPairs && group_size > 0);
  if (!fits) {
    throw formats::bad_input(
        fmt::format("{} has shape {}, which holds no [{}, {}] codes of int4 with {}", tensor.name,
                    formats::shape_string(tensor.shape), n, k,
                    group_size > 0 ? fmt::format("a scale for each {} inputs", group_size)
                                   : "a scale for each output"));
  }
  try {
    return quant::PackedInt4::pack(tensor.bytes, *layout, n, k, team);
  } catch (const formats::Error& error) {
    throw error.with_context(tensor.name);
  }
}

}  // namespace llmq::runtime
