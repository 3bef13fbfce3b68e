// What a model folder may and may not hold.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "formats/description.h"
#include "formats/error.h"
#include "runtime/model/generation_config.h"
#include "runtime/model/layer_weights.h"
#include "runtime/model/model.h"
#include "tests/runtime/model/model_testing.h"
#include "tests/runtime/model/quantized_model.h"

namespace llmq::runtime {
namespace {

using formats::DType;
using formats::Json;
using ::testing::HasSubstr;
using testing::NewTensors;

/// A model folder in memory, to be changed and written.
struct Folder {
  Json config;
  NewTensors tensors;
  Json description;  // null: none

  explicit Folder(const std::string& name, bool is_quantized = false) {
    config = formats::read_json_file(testing::golden_root() / name / "config.json");
    tensors = testing::read_tensors(testing::golden_root() / name);
    if (is_quantized) description = testing::quantize_w8a16(tensors).description;
  }

  void write(const std::filesystem::path& path) const {
    testing::write_model(path, config, tensors);
    if (!description.is_null())
      formats::write_text_file(path / formats::kDescriptionFile, description.dump());
  }
};

/// The message with which loading fails, empty when it does not; checks the code.
std::string load_error(const Folder& folder) {
  const testing::TemporaryFolder place;
  folder.write(place.path());
  try {
    Model::load(place.path());
  } catch (const formats::Error& error) {
    EXPECT_EQ(error.code(), formats::ErrorCode::kBadInput) << error.what();
    return error.what();
  }
  return "";
}

constexpr const char* kQ = "model.layers.1.self_attn.q_proj.weight";

TEST(ModelLoading, unchanged_folders_load) {
  EXPECT_EQ(load_error(Folder("qwen2-untied")), "");
  EXPECT_EQ(load_error(Folder("qwen2-untied", true)), "");
}

TEST(ModelLoading, a_missing_tensor_is_named) {
  for (const char* name : {kQ, "model.layers.0.self_attn.k_proj.bias", "model.norm.weight",
                           "model.layers.0.input_layernorm.weight", "model.embed_tokens.weight"}) {
    Folder folder("qwen2-untied");
    folder.tensors.erase(name);
    EXPECT_THAT(load_error(folder), HasSubstr(name));
  }
}

TEST(ModelLoading, a_shape_that_config_json_does_not_ask_for_is_named) {
  Folder folder("qwen2-untied");
  folder.config["intermediate_size"] = 71;
  EXPECT_THAT(load_error(folder), HasSubstr("mlp.gate_proj.weight"));
  folder = Folder("qwen2-untied");
  folder.config["vocab_size"] = 121;  // more ids than embeddings
  EXPECT_THAT(load_error(folder), HasSubstr("model.embed_tokens.weight"));
}

TEST(ModelLoading, int8_weights_need_a_description_that_says_so) {
  Folder folder("qwen2-untied", true);
  const Json description = folder.description;
  folder.description = nullptr;
  EXPECT_THAT(load_error(folder), HasSubstr("there is no quant_model_description.json"));
  folder.description = description;
  folder.description.erase(kQ);
  EXPECT_THAT(load_error(folder), HasSubstr(kQ));
  folder.description = description;
  folder.description[kQ] = "FLOAT";
  EXPECT_THAT(load_error(folder), HasSubstr(kQ));
  folder.description[kQ] = "W8A17";
  EXPECT_THAT(load_error(folder), HasSubstr(kQ));
}

TEST(ModelLoading, a_description_of_float32_weights_as_int8_is_refused) {
  Folder folder("qwen2-untied", true);
  folder.description["lm_head.weight"] = "W8A16";
  testing::NewTensor& head = folder.tensors["lm_head.weight"];
  head =
      testing::new_tensor(formats::DType::kF32, head.shape,
                          std::vector<float>(static_cast<size_t>(head.shape[0] * head.shape[1])));
  EXPECT_THAT(load_error(folder), HasSubstr("lm_head.weight"));
}

TEST(ModelLoading, scales_must_be_there_have_the_right_shape_and_be_finite) {
  const std::string scale = "model.layers.1.self_attn.q_proj.weight_scale";
  Folder folder("qwen2-untied", true);
  folder.tensors.erase(scale);
  EXPECT_THAT(load_error(folder), HasSubstr(scale));
  folder = Folder("qwen2-untied", true);
  folder.tensors[scale].shape = {1, 40};
  EXPECT_THAT(load_error(folder), HasSubstr(scale));
  folder = Folder("qwen2-untied", true);
  const float bad = std::numeric_limits<float>::infinity();
  std::memcpy(folder.tensors[scale].bytes.data() + 4, &bad, sizeof bad);
  EXPECT_THAT(load_error(folder), HasSubstr(scale));
  folder = Folder("qwen2-untied", true);
  folder.description["group_size"] = 7;
  EXPECT_NE(load_error(folder), "");
}

TEST(ModelLoading, what_cannot_be_executed_is_refused_not_ignored) {
  Folder folder("qwen2-untied", true);
  folder.description[kQ] = "FAQuant";
  EXPECT_THAT(load_error(folder), HasSubstr("FAQuant cannot be executed"));
  folder = Folder("qwen2-untied", true);
  folder.description["kv_quant_type"] = "C9";
  EXPECT_THAT(load_error(folder), HasSubstr("C9"));
  folder = Folder("qwen2-untied");
  folder.config["hidden_act"] = "gelu";
  EXPECT_THAT(load_error(folder), HasSubstr("gelu"));
  folder = Folder("qwen2-untied");
  folder.config["is_causal"] = false;
  EXPECT_THAT(load_error(folder), HasSubstr("is_causal"));
  folder = Folder("qwen2-untied");
  folder.config["model_type"] = "gpt2";
  EXPECT_THAT(load_error(folder), HasSubstr("gpt2"));
  folder = Folder("qwen2-untied");
  folder.config["rope_scaling"] = {{"type", "dynamic"}, {"factor", 2.0}};
  EXPECT_THAT(load_error(folder), HasSubstr("dynamic"));
}

std::vector<float> logits_of(const Folder& folder) {
  const testing::TemporaryFolder place;
  folder.write(place.path());
  const auto model = Model::load(place.path());
  return testing::all_logits(*model, std::vector<int32_t>{5, 17, 3, 99});
}

TEST(ModelLoading, a_missing_head_is_the_embedding) {
  const Folder tied("qwen2-tied");
  ASSERT_FALSE(tied.tensors.contains("lm_head.weight"));
  Folder untied = tied;
  untied.config["tie_word_embeddings"] = false;
  EXPECT_EQ(logits_of(untied), logits_of(tied));
}

TEST(ModelLoading, a_tied_model_may_store_its_matrix_as_the_head) {
  const Folder tied("qwen2-tied");
  Folder renamed = tied;
  auto node = renamed.tensors.extract("model.embed_tokens.weight");
  node.key() = "lm_head.weight";
  renamed.tensors.insert(std::move(node));
  EXPECT_EQ(logits_of(renamed), logits_of(tied));
}

TEST(ModelLoading, a_stored_head_of_a_tied_model_counts_only_beside_a_description) {
  const Folder tied("qwen2-tied");
  Folder with_head = tied;
  with_head.tensors["lm_head.weight"] = tied.tensors.at("model.embed_tokens.weight");
  for (std::byte& byte : with_head.tensors["lm_head.weight"].bytes) byte = std::byte{0};
  EXPECT_EQ(logits_of(with_head), logits_of(tied));
  with_head.description = {{"model_quant_type", "FLOAT"}};
  for (const float logit : logits_of(with_head)) EXPECT_EQ(logit, 0.0F);
}

TEST(ModelLoading, biases_that_a_quantizer_added_are_applied) {
  Folder folder("qwen2-untied", true);
  const std::vector<float> before = logits_of(folder);
  folder.tensors["model.layers.1.mlp.down_proj.bias"] =
      testing::new_tensor(DType::kF32, {40}, std::vector<float>(40, 0.0F));
  folder.tensors["model.norm.bias"] =
      testing::new_tensor(DType::kF32, {40}, std::vector<float>(40, 0.0F));
  EXPECT_EQ(logits_of(folder), before);
  folder.tensors["model.layers.1.mlp.down_proj.bias"] =
      testing::new_tensor(DType::kF32, {40}, std::vector<float>(40, 0.5F));
  EXPECT_NE(logits_of(folder), before);
}

TEST(ModelLoading, large_matrices_stay_in_the_mapped_file) {
  const std::filesystem::path folder = testing::golden_root() / "qwen2-untied";
  const formats::ModelConfig config = formats::read_model_config(folder);
  const formats::Checkpoint checkpoint = formats::Checkpoint::open(folder);
  quant::ThreadTeam team(1);
  WeightLoader loader({&checkpoint, &config, nullptr}, team);
  const LayerWeights layer = loader.layer(1);
  const OuterWeights outer = loader.outer();
  EXPECT_EQ(layer.q.weight.data(), checkpoint.at(kQ).bytes.data());
  EXPECT_EQ(layer.down.weight.data(),
            checkpoint.at("model.layers.1.mlp.down_proj.weight").bytes.data());
  EXPECT_EQ(outer.head.weight.data(), checkpoint.at("lm_head.weight").bytes.data());
  // Two norms, the final norm, and the biases of q, k and v.
  EXPECT_EQ(loader.converted_size_bytes(), (3 * 40 + 40 + 8 + 8) * sizeof(float));
}

TEST(GenerationConfig, stop_ids_are_an_id_or_a_list_and_fall_back_to_config_json) {
  formats::ModelConfig config;
  config.eos_token_ids = {2};
  config.bos_token_id = 1;
  const testing::TemporaryFolder place;
  const auto read = [&](const char* text) {
    if (text != nullptr) formats::write_text_file(place.path() / "generation_config.json", text);
    return read_generation_config(place.path(), config);
  };
  EXPECT_EQ(read(nullptr).stop_ids, (std::vector<int32_t>{2}));
  EXPECT_EQ(read(nullptr).bos_token_id, 1);
  EXPECT_EQ(read("{}").stop_ids, (std::vector<int32_t>{2}));
  EXPECT_EQ(read(R"({"eos_token_id": 9})").stop_ids, (std::vector<int32_t>{9}));
  const GenerationConfig both = read(R"({"eos_token_id": [9, 8], "bos_token_id": 3})");
  EXPECT_EQ(both.stop_ids, (std::vector<int32_t>{9, 8}));
  EXPECT_EQ(both.bos_token_id, 3);
  for (const char* wrong : {R"({"eos_token_id": "x"})", R"({"eos_token_id": [1.5]})",
                            R"({"eos_token_id": -1})", R"({"eos_token_id": 99999999999})", "[]"}) {
    EXPECT_THROW(read(wrong), formats::Error) << wrong;
  }
}

}  // namespace
}  // namespace llmq::runtime
