#include "formats/architecture.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "formats/error.h"
#include "tests/tools/test_files.h"

namespace llmq::formats {
namespace {

using test::error_message;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;

ModelConfig config_of(const std::string& model_type) {
  ModelConfig config;
  config.model_type = model_type;
  config.hidden_size = 64;
  config.intermediate_size = 96;
  config.n_layers = 2;
  config.n_heads = 4;
  config.n_kv_heads = 2;
  config.head_dim = 24;
  config.vocab_size = 100;
  return config;
}

ModelConfig moe_config() {
  ModelConfig config = config_of("qwen3_moe");
  config.n_experts = 3;
  config.n_experts_per_token = 2;
  config.moe_intermediate_size = 8;
  return config;
}

std::vector<ExpectedTensor> tensors_of(const ModelConfig& config) {
  return expected_tensors(architecture_of(config), config);
}

const ExpectedTensor* find(const std::vector<ExpectedTensor>& tensors, const std::string& name) {
  const auto it = std::find_if(tensors.begin(), tensors.end(),
                               [&](const ExpectedTensor& tensor) { return tensor.name == name; });
  return it == tensors.end() ? nullptr : &*it;
}

std::set<std::string> names_of(const ModelConfig& config) {
  std::set<std::string> names;
  for (const ExpectedTensor& tensor : tensors_of(config)) {
    EXPECT_TRUE(names.insert(tensor.name).second) << tensor.name << " is there twice";
  }
  return names;
}

// The q, k, v, o, gate, up, down biases of layer 1, as letters.
std::string biases_of(const ModelConfig& config) {
  const std::set<std::string> names = names_of(config);
  std::string found;
  for (const char* module : {"self_attn.q", "self_attn.k", "self_attn.v", "self_attn.o", "mlp.gate",
                             "mlp.up", "mlp.down"}) {
    if (names.contains("model.layers.1." + std::string(module) + "_proj.bias")) {
      found += std::string(module).substr(std::string(module).find('.') + 1) + " ";
    }
  }
  return found;
}

TEST(Architecture, UnknownModelTypeListsTheKnownOnes) {
  for (const char* type : {"", "gpt2", "Qwen2", "qwen2_vl"}) {
    const std::string message =
        error_message(ErrorCode::kBadInput, [&] { (void)architecture_of(config_of(type)); });
    EXPECT_THAT(message, AllOf(HasSubstr("\"" + std::string(type) + "\""), HasSubstr("llama"),
                               HasSubstr("qwen2"), HasSubstr("qwen3"), HasSubstr("qwen3_moe")));
  }
}

TEST(Architecture, EveryModelTypeOfTheTableFindsItsFamily) {
  for (const Architecture& architecture : architectures()) {
    for (const std::string_view type : architecture.model_types) {
      EXPECT_EQ(&architecture_of(config_of(std::string(type))), &architecture) << type;
    }
  }
}

TEST(Architecture, TensorsOfADenseModelStandInTheOrderOfExecution) {
  std::vector<std::string> names;
  ModelConfig config = config_of("qwen3");
  config.n_layers = 1;
  for (const ExpectedTensor& tensor : tensors_of(config)) names.push_back(tensor.name);
  const std::string layer = "model.layers.0.";
  EXPECT_THAT(names,
              ElementsAre("model.embed_tokens.weight", layer + "input_layernorm.weight",
                          layer + "self_attn.q_proj.weight", layer + "self_attn.k_proj.weight",
                          layer + "self_attn.v_proj.weight", layer + "self_attn.q_norm.weight",
                          layer + "self_attn.k_norm.weight", layer + "self_attn.o_proj.weight",
                          layer + "post_attention_layernorm.weight", layer + "mlp.gate_proj.weight",
                          layer + "mlp.up_proj.weight", layer + "mlp.down_proj.weight",
                          "model.norm.weight", "lm_head.weight"));
}

TEST(Architecture, ShapesFollowHeadsAndHeadDimRatherThanHiddenSize) {
  const std::vector<ExpectedTensor> tensors = tensors_of(config_of("qwen3"));
  const std::map<std::string, Shape> shapes = {
      {"model.embed_tokens.weight", {100, 64}},
      {"model.layers.1.input_layernorm.weight", {64}},
      {"model.layers.1.self_attn.q_proj.weight", {96, 64}},
      {"model.layers.1.self_attn.k_proj.weight", {48, 64}},
      {"model.layers.1.self_attn.v_proj.weight", {48, 64}},
      {"model.layers.1.self_attn.q_norm.weight", {24}},
      {"model.layers.1.self_attn.o_proj.weight", {64, 96}},
      {"model.layers.1.mlp.gate_proj.weight", {96, 64}},
      {"model.layers.1.mlp.down_proj.weight", {64, 96}},
      {"model.norm.weight", {64}},
      {"lm_head.weight", {100, 64}},
  };
  for (const auto& [name, shape] : shapes) {
    const ExpectedTensor* tensor = find(tensors, name);
    ASSERT_NE(tensor, nullptr) << name;
    EXPECT_EQ(tensor->shape, shape) << name;
    EXPECT_EQ(tensor->module + ".weight", name);
    EXPECT_EQ(tensor->layer, name.find("layers.1.") == std::string::npos ? -1 : 1) << name;
  }
}

TEST(Architecture, BiasesAreThoseOfTheFamily) {
  EXPECT_EQ(biases_of(config_of("qwen2")), "q k v ");
  EXPECT_EQ(biases_of(config_of("qwen3")), "");
  EXPECT_EQ(biases_of(config_of("llama")), "");
  const std::vector<ExpectedTensor> tensors = tensors_of(config_of("qwen2"));
  const ExpectedTensor* bias = find(tensors, "model.layers.1.self_attn.k_proj.bias");
  ASSERT_NE(bias, nullptr);
  EXPECT_EQ(bias->shape, Shape{48});
  EXPECT_TRUE(bias->is_bias);
  EXPECT_EQ(bias->module, "model.layers.1.self_attn.k_proj");
}

TEST(Architecture, ConfigSwitchesBiasesWhereTheFamilyLeavesThemOpen) {
  for (const char* family : {"llama", "qwen3", "qwen3_moe"}) {
    ModelConfig config = config_of(family);
    config.attention_bias = true;
    EXPECT_EQ(biases_of(config), "q k v o ") << family;
    config.attention_bias = false;
    EXPECT_EQ(biases_of(config), "") << family;
  }
  ModelConfig config = config_of("llama");
  config.mlp_bias = true;
  EXPECT_EQ(biases_of(config), "gate up down ");
  config = config_of("qwen2");
  config.attention_bias = false;
  EXPECT_EQ(biases_of(config), "q k v ");
}

TEST(Architecture, ATiedModelMayHaveItsMatrixUnderEitherName) {
  ModelConfig config = config_of("qwen2");
  for (const bool tied : {false, true}) {
    config.tie_word_embeddings = tied;
    for (const ExpectedTensor& tensor : tensors_of(config)) {
      const bool is_shared =
          tensor.name == "lm_head.weight" || tensor.name == "model.embed_tokens.weight";
      EXPECT_EQ(tensor.is_required, !(tied && is_shared)) << tensor.name;
    }
  }
}

TEST(Architecture, EveryExpertHasItsLinearsAndTheRouterItsRow) {
  const std::vector<ExpectedTensor> tensors = tensors_of(moe_config());
  const ExpectedTensor* router = find(tensors, "model.layers.0.mlp.gate.weight");
  ASSERT_NE(router, nullptr);
  EXPECT_EQ(router->shape, (Shape{3, 64}));
  EXPECT_EQ(router->row->group, FusedGroup::kNone);
  for (int64_t expert = 0; expert < 3; ++expert) {
    const std::string prefix = "model.layers.1.mlp.experts." + std::to_string(expert);
    const ExpectedTensor* up = find(tensors, prefix + ".up_proj.weight");
    const ExpectedTensor* down = find(tensors, prefix + ".down_proj.weight");
    ASSERT_NE(up, nullptr);
    ASSERT_NE(down, nullptr);
    EXPECT_EQ(up->shape, (Shape{8, 64}));
    EXPECT_EQ(down->shape, (Shape{64, 8}));
    EXPECT_EQ(up->expert, expert);
    EXPECT_EQ(up->layer, 1);
  }
  EXPECT_EQ(find(tensors, "model.layers.0.mlp.gate_proj.weight"), nullptr);
  EXPECT_EQ(find(tensors, "model.layers.0.mlp.experts.3.up_proj.weight"), nullptr);
}

TEST(Architecture, DenseLayersBetweenExpertLayersHaveOneMlp) {
  ModelConfig config = moe_config();
  config.mlp_only_layers = {0};
  const std::set<std::string> names = names_of(config);
  EXPECT_TRUE(names.contains("model.layers.0.mlp.gate_proj.weight"));
  EXPECT_FALSE(names.contains("model.layers.0.mlp.gate.weight"));
  EXPECT_FALSE(names.contains("model.layers.0.mlp.experts.0.up_proj.weight"));
  EXPECT_FALSE(names.contains("model.layers.1.mlp.gate_proj.weight"));
  EXPECT_TRUE(names.contains("model.layers.1.mlp.gate.weight"));
}

// Engines load q,k,v as one matrix and gate,up as another; o, down and the head stand alone.
TEST(Architecture, FusedGroupsAreThoseThatEnginesLoadAsOne) {
  for (const Architecture& architecture : architectures()) {
    std::map<FusedGroup, std::set<Role>> members;
    for (const ModuleRow& row : architecture.modules) members[row.group].insert(row.role);
    const bool is_fused = find_module_row(architecture, Role::kQkv) != nullptr;
    EXPECT_EQ(members[FusedGroup::kQkv], is_fused ? std::set<Role>{Role::kQkv}
                                                  : (std::set<Role>{Role::kQ, Role::kK, Role::kV}));
    EXPECT_EQ(members[FusedGroup::kGateUp], (std::set<Role>{Role::kGate, Role::kUp}));
    EXPECT_EQ(members[FusedGroup::kAttentionOut], std::set<Role>{Role::kO});
    EXPECT_EQ(members[FusedGroup::kDown], std::set<Role>{Role::kDown});
    EXPECT_EQ(members[FusedGroup::kHead], std::set<Role>{Role::kHead});
  }
}

TEST(Architecture, SlicingFollowsTheRole) {
  const std::map<Role, TpAxis> axes = {{Role::kEmbedding, TpAxis::kVocabularyParallel},
                                       {Role::kHead, TpAxis::kVocabularyParallel},
                                       {Role::kQ, TpAxis::kColumnParallel},
                                       {Role::kK, TpAxis::kColumnByKvHead},
                                       {Role::kV, TpAxis::kColumnByKvHead},
                                       {Role::kO, TpAxis::kRowParallel},
                                       {Role::kGate, TpAxis::kColumnParallel},
                                       {Role::kUp, TpAxis::kColumnParallel},
                                       {Role::kDown, TpAxis::kRowParallel},
                                       {Role::kExpertGate, TpAxis::kColumnParallel},
                                       {Role::kExpertDown, TpAxis::kRowParallel},
                                       {Role::kRouter, TpAxis::kReplicated},
                                       {Role::kQNorm, TpAxis::kReplicated},
                                       {Role::kInputNorm, TpAxis::kReplicated}};
  for (const Architecture& architecture : architectures()) {
    for (const auto& [role, axis] : axes) {
      const ModuleRow* row = find_module_row(architecture, role);
      if (row != nullptr) {
        EXPECT_EQ(row->tp, axis) << architecture.family << role_name(role);
      }
    }
  }
}

TEST(Architecture, LinearsReadTheNormBeforeThem) {
  for (const Architecture& architecture : architectures()) {
    for (const ModuleRow& row : architecture.modules) {
      if (row.group == FusedGroup::kQkv) {
        EXPECT_EQ(row.fed_by, Role::kInputNorm);
      }
      if (row.group == FusedGroup::kGateUp || row.group == FusedGroup::kExpertGateUp) {
        EXPECT_EQ(row.fed_by, Role::kPostAttentionNorm);
      }
      if (row.group == FusedGroup::kHead) {
        EXPECT_EQ(row.fed_by, Role::kFinalNorm);
      }
      if (row.role == Role::kO || row.role == Role::kDown) {
        EXPECT_FALSE(row.fed_by.has_value());
      }
    }
  }
}

TEST(Architecture, RolesThatAFamilyLacksAreNullOrABug) {
  const Architecture& llama = architecture_of(config_of("llama"));
  EXPECT_EQ(find_module_row(llama, Role::kRouter), nullptr);
  EXPECT_THAT(error_message(ErrorCode::kInternal, [&] { (void)module_row(llama, Role::kRouter); }),
              HasSubstr("llama has no router"));
  EXPECT_EQ(module_row(llama, Role::kQ).role, Role::kQ);
}

TEST(Architecture, RoleNamesAreDistinct) {
  std::set<std::string_view> names;
  for (int role = 0; role <= static_cast<int>(Role::kHead); ++role) {
    EXPECT_TRUE(names.insert(role_name(static_cast<Role>(role))).second) << role;
  }
  EXPECT_EQ(role_name(Role::kHead), "head");
  EXPECT_EQ(role_name(Role::kDown), "down");
}

TEST(Architecture, ModulePathPutsInLayerAndExpert) {
  const Architecture& moe = architecture_of(moe_config());
  EXPECT_EQ(module_path(module_row(moe, Role::kExpertDown), 12, 7),
            "model.layers.12.mlp.experts.7.down_proj");
  EXPECT_EQ(module_path(module_row(moe, Role::kHead), -1), "lm_head");
}

}  // namespace
}  // namespace llmq::formats
