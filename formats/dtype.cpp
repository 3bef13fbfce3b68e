#include "formats/dtype.h"

#include <array>
#include <limits>
#include <utility>

#include "formats/error.h"

namespace llmq::formats {
namespace {

struct DTypeRow {
  DType dtype;
  std::string_view name;
  size_t size_bytes;
};

constexpr std::array<DTypeRow, 12> kDTypes{{{DType::kF64, "F64", 8},
                                            {DType::kF32, "F32", 4},
                                            {DType::kF16, "F16", 2},
                                            {DType::kBF16, "BF16", 2},
                                            {DType::kI64, "I64", 8},
                                            {DType::kI32, "I32", 4},
                                            {DType::kI16, "I16", 2},
                                            {DType::kI8, "I8", 1},
                                            {DType::kU8, "U8", 1},
                                            {DType::kBool, "BOOL", 1},
                                            {DType::kF8E4M3, "F8_E4M3", 1},
                                            {DType::kF8E5M2, "F8_E5M2", 1}}};

const DTypeRow& row_of(DType dtype) {
  return kDTypes.at(static_cast<size_t>(dtype));
}

}  // namespace

size_t dtype_size_bytes(DType dtype) {
  return row_of(dtype).size_bytes;
}

std::string_view dtype_name(DType dtype) {
  return row_of(dtype).name;
}

DType parse_dtype(std::string_view name) {
  for (const DTypeRow& row : kDTypes) {
    if (row.name == name) return row.dtype;
  }
  throw bad_input("unknown tensor dtype '" + std::string(name) + "'");
}

bool is_weight_float(DType dtype) {
  return dtype == DType::kF32 || dtype == DType::kF16 || dtype == DType::kBF16;
}

DType parse_torch_dtype(std::string_view name) {
  if (name.starts_with("torch.")) name.remove_prefix(6);
  if (name == "float16" || name == "half") return DType::kF16;
  if (name == "bfloat16") return DType::kBF16;
  if (name == "float32" || name == "float") return DType::kF32;
  throw bad_input("unsupported torch_dtype '" + std::string(name) +
                  "'; known are float16, bfloat16 and float32");
}

std::string_view torch_dtype_name(DType dtype) {
  switch (dtype) {
    case DType::kF16:
      return "float16";
    case DType::kBF16:
      return "bfloat16";
    case DType::kF32:
      return "float32";
    default:
      throw Error(ErrorCode::kInternal,
                  "no torch name for dtype " + std::string(dtype_name(dtype)));
  }
}

int64_t shape_elements(const Shape& shape) {
  int64_t n_elements = 1;
  for (int64_t extent : shape) {
    if (extent < 0) throw bad_input("negative extent in shape " + shape_string(shape));
    if (__builtin_mul_overflow(n_elements, extent, &n_elements)) {
      throw bad_input("shape " + shape_string(shape) + " has more elements than 2^63");
    }
  }
  return n_elements;
}

std::string shape_string(const Shape& shape) {
  std::string text = "[";
  for (size_t dim = 0; dim < shape.size(); ++dim) {
    if (dim > 0) text += ", ";
    text += std::to_string(shape[dim]);
  }
  return text + "]";
}

uint64_t tensor_size_bytes(DType dtype, const Shape& shape) {
  uint64_t size_bytes = 0;
  if (__builtin_mul_overflow(static_cast<uint64_t>(shape_elements(shape)),
                             static_cast<uint64_t>(dtype_size_bytes(dtype)), &size_bytes)) {
    throw bad_input("shape " + shape_string(shape) + " needs more than 2^64 bytes");
  }
  return size_bytes;
}

}  // namespace llmq::formats
