#include "formats/engine_names.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>
#include <string>

#include "formats/error.h"
#include "tests/tools/test_files.h"

namespace llmq::formats {
namespace {

using testing::ElementsAre;
using testing::SizeIs;

ModelConfig config_of(const std::string& model_type) {
  return parse_model_config({{"model_type", model_type},
                             {"hidden_size", 32},
                             {"intermediate_size", 64},
                             {"moe_intermediate_size", 32},
                             {"num_experts", 3},
                             {"num_experts_per_tok", 1},
                             {"shared_expert_intermediate_size", 64},
                             {"num_hidden_layers", 12},
                             {"num_attention_heads", 4},
                             {"seq_length", 64},
                             {"vocab_size", 96}},
                            "config.json");
}

std::string stored(ShardLayout layout, const std::string& model_type, const std::string& name) {
  return EngineNames(layout, config_of(model_type)).find(name).stored;
}

TEST(EngineNames, QwenBecomesGptStyleInMindie) {
  const EngineNames names(ShardLayout::kMindie, config_of("qwen2"));
  const auto stored_as = [&](const std::string& name) { return names.find(name).stored; };
  EXPECT_EQ(stored_as("model.embed_tokens.weight"), "transformer.wte.weight");
  EXPECT_EQ(stored_as("model.layers.11.input_layernorm.bias"), "transformer.h.11.ln_1.bias");
  EXPECT_EQ(stored_as("model.layers.1.self_attn.o_proj.deq_scale"),
            "transformer.h.1.attn.c_proj.deq_scale");
  EXPECT_EQ(stored_as("model.layers.1.post_attention_layernorm.module.weight"),
            "transformer.h.1.ln_2.anti.weight");
  EXPECT_EQ(stored_as("model.layers.1.mlp.down_proj.weight"), "transformer.h.1.mlp.c_proj.weight");
  EXPECT_EQ(stored_as("model.norm.weight"), "transformer.ln_f.weight");
  EXPECT_EQ(stored_as("lm_head.weight"), "lm_head.weight");
  EXPECT_EQ(stored_as("model.layers.1.self_attn.k_proj.kv_cache_scale"),
            "transformer.h.1.attn.c_attn.k_proj.kv_cache_scale");
  const EngineName v = names.find("model.layers.1.self_attn.v_proj.weight_scale");
  EXPECT_EQ(v.stored, "transformer.h.1.attn.c_attn.weight_scale");
  EXPECT_THAT(v.members, ElementsAre("model.layers.1.self_attn.q_proj.weight_scale",
                                     "model.layers.1.self_attn.k_proj.weight_scale",
                                     "model.layers.1.self_attn.v_proj.weight_scale"));
  EXPECT_EQ(v.place, 2U);
  EXPECT_EQ(v.alone, "transformer.h.1.attn.v_proj.weight_scale");
  const EngineName up = names.find("model.layers.1.mlp.up_proj.weight");
  EXPECT_EQ(up.stored, "transformer.h.1.mlp.w2_w1.weight");
  EXPECT_THAT(up.members, ElementsAre("model.layers.1.mlp.gate_proj.weight",
                                      "model.layers.1.mlp.up_proj.weight"));
}

TEST(EngineNames, OtherStylesFuseUnderTheirOwnNames) {
  const std::string layer = "model.layers.0.";
  EXPECT_EQ(stored(ShardLayout::kMindie, "llama", layer + "self_attn.k_proj.weight"),
            layer + "self_attn.query_key_value.weight");
  EXPECT_EQ(stored(ShardLayout::kMindie, "llama", "model.norm.weight"), "model.norm.weight");
  EXPECT_EQ(stored(ShardLayout::kMindie, "qwen", "transformer.h.3.mlp.w1.weight"),
            "transformer.h.3.mlp.w2_w1.weight");
  EXPECT_EQ(stored(ShardLayout::kVllm, "qwen3", layer + "self_attn.q_proj.bias"),
            layer + "self_attn.qkv_proj.bias");
  EXPECT_EQ(stored(ShardLayout::kVllm, "qwen2", layer + "self_attn.v_proj.kv_cache_offset"),
            layer + "self_attn.attn.v_cache_offset");
  EXPECT_EQ(stored(ShardLayout::kHf, "qwen2", layer + "mlp.up_proj.weight"),
            layer + "mlp.up_proj.weight");
  const EngineName expert = EngineNames(ShardLayout::kVllm, config_of("qwen2_moe"))
                                .find(layer + "mlp.experts.2.gate_proj.weight_scale");
  EXPECT_EQ(expert.stored, layer + "mlp.experts.w13_weight_scale");
  EXPECT_THAT(expert.members, SizeIs(6));
  EXPECT_EQ(expert.place, 4U);
  EXPECT_TRUE(expert.stacks_experts);
}

TEST(EngineNames, EveryTensorOfEveryFamilyHasOnePlace) {
  for (const Architecture& architecture : architectures()) {
    const ModelConfig config = config_of(std::string(architecture.model_types.front()));
    for (const ShardLayout layout : {ShardLayout::kHf, ShardLayout::kMindie, ShardLayout::kVllm}) {
      const EngineNames names(layout, config);
      std::set<std::pair<std::string, size_t>> places;
      for (const ExpectedTensor& tensor : expected_tensors(architecture_of(config), config)) {
        const EngineName name = names.find(tensor.name);
        EXPECT_EQ(name.members.at(name.place), tensor.name);
        EXPECT_TRUE(places.emplace(name.stored, name.place).second) << tensor.name;
      }
    }
  }
}

TEST(EngineNames, LayoutsAreReadByName) {
  EXPECT_EQ(parse_shard_layout("mindie"), ShardLayout::kMindie);
  EXPECT_EQ(shard_layout_name(ShardLayout::kVllm), "vllm");
  EXPECT_EQ(test::error_message(ErrorCode::kBadInput, [] { parse_shard_layout("gguf"); }),
            "unknown layout \"gguf\"; known are hf, mindie, vllm");
}

}  // namespace
}  // namespace llmq::formats
