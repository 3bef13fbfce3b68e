#include "tests/runtime/model/quantized_model.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "formats/description.h"
#include "formats/float16.h"

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

W8A8Linear w8a8_linear(const NewTensor& weight, const std::vector<float>& bias,
                       const W8A8Input& input) {
  W8A8Linear linear;
  linear.n = weight.shape[0];
  linear.k = weight.shape[1];
  linear.input = input;
  linear.float_weight = float_values(weight);
  linear.float_bias = bias;
  linear.float_bias.resize(static_cast<size_t>(linear.n));
  for (int64_t i = 0; i < linear.n; ++i) {
    const Row row = quantize_row(linear.float_weight.data() + i * linear.k, linear.k, false);
    linear.codes.insert(linear.codes.end(), row.codes.begin(), row.codes.end());
    double code_sum = 0.0;
    for (const int8_t code : row.codes) code_sum += code;
    const float deq_scale = input.scale * row.scale;
    const double quant_bias =
        static_cast<double>(linear.float_bias[static_cast<size_t>(i)]) / deq_scale -
        input.offset * code_sum;
    linear.weight_scale.push_back(row.scale);
    linear.deq_scale.push_back(deq_scale);
    linear.quant_bias.push_back(static_cast<int32_t>(std::nearbyint(quant_bias)));
  }
  return linear;
}

}  // namespace

NewTensor float_tensor(DType dtype, const formats::Shape& shape, const std::vector<float>& values) {
  if (dtype == DType::kF32) return new_tensor(dtype, shape, values);
  std::vector<uint16_t> bits;
  for (const float value : values) {
    bits.push_back(dtype == DType::kBF16 ? formats::float_to_bf16(value)
                                         : formats::float_to_fp16(value));
  }
  return new_tensor(dtype, shape, bits);
}

NewTensor widened_tensor(const formats::Shape& shape, const std::vector<float>& values) {
  std::vector<int64_t> bits;
  for (const float value : values) bits.push_back(std::bit_cast<uint32_t>(value));
  return new_tensor(DType::kI64, shape, bits);
}

void W8A8Folder::write(const std::filesystem::path& path) const {
  write_model(path, config, tensors);
  formats::write_text_file(path / formats::kDescriptionFile, description.dump());
}

W8A8Folder w8a8_folder(const std::string& golden_name,
                       const std::map<std::string, W8A8Input>& inputs) {
  W8A8Folder folder;
  folder.config = formats::read_json_file(golden_root() / golden_name / "config.json");
  folder.description = {{"model_quant_type", "W8A8"}, {"version", "1.0.0"}, {"group_size", 0}};
  const DType dtype = formats::parse_torch_dtype(folder.config["torch_dtype"].get<std::string>());
  const NewTensors source = read_tensors(golden_root() / golden_name);
  folder.tensors = source;
  for (const auto& [name, tensor] : source) {
    folder.description[name] = "FLOAT";
    if (tensor.shape.size() != 2 || name.find("embed") != std::string::npos) continue;
    const std::string module = name.substr(0, name.size() - std::string(".weight").size());
    const auto bias = source.find(module + ".bias");
    const auto input = inputs.find(module);
    const W8A8Linear linear = w8a8_linear(
        tensor, bias == source.end() ? std::vector<float>() : float_values(bias->second),
        input == inputs.end() ? W8A8Input() : input->second);
    const int64_t n = linear.n;
    NewTensors stored;
    stored[".weight"] = new_tensor(DType::kI8, tensor.shape, linear.codes);
    stored[".input_scale"] = float_tensor(dtype, {1}, {linear.input.scale});
    stored[".input_offset"] = float_tensor(dtype, {1}, {linear.input.offset});
    stored[".quant_bias"] = new_tensor(DType::kI32, {n}, linear.quant_bias);
    stored[".deq_scale"] = dtype == DType::kBF16 ? new_tensor(DType::kF32, {n}, linear.deq_scale)
                                                 : widened_tensor({n}, linear.deq_scale);
    stored[".weight_scale"] = new_tensor(DType::kF32, {n, 1}, linear.weight_scale);
    stored[".weight_offset"] =
        new_tensor(DType::kF32, {n, 1}, std::vector<float>(static_cast<size_t>(n), 0.0F));
    for (const auto& [suffix, value] : stored) {
      folder.tensors[module + suffix] = value;
      folder.description[module + suffix] = "W8A8";
    }
    if (bias != source.end()) folder.description[bias->first] = "W8A8";
    folder.linears[module] = linear;
  }
  return folder;
}

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
