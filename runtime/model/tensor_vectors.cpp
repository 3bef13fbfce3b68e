#include "runtime/model/tensor_vectors.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

#include "formats/dialect.h"
#include "formats/error.h"
#include "formats/float16.h"
#include "quant/static_w8a8.h"

namespace llmq::runtime {

using formats::bad_input;
using formats::DType;
using formats::Shape;
using formats::StoredTensor;

void check_shape(const StoredTensor& tensor, const Shape& shape) {
  if (formats::accepts_shape(tensor.shape, shape)) return;
  throw bad_input(fmt::format("{} has shape {} where config.json asks for {}", tensor.name,
                              formats::shape_string(tensor.shape), formats::shape_string(shape)));
}

void check_positive(const std::string& name, std::span<const float> scales) {
  const auto wrong = std::find_if(scales.begin(), scales.end(), [](float s) { return !(s > 0); });
  if (wrong == scales.end()) return;
  throw bad_input(fmt::format("{} holds {} at element {}; a scale is above zero", name, *wrong,
                              wrong - scales.begin()));
}

namespace {

std::vector<float> to_float(const StoredTensor& tensor) {
  const size_t element = formats::dtype_size_bytes(tensor.dtype);
  std::vector<float> values(tensor.bytes.size() / element);
  if (tensor.dtype == DType::kF32) {
    std::memcpy(values.data(), tensor.bytes.data(), tensor.bytes.size());
    return values;
  }
  for (size_t i = 0; i < values.size(); ++i) {
    if (tensor.dtype == DType::kI8) {
      values[i] = static_cast<float>(static_cast<int8_t>(tensor.bytes[i]));
      continue;
    }
    uint16_t bits = 0;
    std::memcpy(&bits, tensor.bytes.data() + i * element, element);
    values[i] =
        tensor.dtype == DType::kBF16 ? formats::bf16_to_float(bits) : formats::fp16_to_float(bits);
  }
  return values;
}

}  // namespace

std::span<const float> TensorVectors::floats(const std::string& name, const Shape& shape) {
  const StoredTensor& tensor = checkpoint_.at(name);
  check_shape(tensor, shape);
  if (!formats::is_weight_float(tensor.dtype)) {
    throw bad_input(fmt::format("{} is stored as {}; it must be F32, F16 or BF16", name,
                                formats::dtype_name(tensor.dtype)));
  }
  return keep(name, to_float(tensor));
}

std::span<const float> TensorVectors::scales(const std::string& name, const Shape& shape) {
  const std::span<const float> values = floats(name, shape);
  check_positive(name, values);
  return values;
}

std::span<const float> TensorVectors::offsets(const std::string& name, const Shape& shape) {
  const StoredTensor& tensor = checkpoint_.at(name);
  std::span<const float> values;
  if (tensor.dtype == DType::kI8) {
    check_shape(tensor, shape);
    std::vector<int8_t> codes(tensor.bytes.size());
    std::memcpy(codes.data(), tensor.bytes.data(), codes.size());
    values = keep(name, std::vector<float>(codes.begin(), codes.end()));
  } else {
    values = floats(name, shape);
  }
  for (const float value : values) {
    if (value == std::nearbyint(value) && value >= -128 && value <= 127) continue;
    throw bad_input(fmt::format(
        "{} holds {}; an offset of codes is a whole number from -128 to 127", name, value));
  }
  return values;
}

std::span<const float> TensorVectors::scheme_floats(const std::string& name,
                                                    const formats::TensorRule& rule,
                                                    const Shape& shape) {
  const StoredTensor& tensor = checkpoint_.at(name);
  check_shape(tensor, shape);
  if (!formats::accepts_dtype(rule, tensor.dtype, model_dtype_)) {
    throw bad_input(fmt::format("{} is stored as {}, which {} may not be", name,
                                formats::dtype_name(tensor.dtype), rule.suffix.substr(1)));
  }
  return keep(name, to_float(tensor));
}

std::span<const float> TensorVectors::deq_scale(const std::string& name, const Shape& shape) {
  const StoredTensor& tensor = checkpoint_.at(name);
  if (tensor.dtype != DType::kI64) return floats(name, shape);
  check_shape(tensor, shape);
  std::vector<float> values(tensor.bytes.size() / sizeof(int64_t));
  for (size_t i = 0; i < values.size(); ++i) {
    int64_t bits = 0;
    std::memcpy(&bits, tensor.bytes.data() + i * sizeof(bits), sizeof(bits));
    if (!quant::is_widened_deq_scale(bits)) {
      throw bad_input(
          fmt::format("{} holds {:#x} at element {}, which is no float32 scale widened to 64 bits",
                      name, bits, i));
    }
    values[i] = quant::narrow_deq_scale(bits);
  }
  return keep(name, std::move(values));
}

std::span<const int32_t> TensorVectors::integers(const std::string& name, const Shape& shape) {
  const StoredTensor& tensor = checkpoint_.at(name);
  check_shape(tensor, shape);
  if (tensor.dtype != DType::kI32) {
    throw bad_input(
        fmt::format("{} is stored as {}; it must be I32", name, formats::dtype_name(tensor.dtype)));
  }
  std::vector<int32_t> values(tensor.bytes.size() / sizeof(int32_t));
  std::memcpy(values.data(), tensor.bytes.data(), tensor.bytes.size());
  size_bytes_ += tensor.bytes.size();
  return integers_.emplace_back(std::move(values));
}

std::span<const float> TensorVectors::keep(const std::string& name, std::vector<float> values) {
  const auto wrong =
      std::find_if(values.begin(), values.end(), [](float value) { return !std::isfinite(value); });
  if (wrong != values.end()) {
    throw bad_input(fmt::format("{} holds {} at element {}; the file is damaged", name, *wrong,
                                wrong - values.begin()));
  }
  size_bytes_ += values.size() * sizeof(float);
  return floats_.emplace_back(std::move(values));
}

}  // namespace llmq::runtime
