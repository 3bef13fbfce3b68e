// What configurations of mixtures of experts, of the first Qwen and of layer_types say.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "formats/architecture.h"
#include "formats/error.h"
#include "formats/model_config.h"
#include "tests/tools/test_files.h"

namespace llmq::formats {
namespace {

using test::error_message;
using testing::HasSubstr;

Json document_of(const std::string& model_type) {
  return {{"model_type", model_type}, {"hidden_size", 32},        {"intermediate_size", 48},
          {"num_hidden_layers", 3},   {"num_attention_heads", 4}, {"vocab_size", 96}};
}

Json moe_document() {
  Json document = document_of("qwen2_moe");
  document.update({{"num_experts", 6},
                   {"num_experts_per_tok", 3},
                   {"moe_intermediate_size", 20},
                   {"shared_expert_intermediate_size", 28},
                   {"mlp_only_layers", {1}}});
  return document;
}

std::string error_of(const Json& document) {
  return error_message(ErrorCode::kBadInput,
                       [&] { (void)parse_model_config(document, "config.json"); });
}

TEST(Families, AMixtureOfExpertsMustStateItsExtents) {
  for (const char* key : {"num_experts", "num_experts_per_tok", "moe_intermediate_size",
                          "shared_expert_intermediate_size"}) {
    Json document = moe_document();
    document.erase(key);
    EXPECT_THAT(error_of(document), HasSubstr(key));
  }
  Json document = moe_document();
  document["num_experts_per_tok"] = 7;
  EXPECT_THAT(error_of(document), HasSubstr("num_experts_per_tok"));
}

TEST(Families, Qwen2MoeHasASharedExpertAndNeverQuantizesWhatRoutes) {
  const ModelConfig config = parse_model_config(moe_document(), "config.json");
  size_t n_found = 0;
  for (const ExpectedTensor& tensor : expected_tensors(architecture_of(config), config)) {
    if (tensor.name == "model.layers.0.mlp.shared_expert_gate.weight") {
      ++n_found;
      EXPECT_EQ(tensor.shape, (Shape{1, 32}));
      EXPECT_EQ(tensor.row->group, FusedGroup::kNone);
    } else if (tensor.name == "model.layers.0.mlp.gate.weight") {
      ++n_found;
      EXPECT_EQ(tensor.row->group, FusedGroup::kNone);
    } else if (tensor.name == "model.layers.2.mlp.shared_expert.down_proj.weight") {
      ++n_found;
      EXPECT_EQ(tensor.shape, (Shape{32, 28}));
      EXPECT_EQ(fused_group_name(tensor.row->group), "shared_down");
    }
    EXPECT_EQ(tensor.name.find("layers.1.mlp.shared"), std::string::npos) << "layer 1 is dense";
  }
  EXPECT_EQ(n_found, 3U);
}

TEST(Families, TheFirstQwenNamesItsKeysInItsOwnWay) {
  Json document = document_of("qwen");
  EXPECT_THAT(error_of(document), HasSubstr("seq_length"));
  document.update({{"seq_length", 96},
                   {"max_position_embeddings", 256},
                   {"kv_channels", 8},
                   {"rotary_emb_base", 5000.0},
                   {"layer_norm_epsilon", 1e-5},
                   {"no_bias", true}});
  const ModelConfig config = parse_model_config(document, "config.json");
  EXPECT_EQ(config.intermediate_size, 24);
  EXPECT_EQ(config.max_position_embeddings, 96);
  EXPECT_EQ(config.rope_theta, 5000.0);
  EXPECT_EQ(config.rms_norm_eps, 1e-5);
  const ModuleRow& qkv = module_row(architecture_of(config), Role::kQkv);
  EXPECT_EQ(extent_of(qkv.n_out, config), 96);
  EXPECT_TRUE(has_bias(qkv, config));
  EXPECT_FALSE(has_bias(module_row(architecture_of(config), Role::kDown), config));
}

TEST(Families, LayerTypesNameTheLayersWithAWindow) {
  Json document = document_of("qwen3");
  document.update({{"use_sliding_window", true},
                   {"sliding_window", 8},
                   {"layer_types", {"sliding_attention", "full_attention", "sliding_attention"}}});
  const ModelConfig config = parse_model_config(document, "config.json");
  EXPECT_EQ(config.window_of(0), 8);
  EXPECT_EQ(config.window_of(1), 0);
  EXPECT_EQ(config.window_of(2), 8);
  Json wrong = document;
  wrong["layer_types"] = {"full_attention"};
  EXPECT_THAT(error_of(wrong), HasSubstr("each of the 3 layers"));
  wrong = document;
  wrong["layer_types"][1] = "chunked_attention";
  EXPECT_THAT(error_of(wrong), HasSubstr("chunked_attention"));
  wrong = document;
  wrong["use_sliding_window"] = false;
  EXPECT_THAT(error_of(wrong), HasSubstr("gives no window"));
}

}  // namespace
}  // namespace llmq::formats
