#include "runtime/model/compressed_weights.h"

#include <fmt/format.h>

#include <array>
#include <cstring>

#include "formats/dtype.h"
#include "formats/error.h"
#include "quant/codec/w8a8sc_transcode.h"

namespace llmq::runtime {
namespace {

using formats::bad_input;
using formats::DType;
using formats::Error;
using formats::StoredTensor;

const StoredTensor& vector_at(const formats::Checkpoint& checkpoint, const std::string& name,
                              DType dtype) {
  const StoredTensor& tensor = checkpoint.at(name);
  if (tensor.dtype != dtype || tensor.shape.size() != 1) {
    throw bad_input(fmt::format("{} is {} of shape {}, not a vector of {}", name,
                                formats::dtype_name(tensor.dtype),
                                formats::shape_string(tensor.shape), formats::dtype_name(dtype)));
  }
  return tensor;
}

}  // namespace

quant::PackedW8A8sc load_compressed(const formats::Checkpoint& checkpoint,
                                    const std::string& module, const CompressedRows& rows,
                                    quant::ThreadTeam& team) {
  const StoredTensor& weight = vector_at(checkpoint, module + ".weight", DType::kI8);
  const StoredTensor& index = vector_at(checkpoint, module + ".index", DType::kI8);
  const StoredTensor& stored_info = vector_at(checkpoint, module + ".info", DType::kI64);
  std::array<int64_t, 5> info{};
  if (stored_info.bytes.size() != sizeof(info)) {
    throw bad_input(fmt::format("{} has shape {}, not [5]", stored_info.name,
                                formats::shape_string(stored_info.shape)));
  }
  std::memcpy(info.data(), stored_info.bytes.data(), sizeof(info));
  try {
    const quant::CompressedReader reader({weight.bytes, index.bytes, info});
    if (reader.grid().n() != rows.n_stored || reader.grid().k() != rows.n_in) {
      throw bad_input(fmt::format("holds a matrix [{}, {}], but config.json makes it [{}, {}]",
                                  reader.grid().n(), reader.grid().k(), rows.n_stored, rows.n_in));
    }
    return quant::pack_compressed(reader, rows.first_row, rows.n_rows, team);
  } catch (const Error& error) {
    throw error.with_context(weight.name);
  }
}

}  // namespace llmq::runtime
