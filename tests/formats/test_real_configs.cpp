#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <ostream>
#include <string>
#include <vector>

#include "formats/architecture.h"
#include "formats/model_config.h"
#include "tests/tools/test_files.h"

namespace llmq::formats {
namespace {

namespace fs = std::filesystem;

// What the makers publish of their models: parameters of the files (a tied matrix once) and the
// number of tensors in their index.
struct Published {
  const char* path;  ///< below configs/
  const char* family;
  int64_t n_parameters;
  size_t n_tensors;
};

std::ostream& operator<<(std::ostream& stream, const Published& model) {
  return stream << model.path;
}

const std::vector<Published> kPublished = {
    {"Qwen2.5-0.5B-Instruct/config.json", "qwen2", 494'032'768, 290},
    {"Qwen2.5-1.5B/config.json", "qwen2", 1'543'714'304, 338},
    {"Qwen2.5-7B-Instruct/config.json", "qwen2", 7'615'616'512, 339},
    {"Qwen2.5-72B/config.json", "qwen2", 72'706'203'648, 963},
    {"Qwen3-0.6B/config.json", "qwen3", 596'049'920, 310},
    {"Qwen3-8B/config.json", "qwen3", 8'190'735'360, 399},
    {"Qwen3-32B.json", "qwen3", 32'762'123'264, 707},
    // 48 layers of 9 tensors and 128 experts of 3; embedding, final norm and head.
    {"Qwen3-30B-A3B/config.json", "qwen3_moe", 30'532'122'624, 48 * (9 + 128 * 3) + 3},
    {"Meta-Llama-3.1-8B/config.json", "llama", 8'030'261'248, 291},
    // The published 1,235,814,400 parameters of the base model and its head, untied here.
    {"Llama-3.2-1B-extra-keys/config.json", "llama", 1'235'814'400 + 128256 * 2048, 147},
};

class RealConfig : public testing::TestWithParam<Published> {
 protected:
  void SetUp() override {
    path_ = test::test_data_folder() / "configs" / GetParam().path;
    if (!fs::exists(path_)) GTEST_SKIP() << path_ << " is absent; set LLMQ_TEST_DATA";
  }

  fs::path path_;
};

TEST_P(RealConfig, TableGivesThePublishedParametersAndTensors) {
  const ModelConfig config = read_model_config(path_);
  const Architecture& architecture = architecture_of(config);
  EXPECT_EQ(architecture.family, GetParam().family);
  int64_t n_parameters = 0;
  size_t n_tensors = 0;
  for (const ExpectedTensor& tensor : expected_tensors(architecture, config)) {
    if (tensor.row->role == Role::kHead && config.tie_word_embeddings) continue;
    n_parameters += shape_elements(tensor.shape);
    ++n_tensors;
  }
  EXPECT_EQ(n_parameters, GetParam().n_parameters);
  EXPECT_EQ(n_tensors, GetParam().n_tensors);
}

TEST_P(RealConfig, EveryFieldHasTheValueOfTheFile) {
  const ModelConfig config = read_model_config(path_);
  const auto json = nlohmann::json::parse(test::read_file(path_));
  EXPECT_EQ(config.model_type, json.at("model_type"));
  EXPECT_EQ(nlohmann::json(config.architectures), json.at("architectures"));
  EXPECT_EQ(config.hidden_size, json.at("hidden_size"));
  EXPECT_EQ(config.intermediate_size, json.at("intermediate_size"));
  EXPECT_EQ(config.n_layers, json.at("num_hidden_layers"));
  EXPECT_EQ(config.n_heads, json.at("num_attention_heads"));
  EXPECT_EQ(config.n_kv_heads, json.at("num_key_value_heads"));
  EXPECT_EQ(config.head_dim, json.value("head_dim", config.hidden_size / config.n_heads));
  EXPECT_EQ(config.vocab_size, json.at("vocab_size"));
  EXPECT_EQ(config.max_position_embeddings, json.at("max_position_embeddings"));
  EXPECT_EQ(config.rms_norm_eps, json.at("rms_norm_eps"));
  EXPECT_EQ(config.rope_theta, json.at("rope_theta"));
  EXPECT_EQ(config.tie_word_embeddings, json.at("tie_word_embeddings"));
  EXPECT_EQ(config.hidden_act, json.at("hidden_act"));
  EXPECT_EQ(torch_dtype_name(config.torch_dtype), json.at("torch_dtype"));
  EXPECT_EQ(config.bos_token_id, json.at("bos_token_id"));
  EXPECT_EQ(config.attention_bias.has_value(), json.contains("attention_bias"));
  const auto& eos = json.at("eos_token_id");
  EXPECT_EQ(nlohmann::json(config.eos_token_ids),
            eos.is_array() ? eos : nlohmann::json::array({eos}));
  // Every one of these files switches its window off or has none.
  EXPECT_FALSE(config.sliding_window.has_value());
}

TEST_P(RealConfig, ScalingAndExpertsHaveTheValuesOfTheFile) {
  const ModelConfig config = read_model_config(path_);
  const auto json = nlohmann::json::parse(test::read_file(path_));
  const auto scaling = json.value("rope_scaling", nlohmann::json());
  EXPECT_EQ(config.rope_scaling.kind == RopeScalingKind::kNone, scaling.is_null());
  if (scaling.is_object()) {
    ASSERT_EQ(scaling.at("rope_type"), "llama3");
    EXPECT_EQ(config.rope_scaling.kind, RopeScalingKind::kLlama3);
    EXPECT_EQ(config.rope_scaling.factor, scaling.at("factor"));
    EXPECT_EQ(config.rope_scaling.low_freq_factor, scaling.at("low_freq_factor"));
    EXPECT_EQ(config.rope_scaling.high_freq_factor, scaling.at("high_freq_factor"));
    EXPECT_EQ(config.rope_scaling.original_max_position_embeddings,
              scaling.at("original_max_position_embeddings"));
  }
  EXPECT_EQ(config.n_experts, json.value("num_experts", 0));
  EXPECT_EQ(config.n_experts_per_token, json.value("num_experts_per_tok", 0));
  EXPECT_EQ(config.moe_intermediate_size, json.value("moe_intermediate_size", 0));
  EXPECT_EQ(config.norm_topk_prob, json.value("norm_topk_prob", false));
}

INSTANTIATE_TEST_SUITE_P(Published, RealConfig, testing::ValuesIn(kPublished),
                         [](const auto& tested) {
                           std::string name = tested.param.path;
                           name = name.substr(0, name.find('/'));
                           for (char& c : name) {
                             if (std::isalnum(static_cast<unsigned char>(c)) == 0) c = '_';
                           }
                           return name;
                         });

}  // namespace
}  // namespace llmq::formats
