#include "tests/runtime/model/scheme_folders.h"

#include <algorithm>
#include <cmath>
#include <set>

#include "formats/description.h"
#include "formats/file.h"

namespace llmq::testing {
namespace {

using formats::DType;

/// One group of a row.
struct Group {
  std::vector<int8_t> codes;
  float scale = 1.0F;
  float offset = 0.0F;
};

Group quantize_group(const float* w, int64_t n, int bits, bool is_asymmetric) {
  const auto top = static_cast<float>((1 << (bits - 1)) - 1);
  const auto [smallest, largest] = std::minmax_element(w, w + n);
  Group group;
  if (is_asymmetric) {
    const float low = std::min(*smallest, 0.0F);
    const float high = std::max(*largest, 0.0F);
    group.scale = std::max((high - low) / (2.0F * top + 1.0F), 0x1p-23F);
    group.offset = std::nearbyint(-low / group.scale) - top - 1.0F;
  } else {
    group.scale = std::max(std::max(std::abs(*smallest), std::abs(*largest)) / top, 0x1p-23F);
  }
  for (int64_t i = 0; i < n; ++i) {
    const float code = std::nearbyint(w[i] / group.scale) + group.offset;
    group.codes.push_back(static_cast<int8_t>(std::clamp(code, -top - 1.0F, top)));
  }
  return group;
}

uint8_t nibble(int8_t code) {
  return static_cast<uint8_t>(code & 15);
}

NewTensor packed_tensor(const std::vector<int8_t>& codes, int64_t n, int64_t k, bool by_rows) {
  std::vector<int8_t> bytes;
  const int64_t n_rows = by_rows ? n / 2 : n;
  const int64_t n_cols = by_rows ? k : k / 2;
  for (int64_t row = 0; row < n_rows; ++row) {
    for (int64_t col = 0; col < n_cols; ++col) {
      const int64_t low = by_rows ? 2 * row * k + col : row * k + 2 * col;
      const int64_t high = by_rows ? low + k : low + 1;
      bytes.push_back(static_cast<int8_t>(nibble(codes[static_cast<size_t>(low)]) |
                                          nibble(codes[static_cast<size_t>(high)]) << 4));
    }
  }
  return new_tensor(DType::kI8, {n_rows, n_cols}, bytes);
}

}  // namespace

W8A8Folder int8_folder(const std::string& golden_name, const std::string& tag) {
  W8A8Folder folder = w8a8_folder(golden_name);
  folder.description["model_quant_type"] = tag;
  std::set<std::string> dropped;
  if (tag == "W8A8_DYNAMIC")
    dropped = {".input_scale", ".input_offset", ".quant_bias", ".deq_scale"};
  if (tag == "W8A8S") dropped = {".weight_scale", ".weight_offset"};
  for (const auto& [module, linear] : folder.linears) {
    for (const char* suffix : {".weight", ".input_scale", ".input_offset", ".quant_bias",
                               ".deq_scale", ".weight_scale", ".weight_offset"}) {
      folder.description[module + suffix] = tag;
      if (!dropped.contains(suffix)) continue;
      folder.tensors.erase(module + suffix);
      folder.description.erase(module + suffix);
    }
    if (folder.tensors.contains(module + ".bias")) folder.description[module + ".bias"] = "FLOAT";
  }
  return folder;
}

// As in w8a8_formula.cpp: a quotient, sum or product of two float32 values rounded from float64 is
// rounded once.
std::vector<float> dynamic_product(const W8A8Linear& linear, const Values& x) {
  std::vector<float> y;
  std::vector<int64_t> codes(static_cast<size_t>(linear.k));
  for (int64_t row = 0; row < x.n_rows; ++row) {
    const float* from = x.data.data() + row * x.n_cols;
    float largest = 0.0F;
    for (int64_t i = 0; i < linear.k; ++i) largest = std::max(largest, std::abs(from[i]));
    const float scale =
        std::max(static_cast<float>(static_cast<double>(largest) / 127.0), 0x1p-23F);
    for (int64_t i = 0; i < linear.k; ++i) {
      const auto quotient = static_cast<float>(static_cast<double>(from[i]) / scale);
      codes[static_cast<size_t>(i)] = static_cast<int64_t>(
          std::clamp(std::nearbyint(static_cast<double>(quotient)), -127.0, 127.0));
    }
    for (int64_t col = 0; col < linear.n; ++col) {
      int64_t sum = 0;
      for (int64_t i = 0; i < linear.k; ++i)
        sum +=
            codes[static_cast<size_t>(i)] * linear.codes[static_cast<size_t>(col * linear.k + i)];
      const auto at = static_cast<size_t>(col);
      const auto rounded = static_cast<double>(static_cast<float>(sum));
      const auto by_weight = static_cast<float>(rounded * linear.weight_scale[at]);
      const auto by_row = static_cast<float>(static_cast<double>(by_weight) * scale);
      y.push_back(static_cast<float>(static_cast<double>(by_row) + linear.float_bias[at]));
    }
  }
  return y;
}

void WeightOnlyFolder::write(const std::filesystem::path& path) const {
  write_model(path, config, tensors);
  formats::write_text_file(path / formats::kDescriptionFile, description.dump());
}

WeightOnlyFolder weight_only_folder(const std::string& golden_name,
                                    const WeightOnlyFormat& format) {
  WeightOnlyFolder folder;
  folder.config = formats::read_json_file(golden_root() / golden_name / "config.json");
  folder.description = {
      {"model_quant_type", format.tag}, {"version", "1.0.0"}, {"group_size", format.group_size}};
  const bool is_int4 = format.tag == "W4A16";
  const NewTensors source = read_tensors(golden_root() / golden_name);
  folder.tensors = source;
  for (const auto& [name, tensor] : source) {
    const std::vector<float> w = float_values(tensor);
    folder.description[name] = "FLOAT";
    folder.dequantized[name] = new_tensor(DType::kF32, tensor.shape, w);
    if (tensor.shape.size() != 2 || name.find("embed") != std::string::npos) continue;
    const int64_t n = tensor.shape[0];
    const int64_t k = tensor.shape[1];
    const int64_t n_in_group = format.group_size > 0 ? format.group_size : k;
    std::vector<int8_t> codes;
    std::vector<float> scales;
    std::vector<float> offsets;
    std::vector<float> values;
    for (int64_t at = 0; at < n * k; at += n_in_group) {
      const Group group =
          quantize_group(w.data() + at, n_in_group, is_int4 ? 4 : 8, format.is_asymmetric);
      codes.insert(codes.end(), group.codes.begin(), group.codes.end());
      scales.push_back(group.scale);
      offsets.push_back(group.offset);
      for (const int8_t code : group.codes)
        values.push_back((static_cast<float>(code) - group.offset) * group.scale);
    }
    const std::string module = name.substr(0, name.size() - std::string(".weight").size());
    folder.tensors[name] = is_int4 && format.is_packed
                               ? packed_tensor(codes, n, k, format.group_size > 0)
                               : new_tensor(DType::kI8, tensor.shape, codes);
    folder.tensors[module + ".weight_scale"] = new_tensor(DType::kF32, {n, k / n_in_group}, scales);
    folder.tensors[module + ".weight_offset"] =
        new_tensor(DType::kF32, {n, k / n_in_group}, offsets);
    for (const char* suffix : {".weight", ".weight_scale", ".weight_offset"})
      folder.description[module + suffix] = format.tag;
    folder.dequantized[name] = new_tensor(DType::kF32, tensor.shape, values);
  }
  return folder;
}

}  // namespace llmq::testing
