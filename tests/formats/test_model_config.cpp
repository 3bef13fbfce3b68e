#include "formats/model_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <ostream>
#include <string>
#include <vector>

#include "formats/error.h"
#include "tests/tools/test_files.h"

namespace llmq::formats {
namespace {

using test::error_message;
using testing::AllOf;
using testing::HasSubstr;

Json qwen2() {
  return Json::parse(R"({"model_type":"qwen2","architectures":["Qwen2ForCausalLM"],
      "hidden_size":64,"intermediate_size":128,"num_hidden_layers":4,"num_attention_heads":4,
      "num_key_value_heads":2,"vocab_size":96,"max_position_embeddings":256,
      "torch_dtype":"bfloat16"})");
}

ModelConfig parse(const Json& document) {
  return parse_model_config(document, "config.json");
}

ModelConfig parse_with(const char* changes) {
  Json document = qwen2();
  document.merge_patch(Json::parse(changes));
  return parse(document);
}

// merge_patch takes keys out where the change is null; this one sets them to null.
ModelConfig parse_with_null(const char* key) {
  Json document = qwen2();
  document[key] = nullptr;
  return parse(document);
}

std::string refusal(const char* changes) {
  return error_message(ErrorCode::kBadInput, [&] { (void)parse_with(changes); });
}

TEST(ModelConfig, KeysThatAreNotThereHaveTheirDefaults) {
  const ModelConfig config = parse(Json::parse(R"({"model_type":"llama","hidden_size":64,
      "intermediate_size":128,"num_hidden_layers":2,"num_attention_heads":4,"vocab_size":96})"));
  EXPECT_EQ(config.n_kv_heads, 4);
  EXPECT_EQ(config.head_dim, 16);
  EXPECT_EQ(config.rms_norm_eps, 1e-6);
  EXPECT_EQ(config.rope_theta, 10000.0);
  EXPECT_EQ(config.partial_rotary_factor, 1.0);
  EXPECT_EQ(config.rope_scaling.kind, RopeScalingKind::kNone);
  EXPECT_FALSE(config.tie_word_embeddings);
  EXPECT_FALSE(config.attention_bias.has_value());
  EXPECT_FALSE(config.mlp_bias.has_value());
  EXPECT_FALSE(config.sliding_window.has_value());
  EXPECT_EQ(config.torch_dtype, DType::kF32);
  EXPECT_EQ(config.hidden_act, "silu");
  EXPECT_EQ(config.n_experts, 0);
  EXPECT_FALSE(config.bos_token_id.has_value());
  EXPECT_TRUE(config.eos_token_ids.empty());
  EXPECT_EQ(config.quantize, "");
  EXPECT_TRUE(config.architectures.empty());
}

TEST(ModelConfig, NullCountsAsAbsent) {
  EXPECT_EQ(parse_with_null("num_key_value_heads").n_kv_heads, 4);
  EXPECT_EQ(parse_with_null("head_dim").head_dim, 16);
  EXPECT_EQ(parse_with_null("rope_scaling").rope_scaling.kind, RopeScalingKind::kNone);
  EXPECT_FALSE(parse_with_null("sliding_window").sliding_window.has_value());
  EXPECT_EQ(parse_with_null("torch_dtype").torch_dtype, DType::kF32);
  EXPECT_TRUE(parse_with_null("eos_token_id").eos_token_ids.empty());
  EXPECT_EQ(parse_with_null("architectures").architectures.size(), 0U);
  EXPECT_FALSE(parse_with_null("attention_bias").attention_bias.has_value());
}

TEST(ModelConfig, EveryRequiredKeyIsNamedWhenItIsMissing) {
  for (const char* key : {"model_type", "hidden_size", "intermediate_size", "num_hidden_layers",
                          "num_attention_heads", "vocab_size"}) {
    Json document = qwen2();
    document.erase(key);
    EXPECT_THAT(error_message(ErrorCode::kBadInput, [&] { (void)parse(document); }),
                AllOf(HasSubstr("config.json"), HasSubstr("\"" + std::string(key) + "\""),
                      HasSubstr("missing")));
  }
}

struct Refused {
  const char* changes;
  const char* words;
};

TEST(ModelConfig, ValuesOfTheWrongTypeOrOutOfRangeAreNamed) {
  const std::vector<Refused> cases = {
      {R"({"hidden_size":"64"})", "\"hidden_size\" is not a whole number"},
      {R"({"hidden_size":64.5})", "\"hidden_size\" is not a whole number"},
      {R"({"hidden_size":0})", "\"hidden_size\" is 0"},
      {R"({"hidden_size":-64})", "\"hidden_size\" is -64"},
      {R"({"vocab_size":2147483649})", "\"vocab_size\" is 2147483649"},
      {R"({"vocab_size":18446744073709551615})", "\"vocab_size\" is 18446744073709551615"},
      {R"({"vocab_size":1e300})", "\"vocab_size\" is not a whole number"},
      {R"({"num_hidden_layers":100001})", "\"num_hidden_layers\" is more than 100000"},
      {R"({"num_attention_heads":0})", "\"num_attention_heads\" is 0"},
      {R"({"num_key_value_heads":3})", "which does not divide the 4 attention heads"},
      {R"({"num_key_value_heads":8})", "which does not divide the 4 attention heads"},
      {R"({"num_key_value_heads":0})", "\"num_key_value_heads\" is 0"},
      {R"({"num_attention_heads":6,"num_key_value_heads":6})", "does not divide hidden_size 64"},
      {R"({"head_dim":15})", "\"head_dim\" is 15; rotary embedding needs an even number"},
      {R"({"head_dim":2147483648})", "\"head_dim\" is too large"},
      {R"({"rope_theta":0})", "\"rope_theta\" is not above 0"},
      {R"({"rope_theta":"x"})", "\"rope_theta\" is not a number"},
      {R"({"rms_norm_eps":-1e-6})", "\"rms_norm_eps\" is not above 0"},
      {R"({"partial_rotary_factor":1.5})", "\"partial_rotary_factor\" is above 1"},
      {R"({"tie_word_embeddings":1})", "\"tie_word_embeddings\" is neither true nor false"},
      {R"({"attention_bias":"no"})", "\"attention_bias\" is neither true nor false"},
      {R"({"architectures":"Qwen2ForCausalLM"})", "\"architectures\" is not a list"},
      {R"({"model_type":7})", "\"model_type\" is not a string"},
      {R"({"torch_dtype":"int8"})", "config.json: unsupported torch_dtype 'int8'"},
      {R"({"torch_dtype":16})", "\"torch_dtype\" is not a string"},
      {R"({"eos_token_id":["x"]})", "\"eos_token_id\" holds something that is not a number"},
      {R"({"num_experts":4})", "\"num_experts_per_tok\" is missing"},
      {R"({"num_experts":4,"num_experts_per_tok":2})", "\"moe_intermediate_size\" is missing"},
      {R"({"num_experts":4,"num_experts_per_tok":5,"moe_intermediate_size":8})",
       "\"num_experts_per_tok\" is larger than num_experts"},
      {R"({"num_experts":4,"num_experts_per_tok":2,"moe_intermediate_size":8,
           "decoder_sparse_step":0})",
       "\"decoder_sparse_step\" is 0"},
  };
  for (const Refused& refused : cases) {
    EXPECT_THAT(refusal(refused.changes), HasSubstr(refused.words)) << refused.changes;
  }
  EXPECT_THAT(error_message(ErrorCode::kBadInput, [] { (void)parse(Json::array()); }),
              HasSubstr("config.json: is not a JSON object"));
}

