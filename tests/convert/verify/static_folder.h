#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "tests/convert/checkpoint_writer.h"
#include "tests/tools/test_files.h"

namespace llmq::test {

/// Little-endian bytes of the values.
template <typename T>
std::string bytes_of(const std::vector<T>& values) {
  std::string bytes(values.size() * sizeof(T), '\0');
  if (!values.empty()) std::memcpy(bytes.data(), values.data(), bytes.size());
  return bytes;
}

/// A folder with static int8 linears (W8A8) as the vendor's newer tool writes them, computed here
/// from the published formulas: codes, weight_scale and weight_offset [n], input_scale F32,
/// input_offset I8, quant_bias I32, deq_scale F32 (bf16 model) or float32 bits in I64 (fp16 model).
struct StaticFolder {
  OrderedJson config = tiny_qwen2_config();
  OrderedJson description = {{"model_quant_type", "W8A8"},
                             {"version", "1.0.0"},
                             {"group_size", 0},
                             {"metadata", OrderedJson::object()}};
  std::vector<RawTensor> tensors;

  explicit StaticFolder(const std::string& dtype = "bfloat16") {
    config["torch_dtype"] = dtype;
    config["quantize"] = "w8a8";
    const std::vector<RawTensor> source = tiny_qwen2_tensors();
    for (const RawTensor& tensor : source) {
      const size_t at = tensor.name.find("_proj.weight");
      if (at == std::string::npos) {
        add(tensor, "FLOAT");
      } else {
        add_linear(tensor.name.substr(0, at + 5), tensor.shape, source, dtype == "bfloat16");
      }
    }
  }

  RawTensor& at(const std::string& name) { return tensor_named(tensors, name); }

  template <typename T>
  void set(const std::string& name, size_t element, T value) {
    std::memcpy(at(name).bytes.data() + element * sizeof(T), &value, sizeof value);
  }
  template <typename T>
  T get(const std::string& name, size_t element) {
    T value;
    std::memcpy(&value, at(name).bytes.data() + element * sizeof(T), sizeof value);
    return value;
  }
  /// Another dtype, shape and content for a tensor.
  void replace(const RawTensor& tensor) { at(tensor.name) = tensor; }

  /// Takes a tensor and its key out.
  void remove(const std::string& name) {
    std::erase_if(tensors, [&](const RawTensor& tensor) { return tensor.name == name; });
    description.erase(name);
  }

  void write(const std::filesystem::path& folder) const {
    std::filesystem::create_directories(folder);
    write_file(folder / "config.json", config.dump());
    write_file(folder / "quant_model_description.json", description.dump());
    write_file(folder / "quant_model_weights.safetensors", safetensors_file(tensors));
  }

  void add(RawTensor tensor, const std::string& tag) {
    description[tensor.name] = tag;
    tensors.push_back(std::move(tensor));
  }

 private:
  void add_linear(const std::string& module, const std::vector<int64_t>& shape,
                  const std::vector<RawTensor>& source, bool is_bf16) {
    const auto n = static_cast<size_t>(shape[0]);
    const auto k = static_cast<size_t>(shape[1]);
    std::vector<float> bias(n, 0.0F);
    for (const RawTensor& tensor : source) {
      if (tensor.name == module + ".bias") bias = tensor_values(tensor);
    }
    const float input_scale = 0.03125F;
    const int8_t input_offset = -5;
    std::vector<int8_t> codes(n * k);
    std::vector<float> scales(n);
    std::vector<float> deq_scales(n);
    std::vector<int64_t> wide(n);
    std::vector<int32_t> quant_bias(n);
    for (size_t row = 0; row < n; ++row) {
      double sum = 0;
      for (size_t col = 0; col < k; ++col) {
        const auto code = static_cast<int>((row * 31 + col * 17 + row * col) % 255) - 127;
        codes[row * k + col] = static_cast<int8_t>(code);
        sum += code;
      }
      scales[row] = 0.001F + 0.0001F * static_cast<float>(row % 7);
      deq_scales[row] = input_scale * scales[row];
      uint32_t bits = 0;
      std::memcpy(&bits, &deq_scales[row], sizeof bits);
      wide[row] = bits;
      quant_bias[row] = static_cast<int32_t>(
          std::nearbyint(static_cast<double>(bias[row]) / static_cast<double>(deq_scales[row]) -
                         input_offset * sum));
    }
    const auto rows = static_cast<int64_t>(n);
    add({module + ".weight", "I8", shape, bytes_of(codes)}, "W8A8");
    add({module + ".weight_scale", "F32", {rows}, bytes_of(scales)}, "W8A8");
    add({module + ".weight_offset", "F32", {rows}, bytes_of(std::vector<float>(n))}, "W8A8");
    add({module + ".input_scale", "F32", {1}, bytes_of(std::vector<float>{input_scale})}, "W8A8");
    add({module + ".input_offset", "I8", {1}, bytes_of(std::vector<int8_t>{input_offset})}, "W8A8");
    add({module + ".quant_bias", "I32", {rows}, bytes_of(quant_bias)}, "W8A8");
    add(is_bf16 ? RawTensor{module + ".deq_scale", "F32", {rows}, bytes_of(deq_scales)}
                : RawTensor{module + ".deq_scale", "I64", {rows}, bytes_of(wide)},
        "W8A8");
  }
};

}  // namespace llmq::test
