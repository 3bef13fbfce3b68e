#include "formats/attention_tensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "formats/error.h"

namespace llmq::formats {
namespace {

using testing::ElementsAre;

ModelConfig config_of(const std::string& model_type) {
  ModelConfig config;
  config.model_type = model_type;
  config.n_layers = 4;
  config.n_heads = 6;
  config.n_kv_heads = 2;
  config.head_dim = 16;
  return config;
}

std::vector<std::string> names_of(const ModelConfig& config, Scheme scheme) {
  std::vector<std::string> names;
  for (const AttentionTensor& tensor : attention_tensors(config, scheme, 3, DType::kBF16))
    names.push_back(tensor.name);
  return names;
}

TEST(AttentionTensors, StandBesideKAndVOrBesideTheProjections) {
  const std::string attention = "model.layers.3.self_attn.";
  for (const char* model_type : {"llama", "qwen2", "qwen3", "qwen2_moe", "qwen3_moe", "mistral"}) {
    const ModelConfig config = config_of(model_type);
    EXPECT_THAT(
        names_of(config, Scheme::kC8),
        ElementsAre(attention + "k_proj.kv_cache_scale", attention + "k_proj.kv_cache_offset",
                    attention + "v_proj.kv_cache_scale", attention + "v_proj.kv_cache_offset"));
    EXPECT_THAT(names_of(config, Scheme::kFaQuant),
                ElementsAre(attention + "fa_q.scale", attention + "fa_q.offset",
                            attention + "fa_k.scale", attention + "fa_k.offset",
                            attention + "fa_v.scale", attention + "fa_v.offset"));
  }
}

TEST(AttentionTensors, OfOneMatrixForQKVThereAreNone) {
  EXPECT_TRUE(names_of(config_of("qwen"), Scheme::kC8).empty());
  EXPECT_TRUE(names_of(config_of("qwen"), Scheme::kFaQuant).empty());
}

TEST(AttentionTensors, ASchemeOfLinearsIsABug) {
  for (const char* model_type : {"qwen", "qwen2"}) {
    try {
      attention_tensors(config_of(model_type), Scheme::kW8A8, 0, DType::kBF16);
      FAIL() << model_type;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kInternal);
    }
  }
}

}  // namespace
}  // namespace llmq::formats