TEST(ModelConfig, TokenIdsThatAreNoInt32AreRefusedInsteadOfCut) {
  for (const char* changes :
       {R"({"eos_token_id":4294967298})", R"({"eos_token_id":[1,2147483648]})",
        R"({"eos_token_id":1e300})", R"({"eos_token_id":1.5})"}) {
    EXPECT_THAT(refusal(changes), HasSubstr("\"eos_token_id\"")) << changes;
  }
  EXPECT_THAT(refusal(R"({"bos_token_id":4294967297})"), HasSubstr("\"bos_token_id\""));
}

TEST(ModelConfig, LayerNumbersThatAreNotWholeAreRefusedInsteadOfCut) {
  EXPECT_THAT(refusal(R"({"num_experts":4,"num_experts_per_tok":2,"moe_intermediate_size":8,
                          "mlp_only_layers":[0.5]})"),
              HasSubstr("\"mlp_only_layers\""));
}

// Their table would not fit into memory; no model comes near.
TEST(ModelConfig, AnAbsurdNumberOfExpertsIsRefused) {
  EXPECT_THAT(refusal(R"({"num_experts":2000000000,"num_experts_per_tok":2,
                          "moe_intermediate_size":8})"),
              HasSubstr("\"num_experts\""));
  EXPECT_THAT(refusal(R"({"num_experts":60000,"num_hidden_layers":50000,
                          "num_experts_per_tok":2,"moe_intermediate_size":8})"),
              HasSubstr("\"num_experts\""));
}

