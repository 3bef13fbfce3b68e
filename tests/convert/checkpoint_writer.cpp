#include "tests/convert/checkpoint_writer.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <random>
#include <stdexcept>

#include "tests/convert/cli_runner.h"

namespace llmq::test {
namespace {

namespace fs = std::filesystem;

size_t element_bytes(std::string_view dtype) {
  if (dtype == "F64" || dtype == "I64") {
    return 8;
  }
  if (dtype == "F32" || dtype == "I32") {
    return 4;
  }
  return dtype == "F16" || dtype == "BF16" || dtype == "I16" ? 2 : 1;
}

uint64_t size_bytes(const RawTensor& tensor) {
  uint64_t size = element_bytes(tensor.dtype);
  for (const int64_t extent : tensor.shape) {
    size *= static_cast<uint64_t>(extent);
  }
  return size;
}

// Normal numbers cut to bfloat16 (the upper half of a float's bits).
std::string random_bf16(size_t n_elements, double mean, uint32_t seed) {
  std::mt19937 generator(seed);
  std::normal_distribution<double> distribution(mean, 0.05);
  std::string bytes;
  for (size_t i = 0; i < n_elements; ++i) {
    const auto bits = std::bit_cast<uint32_t>(static_cast<float>(distribution(generator)));
    bytes.push_back(static_cast<char>(bits >> 16));
    bytes.push_back(static_cast<char>(bits >> 24));
  }
  return bytes;
}

class TensorList {
 public:
  explicit TensorList(std::string dtype) : dtype_(std::move(dtype)) {}

  void add(const std::string& name, std::vector<int64_t> shape) {
    tensors_.push_back({name, dtype_, std::move(shape), {}});
  }
  void add_linear(const std::string& name, int64_t n_out, int64_t n_in, bool has_bias) {
    add(name + ".weight", {n_out, n_in});
    if (has_bias) {
      add(name + ".bias", {n_out});
    }
  }
  void add_mlp(const std::string& prefix, int64_t hidden, int64_t intermediate) {
    add_linear(prefix + ".gate_proj", intermediate, hidden, false);
    add_linear(prefix + ".up_proj", intermediate, hidden, false);
    add_linear(prefix + ".down_proj", hidden, intermediate, false);
  }
  [[nodiscard]] std::vector<RawTensor> take() { return std::move(tensors_); }

