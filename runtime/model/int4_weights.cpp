#include "runtime/model/int4_weights.h"

#include <fmt/format.h>

#include <algorithm>
#include <span>

#include "formats/dialect.h"
#include "formats/error.h"
#include "quant/int4_packing.h"

namespace llmq::runtime {
namespace {

using formats::Int4Layout;
using formats::StoredTensor;

std::vector<int8_t> unpacked_codes(const StoredTensor& tensor) {
  const auto* first = reinterpret_cast<const int8_t*>(tensor.bytes.data());
  std::vector<int8_t> codes(first, first + tensor.bytes.size());
  const auto wrong =
      std::find_if(codes.begin(), codes.end(), [](int8_t code) { return code < -8 || code > 7; });
  if (wrong == codes.end()) return codes;
  throw formats::bad_input(fmt::format("{} holds {} at element {}; a code of int4 is from -8 to 7",
                                       tensor.name, *wrong, wrong - codes.begin()));
}

}  // namespace

std::vector<int8_t> int4_codes(const StoredTensor& tensor, int64_t n, int64_t k,
                               int64_t group_size) {
  if (tensor.dtype != formats::DType::kI8) {
    throw formats::bad_input(fmt::format("{} is stored as {}; codes of int4 are I8", tensor.name,
                                         formats::dtype_name(tensor.dtype)));
  }
  const auto layout = formats::int4_layout(tensor.shape, n, k);
  if (layout == Int4Layout::kOnePerByte) return unpacked_codes(tensor);
  const std::span packed(reinterpret_cast<const uint8_t*>(tensor.bytes.data()),
                         tensor.bytes.size());
  if (layout == Int4Layout::kColumnPairs && group_size == 0)
    return quant::unpack_int4_per_channel(packed, n, k);
  if (layout == Int4Layout::kRowPairs && group_size > 0)
    return quant::unpack_int4_per_group(packed, n, k);
  throw formats::bad_input(
      fmt::format("{} has shape {}, which holds no [{}, {}] codes of int4 with {}", tensor.name,
                  formats::shape_string(tensor.shape), n, k,
                  group_size > 0 ? fmt::format("a scale for each {} inputs", group_size)
                                 : "a scale for each output"));
}

}  // namespace llmq::runtime
