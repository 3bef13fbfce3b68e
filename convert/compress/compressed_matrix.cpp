#include "convert/compress/compressed_matrix.h"

#include <fmt/format.h>

#include <cstring>

#include "formats/error.h"
#include "formats/scheme.h"

namespace llmq::convert {
namespace {

using formats::DType;
using formats::StoredTensor;

std::string sibling(std::string_view weight, std::string_view suffix) {
  return std::string(weight.substr(0, weight.rfind('.'))) + std::string(suffix);
}

const StoredTensor& tensor_of(const formats::Checkpoint& part, const std::string& name,
                              DType dtype) {
  const StoredTensor& tensor = part.at(name);
  if (tensor.dtype == dtype && tensor.shape.size() == 1) return tensor;
  throw formats::bad_input(
      fmt::format("{}: tensor {} is {} {}; a compressed weight has {} there",
                  part.folder().string(), name, formats::dtype_name(tensor.dtype),
                  formats::shape_string(tensor.shape), formats::dtype_name(dtype)));
}

}  // namespace

bool is_compressible(std::string_view tensor, std::string_view tag) {
  return tag == formats::scheme_row(formats::Scheme::kW8A8S).tag && tensor.ends_with(".weight") &&
         tensor.find("norm") == std::string_view::npos;
}

std::string index_name(std::string_view weight) {
  return sibling(weight, ".index");
}

std::string info_name(std::string_view weight) {
  return sibling(weight, ".info");
}

CompressedMatrix open_compressed(const formats::Checkpoint& part, const std::string& weight) {
  const StoredTensor& bytes = tensor_of(part, weight, DType::kI8);
  const StoredTensor& index = tensor_of(part, index_name(weight), DType::kI8);
  const StoredTensor& info = tensor_of(part, info_name(weight), DType::kI64);
  CompressedMatrix matrix;
  matrix.info.resize(info.bytes.size() / sizeof(int64_t));
  std::memcpy(matrix.info.data(), info.bytes.data(), info.bytes.size());
  try {
    matrix.reader = std::make_unique<quant::CompressedReader>(
        quant::CompressedView{bytes.bytes, index.bytes, matrix.info});
  } catch (const formats::Error& error) {
    throw error.with_context(fmt::format("{}: tensor {}", part.folder().string(), weight));
  }
  return matrix;
}

}  // namespace llmq::convert