TEST(ModelConfig, WholeNumbersMayBeSpelledWithAPoint) {
  EXPECT_EQ(parse_with(R"({"hidden_size":64.0})").hidden_size, 64);
}

TEST(ModelConfig, HeadDimNeedNotBeHiddenSizeOverHeads) {
  const ModelConfig config = parse_with(R"({"head_dim":128,"hidden_size":66})");
  EXPECT_EQ(config.head_dim, 128);
}

TEST(ModelConfig, EosMayBeOneTokenOrSeveral) {
  EXPECT_EQ(parse_with(R"({"eos_token_id":7})").eos_token_ids, (std::vector<int32_t>{7}));
  EXPECT_EQ(parse_with(R"({"eos_token_id":[7,8]})").eos_token_ids, (std::vector<int32_t>{7, 8}));
  EXPECT_EQ(parse_with(R"({"bos_token_id":5})").bos_token_id, 5);
}

TEST(ModelConfig, DtypeStandsUnderEitherKey) {
  EXPECT_EQ(parse_with(R"({"torch_dtype":null,"dtype":"float16"})").torch_dtype, DType::kF16);
  EXPECT_EQ(parse_with(R"({"dtype":"float16"})").torch_dtype, DType::kBF16);
}

TEST(ModelConfig, QwenUsesItsWindowOnlyWhereItIsSwitchedOn) {
  EXPECT_FALSE(parse_with(R"({"sliding_window":32})").sliding_window.has_value());
  EXPECT_FALSE(
      parse_with(R"({"sliding_window":32,"use_sliding_window":false})").sliding_window.has_value());
  const ModelConfig on =
      parse_with(R"({"sliding_window":32,"use_sliding_window":true,"max_window_layers":3})");
  EXPECT_EQ(on.sliding_window, 32);
  EXPECT_EQ(on.first_window_layer, 3);
  EXPECT_EQ(parse_with(R"({"sliding_window":32,"use_sliding_window":true})").first_window_layer, 4);
}

TEST(ModelConfig, MistralUsesItsWindowInEveryLayerWithoutASwitch) {
  const ModelConfig config = parse_with(R"({"model_type":"mistral","sliding_window":32})");
  EXPECT_EQ(config.sliding_window, 32);
  EXPECT_EQ(config.first_window_layer, 0);
}

TEST(ModelConfig, ExpertLayersFollowStepAndExceptions) {
  const ModelConfig dense = parse_with("{}");
  EXPECT_FALSE(dense.is_moe_layer(0));
  const char* experts = R"({"num_experts":4,"num_experts_per_tok":2,"moe_intermediate_size":8})";
  Json document = qwen2();
  document.merge_patch(Json::parse(experts));
  ModelConfig config = parse(document);
  for (int64_t layer = 0; layer < 4; ++layer) EXPECT_TRUE(config.is_moe_layer(layer)) << layer;
  document["decoder_sparse_step"] = 2;
  document["mlp_only_layers"] = {3};
  config = parse(document);
  EXPECT_FALSE(config.is_moe_layer(0));
  EXPECT_TRUE(config.is_moe_layer(1));
  EXPECT_FALSE(config.is_moe_layer(2));
  EXPECT_FALSE(config.is_moe_layer(3));
}

