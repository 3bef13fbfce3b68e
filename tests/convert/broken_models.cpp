#include <bit>
#include <functional>
#include <limits>

#include "tests/convert/broken_checkpoints.h"
#include "tests/convert/checkpoint_writer.h"
#include "tests/convert/cli_runner.h"

namespace llmq::test {
namespace {

namespace fs = std::filesystem;

const std::string kQ = "model.layers.0.self_attn.q_proj.weight";
const std::string kVBias = "model.layers.1.self_attn.v_proj.bias";
const std::string kDown = "model.layers.1.mlp.down_proj.weight";
const std::string kNorm = "model.layers.1.input_layernorm.weight";
const std::string kEmbedding = "model.embed_tokens.weight";

// A folder with the right configuration and changed tensors.
void write_with_tensors(const fs::path& folder,
                        const std::function<void(std::vector<RawTensor>&)>& change) {
  auto tensors = tiny_qwen2_tensors();
  change(tensors);
  write_checkpoint(folder, tiny_qwen2_config(), tensors);
}

// The right tensors, one of them with a value put at an element.
void write_with_value(const fs::path& folder, const std::string& name, size_t element,
                      float value) {
  write_with_tensors(folder, [&](std::vector<RawTensor>& tensors) {
    const auto bits = std::bit_cast<uint32_t>(value);
    std::string& bytes = tensor_named(tensors, name).bytes;
    bytes[2 * element] = static_cast<char>(bits >> 16);
    bytes[2 * element + 1] = static_cast<char>(bits >> 24);
  });
}

void write_with_config(const fs::path& folder, const std::function<void(OrderedJson&)>& change) {
  OrderedJson config = tiny_qwen2_config();
  change(config);
  write_checkpoint(folder, config, tiny_qwen2_tensors());
}

void write_with_config_text(const fs::path& folder, const std::string& text) {
  write_checkpoint(folder, tiny_qwen2_config(), tiny_qwen2_tensors());
  write_file(folder / "config.json", text);
}

void write_without_key(const fs::path& folder, const std::string& key) {
  write_with_config(folder, [&](OrderedJson& config) { config.erase(key); });
}

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInf = std::numeric_limits<float>::infinity();

}  // namespace

const std::vector<BrokenCheckpoint>& broken_tensors() {
  static const std::vector<BrokenCheckpoint> cases = {
      {"tensor_missing",
       [](const fs::path& folder) {
         write_with_tensors(folder, [](std::vector<RawTensor>& tensors) {
           std::erase_if(tensors, [](const RawTensor& tensor) { return tensor.name == kDown; });
         });
       },
       {kDown}},
      {"bias_missing",
       [](const fs::path& folder) {
         write_with_tensors(folder, [](std::vector<RawTensor>& tensors) {
           std::erase_if(tensors, [](const RawTensor& tensor) { return tensor.name == kVBias; });
         });
       },
       {kVBias}},
      {"weight_of_wrong_shape",
       [](const fs::path& folder) {
         write_with_tensors(folder, [](std::vector<RawTensor>& tensors) {
           tensor_named(tensors, kDown).shape = {128, 64};
         });
       },
       {kDown, "[128, 64]", "[64, 128]"}},
      {"norm_of_wrong_shape",
       [](const fs::path& folder) {
         write_with_tensors(folder, [](std::vector<RawTensor>& tensors) {
           tensor_named(tensors, kNorm).shape = {8, 8};
         });
       },
       {kNorm, "[8, 8]"}},
      {"weight_of_integers",
       [](const fs::path& folder) {
         write_with_tensors(folder, [](std::vector<RawTensor>& tensors) {
           tensor_named(tensors, kQ).dtype = "I16";
         });
       },
       {kQ, "I16"}},
      {"norm_of_integers",
       [](const fs::path& folder) {
         write_with_tensors(folder, [](std::vector<RawTensor>& tensors) {
           tensor_named(tensors, kNorm).dtype = "I16";
         });
       },
       {kNorm, "I16"}},
      {"weight_of_float8_e4m3",
       [](const fs::path& folder) {
         write_with_tensors(folder, [](std::vector<RawTensor>& tensors) {
           RawTensor& tensor = tensor_named(tensors, kQ);
           tensor.dtype = "F8_E4M3";
           tensor.bytes.resize(tensor.bytes.size() / 2);
         });
       },
       {kQ, "F8_E4M3"}},
      {"weight_of_float8_e5m2",
       [](const fs::path& folder) {
         write_with_tensors(folder, [](std::vector<RawTensor>& tensors) {
           RawTensor& tensor = tensor_named(tensors, kDown);
           tensor.dtype = "F8_E5M2";
           tensor.bytes.resize(tensor.bytes.size() / 2);
         });
       },
       {kDown, "F8_E5M2"}},
      {"nan_in_quantized_weight",
       [](const fs::path& folder) { write_with_value(folder, kQ, 64 * 64 - 1, kNan); },
       {kQ},
       false},
      {"infinity_in_quantized_weight",
       [](const fs::path& folder) { write_with_value(folder, kQ, 0, kInf); },
       {kQ},
       false},
      {"negative_infinity_in_down_proj",
       [](const fs::path& folder) { write_with_value(folder, kDown, 77, -kInf); },
       {kDown},
       false},
      {"nan_in_norm",
       [](const fs::path& folder) { write_with_value(folder, kNorm, 63, kNan); },
       {kNorm},
       false},
      {"nan_in_bias",
       [](const fs::path& folder) { write_with_value(folder, kVBias, 5, kNan); },
       {kVBias},
       false},
      {"infinity_in_embedding",
       [](const fs::path& folder) { write_with_value(folder, kEmbedding, 1000, kInf); },
       {kEmbedding},
       false},
  };
  return cases;
}

const std::vector<BrokenCheckpoint>& broken_configs() {
  static const std::vector<BrokenCheckpoint> cases = {
      {"config_missing",
       [](const fs::path& folder) {
         write_with_config_text(folder, "");
         fs::remove(folder / "config.json");
       },
       {"config.json"}},
      {"config_empty",
       [](const fs::path& folder) { write_with_config_text(folder, ""); },
       {"config.json"}},
      {"config_no_json",
       [](const fs::path& folder) { write_with_config_text(folder, "{\"hidden_size\": 64,"); },
       {"config.json"}},
      {"config_no_object",
       [](const fs::path& folder) { write_with_config_text(folder, "[64]"); },
       {"config.json"}},
      {"config_deep_json",
       [](const fs::path& folder) {
         write_with_config_text(folder, "{\"a\":" + std::string(200'000, '['));
       },
       {"config.json"}},
      {"config_key_twice",
       [](const fs::path& folder) {
         write_with_config_text(folder, R"({"hidden_size": 64, "hidden_size": 65})");
       },
       {"config.json", "hidden_size"}},
      {"config_invalid_utf8",
       [](const fs::path& folder) { write_with_config_text(folder, "{\"a\": \"\xc3\x28\"}"); },
       {"config.json"}},
      {"architecture_unknown",
       [](const fs::path& folder) {
         write_with_config(folder, [](OrderedJson& config) {
           config["model_type"] = "frobnicator";
           config["architectures"] = OrderedJson::array({"FrobnicatorForCausalLM"});
         });
       },
       {"frobnicator", "qwen2"}},
      {"config_without_hidden_size",
       [](const fs::path& folder) { write_without_key(folder, "hidden_size"); },
       {"config.json", "hidden_size"}},
      {"config_without_intermediate_size",
       [](const fs::path& folder) { write_without_key(folder, "intermediate_size"); },
       {"config.json", "intermediate_size"}},
      {"config_without_num_hidden_layers",
       [](const fs::path& folder) { write_without_key(folder, "num_hidden_layers"); },
       {"config.json", "num_hidden_layers"}},
      {"config_without_num_attention_heads",
       [](const fs::path& folder) { write_without_key(folder, "num_attention_heads"); },
       {"config.json", "num_attention_heads"}},
      {"config_without_vocab_size",
       [](const fs::path& folder) { write_without_key(folder, "vocab_size"); },
       {"config.json", "vocab_size"}},
      {"kv_heads_do_not_divide",
       [](const fs::path& folder) {
         write_with_config(folder, [](OrderedJson& config) { config["num_key_value_heads"] = 3; });
       },
       {"config.json", "num_key_value_heads", "3"}},
      {"kv_heads_zero",
       [](const fs::path& folder) {
         write_with_config(folder, [](OrderedJson& config) { config["num_key_value_heads"] = 0; });
       },
       {"config.json", "num_key_value_heads"}},
      {"hidden_size_of_text",
       [](const fs::path& folder) {
         write_with_config(folder, [](OrderedJson& config) { config["hidden_size"] = "64"; });
       },
       {"config.json", "hidden_size"}},
      {"hidden_size_of_2_62",
       [](const fs::path& folder) {
         write_with_config(folder,
                           [](OrderedJson& config) { config["hidden_size"] = int64_t{1} << 62; });
       },
       {"hidden_size"}},
      {"layers_of_2_62",
       [](const fs::path& folder) {
         write_with_config(
             folder, [](OrderedJson& config) { config["num_hidden_layers"] = int64_t{1} << 62; });
       },
       {"num_hidden_layers"}},
      {"layers_negative",
       [](const fs::path& folder) {
         write_with_config(folder, [](OrderedJson& config) { config["num_hidden_layers"] = -2; });
       },
       {"config.json", "num_hidden_layers"}},
      {"more_layers_than_tensors",
       [](const fs::path& folder) {
         write_with_config(folder, [](OrderedJson& config) { config["num_hidden_layers"] = 3; });
       },
       {"model.layers.2."}},
      {"torch_dtype_unknown",
       [](const fs::path& folder) {
         write_with_config(folder, [](OrderedJson& config) { config["torch_dtype"] = "int3"; });
       },
       {"config.json", "torch_dtype", "int3"}},
      {"rope_scaling_unknown",
       [](const fs::path& folder) {
         write_with_config(folder, [](OrderedJson& config) {
           config["rope_scaling"] = {{"rope_type", "spiral"}, {"factor", 2.0}};
         });
       },
       {"config.json", "spiral"}},
      {"rope_factor_of_zero",
       [](const fs::path& folder) {
         write_with_config(folder, [](OrderedJson& config) {
           config["rope_scaling"] = {{"type", "linear"}, {"factor", 0.0}};
         });
       },
       {"config.json", "factor"}},
  };
  return cases;
}

}  // namespace llmq::test
