#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <ostream>
#include <string>
#include <string_view>
#include <vector>

// Writes small checkpoints, whole or broken, byte by byte. Shares no code with formats/, so that a
// mistake there cannot hide itself.
namespace llmq::test {

using OrderedJson = nlohmann::ordered_json;

/// A tensor as it goes to a file: `dtype` in safetensors spelling, little-endian row-major bytes.
struct RawTensor {
  std::string name;
  std::string dtype;
  std::vector<int64_t> shape;
  std::string bytes;

  bool operator==(const RawTensor&) const = default;
};

/// For assertion messages: what it is, without its bytes.
// NOLINTNEXTLINE(readability-identifier-naming): the name is GoogleTest's.
void PrintTo(const RawTensor& tensor, std::ostream* stream);

/// Eight bytes, least significant first.
std::string le64(uint64_t value);

/// A safetensors file from its parts: length of `header`, `header`, `data`; nothing is checked.
std::string safetensors_file(std::string_view header, std::string_view data);

/// A correct file of these tensors, in their order.
std::string safetensors_file(const std::vector<RawTensor>& tensors);

/// The header of such a file.
OrderedJson safetensors_header(const std::vector<RawTensor>& tensors);

/// All tensor bytes, one after the other.
std::string safetensors_data(const std::vector<RawTensor>& tensors);

/// Reads a correct file again. Throws nlohmann's or standard exceptions when it is not one.
std::vector<RawTensor> read_safetensors(const std::filesystem::path& path);

/// All tensors of every *.safetensors file of a folder, sorted by name.
std::vector<RawTensor> read_all_tensors(const std::filesystem::path& folder);

/// The tensor of that name; throws std::runtime_error when there is none.
RawTensor& tensor_named(std::vector<RawTensor>& tensors, std::string_view name);

/// Elements of a BF16, F32 or I8 tensor as numbers.
std::vector<float> tensor_values(const RawTensor& tensor);

/// config.json of a Qwen2 model with two layers, 4 heads of 16, 2 KV heads, bfloat16, untied.
OrderedJson tiny_qwen2_config();

/// Its tensors in BF16 with normally distributed weights of standard deviation 0.05.
std::vector<RawTensor> tiny_qwen2_tensors();

/// Names and shapes of all tensors of a dense or MoE Llama, Qwen2 or Qwen3 model as `config`
/// describes it, with `dtype` and no bytes.
std::vector<RawTensor> tensors_of_config(const OrderedJson& config, const std::string& dtype);

/// Writes config.json and model.safetensors.
void write_checkpoint(const std::filesystem::path& folder, const OrderedJson& config,
                      const std::vector<RawTensor>& tensors);

/// Writes config.json, two shards and their index; the first `n_first` tensors go to the first.
void write_sharded_checkpoint(const std::filesystem::path& folder, const OrderedJson& config,
                              const std::vector<RawTensor>& tensors, size_t n_first);

/// Writes config.json and a model.safetensors with these names and shapes whose data section is a
/// hole in the file, so that models of any size can be planned.
void write_hollow_checkpoint(const std::filesystem::path& folder, const OrderedJson& config,
                             const std::vector<RawTensor>& tensors);

}  // namespace llmq::test