TEST(ModelConfig, ZeroExpertsIsADenseModel) {
  EXPECT_EQ(parse_with(R"({"num_experts":0})").n_experts, 0);
}

TEST(RopeScaling, EverySpellingOfTheTypeIsKnown) {
  const std::vector<std::pair<const char*, RopeScalingKind>> names = {
      {"linear", RopeScalingKind::kLinear}, {"dynamic", RopeScalingKind::kDynamic},
      {"yarn", RopeScalingKind::kYarn},     {"longrope", RopeScalingKind::kLongRope},
      {"su", RopeScalingKind::kLongRope},   {"default", RopeScalingKind::kNone},
      {"mrope", RopeScalingKind::kNone}};
  for (const auto& [name, kind] : names) {
    for (const char* key : {"type", "rope_type"}) {
      Json document = qwen2();
      document["rope_scaling"] = {{key, name}, {"factor", 4}};
      EXPECT_EQ(parse(document).rope_scaling.kind, kind) << key << " " << name;
    }
  }
}

TEST(RopeScaling, TheNewerKeyGoesBeforeTheOlder) {
  const RopeScaling scaling =
      parse_with(R"({"rope_scaling":{"type":"linear","rope_type":"yarn","factor":4}})")
          .rope_scaling;
  EXPECT_EQ(scaling.kind, RopeScalingKind::kYarn);
}

TEST(RopeScaling, YarnKeepsEveryParameterOfTheFile) {
  const RopeScaling scaling =
      parse_with(R"({"rope_scaling":{"rope_type":"yarn","factor":4.0,"beta_fast":24,"beta_slow":2,
          "original_max_position_embeddings":32768,"attention_factor":1.25,"mscale":0.7,
          "mscale_all_dim":0.8,"truncate":false}})")
          .rope_scaling;
  EXPECT_EQ(scaling.factor, 4.0);
  EXPECT_EQ(scaling.original_max_position_embeddings, 32768);
  EXPECT_EQ(scaling.beta_fast, 24.0);
  EXPECT_EQ(scaling.beta_slow, 2.0);
  EXPECT_EQ(scaling.attention_factor, 1.25);
  EXPECT_EQ(scaling.mscale, 0.7);
  EXPECT_EQ(scaling.mscale_all_dim, 0.8);
  EXPECT_FALSE(scaling.truncate);
}

TEST(RopeScaling, YarnDefaultsAreThoseOfThePaper) {
  const RopeScaling scaling =
      parse_with(R"({"rope_scaling":{"type":"yarn","factor":4}})").rope_scaling;
  EXPECT_EQ(scaling.beta_fast, 32.0);
  EXPECT_EQ(scaling.beta_slow, 1.0);
  EXPECT_FALSE(scaling.attention_factor.has_value());
  EXPECT_FALSE(scaling.original_max_position_embeddings.has_value());
  EXPECT_TRUE(scaling.truncate);
}

TEST(RopeScaling, LongRopeKeepsItsFactorLists) {
  const RopeScaling scaling =
      parse_with(R"({"rope_scaling":{"type":"longrope","short_factor":[1,1.5],
                                     "long_factor":[2,4.5]}})")
          .rope_scaling;
  EXPECT_EQ(scaling.short_factor, (std::vector<double>{1, 1.5}));
  EXPECT_EQ(scaling.long_factor, (std::vector<double>{2, 4.5}));
}

TEST(RopeScaling, RopeParametersHoldThetaAndScalingTogether) {
  const ModelConfig config = parse_with(
      R"({"rope_theta":10000,"rope_parameters":{"rope_theta":1000000.0,"rope_type":"yarn",
          "factor":2.0,"partial_rotary_factor":0.5}})");
  EXPECT_EQ(config.rope_theta, 1e6);
  EXPECT_EQ(config.partial_rotary_factor, 0.5);
  EXPECT_EQ(config.rope_scaling.kind, RopeScalingKind::kYarn);
  EXPECT_EQ(config.rope_scaling.factor, 2.0);
}

