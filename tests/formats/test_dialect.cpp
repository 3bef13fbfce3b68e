#include "formats/dialect.h"

#include <gtest/gtest.h>

#include "formats/architecture.h"
#include "formats/error.h"
#include "formats/json.h"
#include "formats/model_config.h"

namespace llmq::formats {
namespace {

const TensorRule& rule_of(Scheme scheme, std::string_view suffix) {
  for (const TensorRule& rule : scheme_row(scheme).tensors) {
    if (rule.suffix == suffix) return rule;
  }
  throw Error(ErrorCode::kInternal, "no such rule");
}

TEST(Dialect, layouts_of_int4_are_told_apart_by_their_shape) {
  EXPECT_EQ(int4_layout({6, 8}, 6, 8), Int4Layout::kOnePerByte);
  EXPECT_EQ(int4_layout({6, 4}, 6, 8), Int4Layout::kColumnPairs);
  EXPECT_EQ(int4_layout({3, 8}, 6, 8), Int4Layout::kRowPairs);
  EXPECT_EQ(int4_layout({3, 4}, 6, 8), std::nullopt);
  EXPECT_EQ(int4_layout({2, 8}, 5, 8), std::nullopt);
  EXPECT_EQ(int4_layout({24}, 6, 8), std::nullopt);
}

TEST(Dialect, codes_lie_in_pairs_from_version_1_on) {
  Description description;
  EXPECT_FALSE(stores_int4_pairs(description));
  description.version = "0.0.0";
  EXPECT_FALSE(stores_int4_pairs(description));
  for (const char* version : {"1.0.0", "2.1.0", "10.0.0"}) {
    description.version = version;
    EXPECT_TRUE(stores_int4_pairs(description)) << version;
  }
}

TEST(Dialect, sixteen_bit_weights_are_float_whatever_their_tag) {
  EXPECT_EQ(effective_scheme(Scheme::kW8A8, DType::kF16), Scheme::kFloat);
  EXPECT_EQ(effective_scheme(Scheme::kW4A16, DType::kBF16), Scheme::kFloat);
  EXPECT_EQ(effective_scheme(Scheme::kW8A8, DType::kI8), Scheme::kW8A8);
  EXPECT_EQ(effective_scheme(Scheme::kW8A8, DType::kF32), Scheme::kW8A8);
}

TEST(Dialect, parameters_may_be_stored_in_every_float_type_and_offsets_of_inputs_in_int8) {
  const auto accepts = [](std::string_view suffix, DType stored) {
    return accepts_dtype(rule_of(Scheme::kW8A8, suffix), stored, DType::kF16);
  };
  for (const DType dtype : {DType::kF32, DType::kF16, DType::kBF16}) {
    for (const char* suffix : {".input_scale", ".input_offset", ".weight_scale", ".weight_offset"})
      EXPECT_TRUE(accepts(suffix, dtype)) << suffix;
    EXPECT_FALSE(accepts(".weight", dtype));
    EXPECT_FALSE(accepts(".quant_bias", dtype));
  }
  EXPECT_TRUE(accepts(".input_offset", DType::kI8));
  EXPECT_FALSE(accepts(".input_scale", DType::kI8));
  EXPECT_FALSE(accepts(".weight_scale", DType::kF64));
  EXPECT_TRUE(accepts(".deq_scale", DType::kI64));
  EXPECT_FALSE(accepts(".deq_scale", DType::kF32));
}

TEST(Dialect, vectors_serve_for_columns_and_scalars_for_single_elements) {
  EXPECT_TRUE(accepts_shape({7}, {7, 1}));
  EXPECT_TRUE(accepts_shape({7, 1}, {7, 1}));
  EXPECT_TRUE(accepts_shape({}, {1}));
  EXPECT_TRUE(accepts_shape({1}, {1}));
  EXPECT_TRUE(accepts_shape({3, 9}, {}));
  EXPECT_FALSE(accepts_shape({14}, {7, 2}));
  EXPECT_FALSE(accepts_shape({1, 7}, {7, 1}));
  EXPECT_FALSE(accepts_shape({0}, {1}));
  EXPECT_FALSE(accepts_shape({}, {7}));
}

TEST(Dialect, the_shape_of_scales_gives_the_group_size) {
  EXPECT_EQ(group_size_of({5}, 32), 0);
  EXPECT_EQ(group_size_of({5, 1}, 32), 0);
  EXPECT_EQ(group_size_of({5, 4}, 32), 8);
  for (const Shape& wrong : {Shape{}, Shape{5, 0}, Shape{5, 3}, Shape{5, 4, 1}})
    EXPECT_THROW(group_size_of(wrong, 32), Error) << shape_string(wrong);
}

ModelConfig tiny_config(const char* more) {
  Json document = Json::parse(R"({"model_type": "qwen2", "hidden_size": 8, "num_hidden_layers": 2,
      "intermediate_size": 12, "num_attention_heads": 2, "vocab_size": 10})");
  document.merge_patch(Json::parse(more));
  return parse_model_config(document, "config.json");
}

TEST(Dialect, bare_names_are_those_of_the_table_without_model) {
  ModelConfig config = tiny_config("{}");
  const std::vector<ExpectedTensor> full = expected_tensors(architecture_of(config), config);
  config.bare_names = true;
  const std::vector<ExpectedTensor> bare = expected_tensors(architecture_of(config), config);
  ASSERT_EQ(bare.size(), full.size());
  for (size_t i = 0; i < bare.size(); ++i) {
    EXPECT_EQ(table_name(config, bare[i].name), full[i].name);
    EXPECT_EQ(bare[i].shape, full[i].shape);
    EXPECT_EQ(bare[i].is_required, bare[i].name != "lm_head.weight") << bare[i].name;
    EXPECT_TRUE(full[i].is_required);
  }
  EXPECT_EQ(bare.front().name, "embed_tokens.weight");
  EXPECT_EQ(bare.back().name, "lm_head.weight");
  config.bare_names = false;
  EXPECT_EQ(table_name(config, "norm"), "norm");
}

TEST(Dialect, every_family_has_its_rows_under_bare_names_too) {
  for (const Architecture& family : architectures()) {
    ModelConfig config;
    config.model_type = family.model_types.front();
    config.bare_names = true;
    const Architecture& bare = architecture_of(config);
    EXPECT_EQ(bare.family, family.family);
    ASSERT_EQ(bare.modules.size(), family.modules.size());
    for (size_t i = 0; i < bare.modules.size(); ++i) {
      EXPECT_EQ(bare.modules[i].role, family.modules[i].role);
      EXPECT_FALSE(bare.modules[i].path.starts_with("model."));
      EXPECT_TRUE(family.modules[i].path.ends_with(bare.modules[i].path));
    }
  }
}

TEST(Dialect, an_embedding_model_needs_its_embedding_and_no_head) {
  for (const char* tied : {"true", "false"}) {
    const std::string more =
        std::string(R"({"architectures": ["Qwen2Model"], "tie_word_embeddings": )") + tied + "}";
    const ModelConfig config = tiny_config(more.c_str());
    EXPECT_TRUE(config.may_lack_head());
    for (const ExpectedTensor& tensor : expected_tensors(architecture_of(config), config))
      EXPECT_EQ(tensor.is_required, tensor.name != "lm_head.weight") << tensor.name;
  }
  for (const char* more : {"{}", R"({"architectures": ["Qwen2ForCausalLM"]})",
                           R"({"architectures": ["QWenLMHeadModel"]})",
                           R"({"architectures": ["Qwen2Model", "Qwen2ForCausalLM"]})"})
    EXPECT_FALSE(tiny_config(more).may_lack_head()) << more;
}

TEST(Dialect, attention_is_causal_unless_config_json_says_otherwise) {
  EXPECT_TRUE(tiny_config("{}").is_causal);
  EXPECT_TRUE(tiny_config(R"({"is_causal": true})").is_causal);
  EXPECT_FALSE(tiny_config(R"({"is_causal": false})").is_causal);
}

}  // namespace
}  // namespace llmq::formats