 private:
  std::string dtype_;
  std::vector<RawTensor> tensors_;
};

void add_attention(TensorList& list, const std::string& prefix, const OrderedJson& config) {
  const std::string family = config.at("model_type");
  const int64_t hidden = config.at("hidden_size");
  const int64_t n_heads = config.at("num_attention_heads");
  const int64_t n_kv_heads = config.value("num_key_value_heads", n_heads);
  const int64_t head_dim = config.value("head_dim", hidden / n_heads);
  const bool has_bias = family == "qwen2";
  list.add_linear(prefix + ".q_proj", n_heads * head_dim, hidden, has_bias);
  list.add_linear(prefix + ".k_proj", n_kv_heads * head_dim, hidden, has_bias);
  list.add_linear(prefix + ".v_proj", n_kv_heads * head_dim, hidden, has_bias);
  list.add_linear(prefix + ".o_proj", hidden, n_heads * head_dim, false);
  if (family.starts_with("qwen3")) {
    list.add(prefix + ".q_norm.weight", {head_dim});
    list.add(prefix + ".k_norm.weight", {head_dim});
  }
}

}  // namespace

// NOLINTNEXTLINE(readability-identifier-naming): the name is GoogleTest's.
void PrintTo(const RawTensor& tensor, std::ostream* stream) {
  *stream << tensor.name << " " << tensor.dtype << " of " << tensor.bytes.size() << " bytes";
}

std::string le64(uint64_t value) {
  std::string bytes;
  for (int i = 0; i < 8; ++i) {
    bytes.push_back(static_cast<char>(value >> (8 * i)));
  }
  return bytes;
}

std::string safetensors_file(std::string_view header, std::string_view data) {
  return le64(header.size()).append(header).append(data);
}

OrderedJson safetensors_header(const std::vector<RawTensor>& tensors) {
  OrderedJson header = {{"__metadata__", {{"format", "pt"}}}};
  uint64_t offset = 0;
  for (const RawTensor& tensor : tensors) {
    const uint64_t end = offset + size_bytes(tensor);
    header[tensor.name] = {
        {"dtype", tensor.dtype}, {"shape", tensor.shape}, {"data_offsets", {offset, end}}};
    offset = end;
  }
  return header;
}

std::string safetensors_data(const std::vector<RawTensor>& tensors) {
  std::string data;
  for (const RawTensor& tensor : tensors) {
    data += tensor.bytes;
  }
  return data;
}

std::string safetensors_file(const std::vector<RawTensor>& tensors) {
  return safetensors_file(safetensors_header(tensors).dump(), safetensors_data(tensors));
}

std::vector<RawTensor> read_safetensors(const fs::path& path) {
  const std::string file = read_file(path);
  uint64_t header_bytes = 0;
  std::memcpy(&header_bytes, file.data(), std::min<size_t>(file.size(), 8));
  const auto header = OrderedJson::parse(file.substr(8, header_bytes));
  std::vector<RawTensor> tensors;
  for (const auto& [name, entry] : header.items()) {
    if (name == "__metadata__") {
      continue;
    }
    const uint64_t begin = entry.at("data_offsets").at(0);
    const uint64_t end = entry.at("data_offsets").at(1);
    RawTensor tensor{name, entry.at("dtype"), entry.at("shape"),
                     file.substr(8 + header_bytes + begin, end - begin)};
    if (tensor.bytes.size() != size_bytes(tensor)) {
      throw std::runtime_error(path.string() + ": bytes of " + name + " do not fit its shape");
    }
    tensors.push_back(std::move(tensor));
  }
  return tensors;
}

std::vector<RawTensor> read_all_tensors(const fs::path& folder) {
  std::vector<RawTensor> all;
  for (const auto& entry : fs::directory_iterator(folder)) {
    if (entry.path().extension() == ".safetensors") {
      for (RawTensor& tensor : read_safetensors(entry.path())) {
        all.push_back(std::move(tensor));
      }
    }
  }
  std::sort(all.begin(), all.end(),
            [](const RawTensor& a, const RawTensor& b) { return a.name < b.name; });
  return all;
}

RawTensor& tensor_named(std::vector<RawTensor>& tensors, std::string_view name) {
  for (RawTensor& tensor : tensors) {
    if (tensor.name == name) {
      return tensor;
    }
  }
  throw std::runtime_error("no tensor " + std::string(name));
}

std::vector<float> tensor_values(const RawTensor& tensor) {
  std::vector<float> values;
  const auto byte = [&](size_t i) {
    return static_cast<uint32_t>(static_cast<uint8_t>(tensor.bytes[i]));
  };
  for (size_t i = 0; i < tensor.bytes.size(); i += element_bytes(tensor.dtype)) {
    if (tensor.dtype == "I8") {
      values.push_back(static_cast<int8_t>(tensor.bytes[i]));
    } else if (tensor.dtype == "BF16") {
      values.push_back(std::bit_cast<float>(byte(i) << 16 | byte(i + 1) << 24));
    } else if (tensor.dtype == "F32") {
      values.push_back(
          std::bit_cast<float>(byte(i) | byte(i + 1) << 8 | byte(i + 2) << 16 | byte(i + 3) << 24));
    } else {
      throw std::runtime_error("tensor_values does not know " + tensor.dtype);
    }
  }
  return values;
}

OrderedJson tiny_qwen2_config() {
  return {{"architectures", OrderedJson::array({"Qwen2ForCausalLM"})},
          {"model_type", "qwen2"},
          {"hidden_size", 64},
          {"intermediate_size", 128},
          {"num_hidden_layers", 2},
          {"num_attention_heads", 4},
          {"num_key_value_heads", 2},
          {"hidden_act", "silu"},
          {"vocab_size", 96},
          {"max_position_embeddings", 256},
          {"rms_norm_eps", 1e-6},
          {"rope_theta", 10000.0},
          {"tie_word_embeddings", false},
          {"torch_dtype", "bfloat16"},
          {"bos_token_id", 1},
          {"eos_token_id", 2}};
}

std::vector<RawTensor> tiny_qwen2_tensors() {
  std::vector<RawTensor> tensors = tensors_of_config(tiny_qwen2_config(), "BF16");
  uint32_t seed = 1;
  for (RawTensor& tensor : tensors) {
    const bool is_norm = tensor.name.find("norm") != std::string::npos;
    tensor.bytes = random_bf16(size_bytes(tensor) / 2, is_norm ? 1.0 : 0.0, seed++);
  }
  return tensors;
}

std::vector<RawTensor> tensors_of_config(const OrderedJson& config, const std::string& dtype) {
  TensorList list(dtype);
  const int64_t hidden = config.at("hidden_size");
  const int64_t n_layers = config.at("num_hidden_layers");
  const int64_t n_experts = config.value("num_experts", int64_t{0});
  list.add("model.embed_tokens.weight", {config.at("vocab_size"), hidden});
  for (int64_t layer = 0; layer < n_layers; ++layer) {
    const std::string prefix = "model.layers." + std::to_string(layer);
    list.add(prefix + ".input_layernorm.weight", {hidden});
    add_attention(list, prefix + ".self_attn", config);
    list.add(prefix + ".post_attention_layernorm.weight", {hidden});
    if (n_experts == 0) {
      list.add_mlp(prefix + ".mlp", hidden, config.at("intermediate_size"));
      continue;
    }
    list.add(prefix + ".mlp.gate.weight", {n_experts, hidden});
    for (int64_t expert = 0; expert < n_experts; ++expert) {
      list.add_mlp(prefix + ".mlp.experts." + std::to_string(expert), hidden,
                   config.at("moe_intermediate_size"));
    }
  }
  list.add("model.norm.weight", {hidden});
  if (!config.value("tie_word_embeddings", false)) {
    list.add("lm_head.weight", {config.at("vocab_size"), hidden});
  }
  return list.take();
}

void write_checkpoint(const fs::path& folder, const OrderedJson& config,
                      const std::vector<RawTensor>& tensors) {
  fs::create_directories(folder);
  write_file(folder / "config.json", config.dump(2) + "\n");
  write_file(folder / "model.safetensors", safetensors_file(tensors));
}

void write_sharded_checkpoint(const fs::path& folder, const OrderedJson& config,
                              const std::vector<RawTensor>& tensors, size_t n_first) {
  fs::create_directories(folder);
  write_file(folder / "config.json", config.dump(2) + "\n");
  const auto middle = tensors.begin() + static_cast<std::ptrdiff_t>(n_first);
  const std::vector<std::vector<RawTensor>> shards = {{tensors.begin(), middle},
                                                      {middle, tensors.end()}};
  OrderedJson weight_map = OrderedJson::object();
  uint64_t total_size = 0;
  for (size_t i = 0; i < shards.size(); ++i) {
    const std::string name = "model-0000" + std::to_string(i + 1) + "-of-00002.safetensors";
    write_file(folder / name, safetensors_file(shards[i]));
    for (const RawTensor& tensor : shards[i]) {
      weight_map[tensor.name] = name;
      total_size += tensor.bytes.size();
    }
  }
  const OrderedJson index = {{"metadata", {{"total_size", total_size}}},
                             {"weight_map", weight_map}};
  write_file(folder / "model.safetensors.index.json", index.dump(2) + "\n");
}

void write_hollow_checkpoint(const fs::path& folder, const OrderedJson& config,
                             const std::vector<RawTensor>& tensors) {
  fs::create_directories(folder);
  write_file(folder / "config.json", config.dump(2) + "\n");
  const std::string head = safetensors_file(safetensors_header(tensors).dump(), "");
  write_file(folder / "model.safetensors", head);
  uint64_t data_bytes = 0;
  for (const RawTensor& tensor : tensors) {
    data_bytes += size_bytes(tensor);
  }
  fs::resize_file(folder / "model.safetensors", head.size() + data_bytes);
}

}  // namespace llmq::test