TEST(RopeScaling, RopeParametersMayUseTheOlderKeyOfTheType) {
  const ModelConfig config =
      parse_with(R"({"rope_parameters":{"rope_theta":1e6,"type":"linear","factor":2.0}})");
  EXPECT_EQ(config.rope_scaling.kind, RopeScalingKind::kLinear);
}

TEST(RopeScaling, RopeParametersWithoutATypeScaleNothing) {
  const ModelConfig config = parse_with(R"({"rope_parameters":{"rope_theta":5e5}})");
  EXPECT_EQ(config.rope_theta, 5e5);
  EXPECT_EQ(config.rope_scaling.kind, RopeScalingKind::kNone);
}

TEST(RopeScaling, WhatIsMissingOrOutOfRangeIsNamed) {
  const std::vector<Refused> cases = {
      {R"({"rope_scaling":[]})", "rope_scaling: is not a JSON object"},
      {R"({"rope_scaling":{"factor":4}})", "neither \"rope_type\" nor \"type\""},
      {R"({"rope_scaling":{"type":"ntk","factor":4}})", "unknown type \"ntk\""},
      {R"({"rope_scaling":{"type":"yarn"}})", "\"factor\" is missing"},
      {R"({"rope_scaling":{"type":"linear","factor":0.5}})", "\"factor\" is below 1"},
      {R"({"rope_scaling":{"type":"linear","factor":0}})", "\"factor\" is not above 0"},
      {R"({"rope_scaling":{"type":"linear","factor":"4"}})", "\"factor\" is not a number"},
      {R"({"rope_scaling":{"type":"yarn","factor":4,"original_max_position_embeddings":0}})",
       "\"original_max_position_embeddings\" is 0"},
      {R"({"rope_scaling":{"type":"longrope","short_factor":["x"]}})", "\"short_factor\" holds"},
      {R"({"rope_scaling":{"type":"llama3","factor":8}})",
       "\"original_max_position_embeddings\" is missing"},
      {R"({"rope_scaling":{"type":"llama3","factor":8,"original_max_position_embeddings":8192,
           "low_freq_factor":4,"high_freq_factor":4}})",
       "\"high_freq_factor\" is not above low_freq_factor"},
  };
  for (const Refused& refused : cases) {
    EXPECT_THAT(refusal(refused.changes), HasSubstr(refused.words)) << refused.changes;
  }
}

TEST(ReadModelConfig, TakesAFileOrTheFolderAroundIt) {
  const test::TemporaryFolder folder;
  test::write_file(folder / "config.json", qwen2().dump());
  test::write_file(folder / "other.json", qwen2().dump());
  EXPECT_EQ(read_model_config(folder.path()).n_layers, 4);
  EXPECT_EQ(read_model_config(folder / "other.json").n_layers, 4);
  EXPECT_THAT(
      error_message(ErrorCode::kBadInput, [&] { (void)read_model_config(folder / "none.json"); }),
      HasSubstr("none.json: no such file"));
}

TEST(RewriteConfig, ChangesStayInTheirPlaceAndNewKeysComeLast) {
  const Json document = Json::parse(R"({"z":1,"torch_dtype":"float32","a":{"y":1,"b":2},"m":3})");
  const Json changes = {{"quantize", "w8a16"}, {"torch_dtype", "float16"}};
  EXPECT_EQ(rewrite_config(document, changes, {}).dump(),
            R"({"z":1,"torch_dtype":"float16","a":{"y":1,"b":2},"m":3,"quantize":"w8a16"})");
}

TEST(RewriteConfig, RemovedKeysLeaveTheOthersInTheirOrder) {
  const Json document = Json::parse(R"({"z":1,"quantization_config":{"x":1},"a":2})");
  EXPECT_EQ(rewrite_config(document, Json::object(), {"quantization_config", "absent"}).dump(),
            R"({"z":1,"a":2})");
}

}  // namespace
}  // namespace llmq::formats
