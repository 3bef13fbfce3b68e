#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace llmq::formats {

/// Element types of safetensors files. F8 types are known so that they can be named when refused.
enum class DType : uint8_t {
  kF64,
  kF32,
  kF16,
  kBF16,
  kI64,
  kI32,
  kI16,
  kI8,
  kU8,
  kBool,
  kF8E4M3,
  kF8E5M2
};

/// Bytes of one element (1, 2, 4 or 8).
size_t dtype_size_bytes(DType dtype);

/// Spelling in a safetensors header: "F32", "BF16", "I8", ...
std::string_view dtype_name(DType dtype);

/// Inverse of dtype_name. Throws Error{kBadInput} for an unknown name.
DType parse_dtype(std::string_view name);

/// True for F16, BF16, F32: the types in which float weights of a checkpoint may be stored.
bool is_weight_float(DType dtype);

/// config.json's spelling of the three weight types ("float16", "bfloat16", "float32", also with a
/// "torch." prefix). Throws Error{kBadInput} for another name.
DType parse_torch_dtype(std::string_view name);

/// "float16", "bfloat16" or "float32". Throws Error{kInternal} for another type.
std::string_view torch_dtype_name(DType dtype);

/// Extents of a tensor, outermost first, row-major. Empty means one element.
using Shape = std::vector<int64_t>;

/// Product of the extents, 1 for a scalar. Throws Error{kBadInput} when an extent is negative or
/// the product overflows int64.
int64_t shape_elements(const Shape& shape);

/// "[2, 3]"; "[]" for a scalar.
std::string shape_string(const Shape& shape);

/// shape_elements × dtype_size_bytes, overflow-checked (Error{kBadInput}).
uint64_t tensor_size_bytes(DType dtype, const Shape& shape);

}  // namespace llmq::formats
