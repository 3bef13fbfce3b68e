#include "tests/runtime/model/quantized_model.h"

#include <algorithm>
#include <cmath>

namespace llmq::testing {
namespace {

using formats::DType;

struct Row {
  std::vector<int8_t> codes;
  float scale = 1.0F;
  float offset = 0.0F;
};

Row quantize_row(const float* w, int64_t n, bool is_asymmetric) {
  const auto [smallest, largest] = std::minmax_element(w, w + n);
  Row row;
  if (is_asymmetric) {
    row.scale = (*largest - *smallest) / 255.0F;
    row.offset = std::nearbyint(-128.0F - *smallest / row.scale);
  } else {
    row.scale = std::max(std::abs(*smallest), std::abs(*largest)) / 127.0F;
  }
  for (int64_t i = 0; i < n; ++i) {
    const float code = std::nearbyint(w[i] / row.scale) + row.offset;
    row.codes.push_back(static_cast<int8_t>(std::clamp(code, -128.0F, 127.0F)));
  }
  return row;
}

}  // namespace

QuantizedW8A16 quantize_w8a16(NewTensors& tensors) {
  QuantizedW8A16 result;
  result.description = {{"model_quant_type", "W8A16"}, {"version", "1.0.0"}, {"group_size", 0}};
  const NewTensors source = tensors;
  for (const auto& [name, tensor] : source) {
    const std::vector<float> w = float_values(tensor);
    const bool is_linear = tensor.shape.size() == 2 && name.find("embed") == std::string::npos;
    if (!is_linear) {
      result.description[name] = "FLOAT";
      result.dequantized[name] = new_tensor(DType::kF32, tensor.shape, w);
      continue;
    }
    const int64_t n = tensor.shape[0];
    const int64_t k = tensor.shape[1];
    std::vector<int8_t> codes;
    std::vector<float> scales;
    std::vector<float> offsets;
    std::vector<float> values;
    for (int64_t i = 0; i < n; ++i) {
      const Row row = quantize_row(w.data() + i * k, k, i % 2 == 1);
      codes.insert(codes.end(), row.codes.begin(), row.codes.end());
      scales.push_back(row.scale);
      offsets.push_back(row.offset);
      for (const int8_t code : row.codes)
        values.push_back((static_cast<float>(code) - row.offset) * row.scale);
    }
    const std::string module = name.substr(0, name.size() - std::string(".weight").size());
    tensors[name] = new_tensor(DType::kI8, tensor.shape, codes);
    tensors[module + ".weight_scale"] = new_tensor(DType::kF32, {n, 1}, scales);
    tensors[module + ".weight_offset"] = new_tensor(DType::kF32, {n, 1}, offsets);
    for (const char* suffix : {".weight", ".weight_scale", ".weight_offset"})
      result.description[module + suffix] = "W8A16";
    result.dequantized[name] = new_tensor(DType::kF32, tensor.shape, values);
  }
  return result;
}

}  // namespace llmq::testing
