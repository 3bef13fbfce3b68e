// What options of the command line make of a recipe, and which recipe a model's name stands for.

#include "convert/recipes/recipe_options.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <string>
#include <vector>

#include "formats/error.h"
#include "tests/tools/test_files.h"

namespace llmq::convert {
namespace {

using formats::ErrorCode;
using formats::Scheme;
using test::error_message;
using testing::AllOf;
using testing::HasSubstr;
using Kind = quant::WeightMethod::Kind;

constexpr const char* kUpProj = "model.layers.7.mlp.up_proj";

Recipe changed(const char* type, const RecipeOptions& options) {
  Recipe recipe = builtin_recipe(type);
  apply_options(options, recipe);
  return recipe;
}

std::string refusal(const char* type, const RecipeOptions& options) {
  return error_message(ErrorCode::kUsage, [&] { (void)changed(type, options); });
}

RecipeOptions with(const std::function<void(RecipeOptions&)>& set) {
  RecipeOptions options;
  set(options);
  return options;
}

TEST(RecipeOptions, NoneChangeNothing) {
  for (const Recipe& recipe : builtin_recipes())
    EXPECT_EQ(recipe_json(changed(recipe.name.c_str(), {})), recipe_json(recipe)) << recipe.name;
}

// The guides' lists, and the neutral types.
TEST(RecipeOptions, EveryTypeOfTheGuidesIsThereWithItsScheme) {
  struct Row {
    const char* type;
    Scheme scheme;
    Scheme attention;
  };
  const std::vector<Row> rows = {
      {"qwen_w8a8", Scheme::kW8A8, Scheme::kFloat},
      {"qwen_w8a8s", Scheme::kW8A8S, Scheme::kFloat},
      {"qwencode_w8a8s", Scheme::kW8A8S, Scheme::kFloat},
      {"qwen_w8a16", Scheme::kW8A16, Scheme::kFloat},
      {"qwen_w4a16", Scheme::kW4A16, Scheme::kFloat},
      {"qwen2_72b_w8a8", Scheme::kW8A8, Scheme::kFloat},
      {"qwen2_72b_w8a8c8", Scheme::kW8A8, Scheme::kC8},
      {"qwen2_72b_w8a8s", Scheme::kW8A8S, Scheme::kFloat},
      {"qwen2p5_14b_w8a8c8_pdmix", Scheme::kW8A8Mix, Scheme::kC8},
      {"qwen2p5_72b_w8a8c8_pdmix", Scheme::kW8A8Mix, Scheme::kC8},
      {"qwen2p5_fa3", Scheme::kW8A8, Scheme::kFaQuant},
      {"llama3.1_8b_w8a8", Scheme::kW8A8, Scheme::kFloat},
      {"llama3.1_70b_instruct_fp16_w8a8", Scheme::kW8A8, Scheme::kFloat},
      {"llama3.1_70b_instruct_bf16_w8a8", Scheme::kW8A8, Scheme::kFloat},
      {"llama3_70b_w8a16", Scheme::kW8A16, Scheme::kFloat},
      {"w8a8", Scheme::kW8A8, Scheme::kFloat},
      {"w8a8_dynamic", Scheme::kW8A8Dynamic, Scheme::kFloat},
      {"w8a8_mix", Scheme::kW8A8Mix, Scheme::kFloat},
      {"w8a8s", Scheme::kW8A8S, Scheme::kFloat},
      {"w8a16", Scheme::kW8A16, Scheme::kFloat},
      {"w4a16", Scheme::kW4A16, Scheme::kFloat},
      {"w8a8c8", Scheme::kW8A8, Scheme::kC8},
  };
  for (const Row& row : rows) {
    const Recipe& recipe = builtin_recipe(row.type);
    EXPECT_EQ(recipe.rule_for(kUpProj).scheme, row.scheme) << row.type;
    EXPECT_EQ(recipe.main_scheme(), row.scheme) << row.type;
    EXPECT_EQ(recipe.attention, row.attention) << row.type;
  }
}

TEST(RecipeOptions, TypesThatAreRefusedSayWhyAndWhatToUse) {
  for (const char* type : {"w4a4", "w16a16s"}) {
    const std::string message = error_message(ErrorCode::kUsage, [&] { builtin_recipe(type); });
    EXPECT_THAT(message, AllOf(HasSubstr(type), HasSubstr("use w"))) << type;
  }
}

TEST(RecipeOptions, AnUnknownTypeGetsTheListALineEach) {
  const std::string message = error_message(ErrorCode::kUsage, [] { builtin_recipe("w3a5"); });
  for (const Recipe& recipe : builtin_recipes()) {
    const size_t at = message.find(recipe.summary);
    ASSERT_NE(at, std::string::npos) << recipe.name;
    const size_t line = message.rfind('\n', at) + 1;
    EXPECT_THAT(message.substr(line, at - line), HasSubstr(recipe.name));
  }
}

TEST(RecipeOptions, GroupsBelongToWeightOnlyRules) {
  const auto grouped = with([](RecipeOptions& options) { options.group_size = 64; });
  EXPECT_EQ(changed("qwen_w4a16", grouped).rule_for(kUpProj).group_size, 64);
  EXPECT_EQ(changed("w8a16", grouped).rule_for(kUpProj).group_size, 64);
  EXPECT_EQ(changed("w8a8", grouped).rule_for(kUpProj).group_size, 0);
}

TEST(RecipeOptions, BitsMakeTheSchemeOfTheirPair) {
  struct Row {
    const char* type;
    int weights;
    int activations;
    Scheme scheme;
  };
  const std::vector<Row> rows = {
      {"w8a8", 8, 16, Scheme::kW8A16},
      {"w8a8", 4, 16, Scheme::kW4A16},
      {"w8a8", 4, 8, Scheme::kW8A8S},
      {"w8a8", 8, 8, Scheme::kW8A8},
      {"w8a16", 8, 8, Scheme::kW8A8},
      {"w8a16", 4, 16, Scheme::kW4A16},
      {"w4a16", 8, 16, Scheme::kW8A16},
      {"w8a8s", 4, 8, Scheme::kW8A8S},
      {"w8a8s", 8, 8, Scheme::kW8A8},
      {"w8a8s", 8, 16, Scheme::kW8A16},
      {"w8a8_dynamic", 8, 8, Scheme::kW8A8Dynamic},
      {"w8a8_mix", 8, 8, Scheme::kW8A8Mix},
  };
  for (const Row& row : rows) {
    const Recipe recipe = changed(row.type, with([&](RecipeOptions& options) {
                                    options.weight_bits = row.weights;
                                    options.activation_bits = row.activations;
                                  }));
    const RecipeRule rule = recipe.rule_for(kUpProj);
    EXPECT_EQ(rule.scheme, row.scheme) << row.type << ' ' << row.weights << ' ' << row.activations;
    EXPECT_EQ(rule.method.sparse.has_value(), row.scheme == Scheme::kW8A8S) << row.type;
    EXPECT_EQ(recipe.main_scheme(), row.scheme) << row.type;
    EXPECT_EQ(recipe.rule_for("lm_head").scheme, Scheme::kFloat);
    const auto document = recipe_json(recipe);
    EXPECT_EQ(recipe_json(parse_recipe(document, "again")), document);
  }
}

TEST(RecipeOptions, OneOfTheBitsKeepsTheOther) {
  const auto weights = [](int bits) {
    return with([&](RecipeOptions& options) { options.weight_bits = bits; });
  };
  const auto activations = [](int bits) {
    return with([&](RecipeOptions& options) { options.activation_bits = bits; });
  };
  EXPECT_EQ(changed("w8a16", weights(4)).rule_for(kUpProj).scheme, Scheme::kW4A16);
  EXPECT_EQ(changed("w8a8", weights(4)).rule_for(kUpProj).scheme, Scheme::kW8A8S);
  EXPECT_EQ(changed("w8a8s", weights(4)).rule_for(kUpProj).scheme, Scheme::kW8A8S);
  EXPECT_EQ(changed("w8a8s", weights(8)).rule_for(kUpProj).scheme, Scheme::kW8A8);
  EXPECT_EQ(changed("w8a8", activations(16)).rule_for(kUpProj).scheme, Scheme::kW8A16);
  EXPECT_EQ(changed("w8a8_mix", weights(8)).rule_for(kUpProj).scheme, Scheme::kW8A8Mix);
}

TEST(RecipeOptions, GroupsOfWeightOnlyRulesDoNotSurviveActivationsOfEightBits) {
  Recipe recipe = builtin_recipe("w4a16");
  recipe.rules[0].group_size = 64;
  apply_options(with([](RecipeOptions& options) {
                  options.weight_bits = 8;
                  options.activation_bits = 8;
                }),
                recipe);
  EXPECT_EQ(recipe.rules[0].scheme, Scheme::kW8A8);
  EXPECT_EQ(recipe.rules[0].group_size, 0);
}

TEST(RecipeOptions, BitsThatAreNoSchemeAreRefused) {
  EXPECT_THAT(refusal("w8a8", with([](RecipeOptions& options) {
                        options.weight_bits = 4;
                        options.activation_bits = 4;
                      })),
              HasSubstr("-w_bit 4 with -a_bit 4"));
  EXPECT_THAT(refusal("w8a8", with([](RecipeOptions& options) { options.weight_bits = 2; })),
              HasSubstr("-w_bit 2"));
}

TEST(RecipeOptions, SymmetryOfWeightsCanBeChosen) {
  for (const bool symmetric : {true, false}) {
    const auto options = with([&](RecipeOptions& chosen) { chosen.weight_symmetric = symmetric; });
    for (const char* type : {"w8a16", "w4a16", "llama3_70b_w8a16"})
      EXPECT_EQ(changed(type, options).rule_for("model.layers.9.mlp.up_proj").symmetric, symmetric);
  }
}

TEST(RecipeOptions, SmoothingIsChosenByItsName) {
  const auto method = [](const char* name) {
    return with([&](RecipeOptions& options) { options.anti_method = name; });
  };
  for (const char* name : {"m1", "m2", "m3", "m4", "m6"})
    EXPECT_EQ(changed("w8a8", method(name)).smooth.value().method, name);
  EXPECT_EQ(changed("w8a8", method("M4")).smooth.value().method, "m4");
  EXPECT_FALSE(changed("llama3.1_8b_w8a8", method("none")).smooth);
  EXPECT_FALSE(changed("llama3.1_8b_w8a8", method("")).smooth);
  EXPECT_THAT(refusal("w8a8", method("m5")), AllOf(HasSubstr("m5"), HasSubstr("m4 and m6")));
  EXPECT_THAT(refusal("w8a8", method("m7")), HasSubstr("m1, m2, m3, m4, m6"));
}

TEST(RecipeOptions, TheMethodOfTheRecipeKeepsItsExponentsAndAnotherDoesNot) {
  const auto method = [](const char* name) {
    return with([&](RecipeOptions& options) { options.anti_method = name; });
  };
  EXPECT_EQ(changed("qwen2p5_72b_w8a8c8_pdmix", method("m6")).smooth.value().alpha, 0.6);
  EXPECT_FALSE(changed("qwen2p5_72b_w8a8c8_pdmix", method("m4")).smooth.value().alpha);
}

TEST(RecipeOptions, DoSmoothIsM1WhereTheRecipeHasNone) {
  const auto smooth = [](bool on) {
    return with([&](RecipeOptions& options) { options.do_smooth = on; });
  };
  EXPECT_EQ(changed("w8a8s", smooth(true)).smooth.value().method, "m1");
  EXPECT_FALSE(changed("w8a8s", smooth(false)).smooth);
}

TEST(RecipeOptions, SparseOptionsReachEverySparseRule) {
  const auto sparse_of = [](const RecipeOptions& options) {
    return changed("qwen_w8a8s", options).rule_for(kUpProj).method.sparse.value();
  };
  const quant::SparseSpec all = sparse_of(with([](RecipeOptions& options) {
    options.fraction = 0.05;
    options.sigma_factor = 3.5;
    options.use_sigma = false;
    options.co_sparse = true;
  }));
  EXPECT_EQ(all.fraction, 0.05);
  EXPECT_EQ(all.sigma_factor, 3.5);
  EXPECT_FALSE(all.use_sigma);
  EXPECT_TRUE(all.co_sparse);
  EXPECT_FALSE(sparse_of(with([](RecipeOptions& options) {
                 options.co_sparse = true;
                 options.is_lowbit = true;
               })).co_sparse)
      << "low-bit goes before";
  EXPECT_TRUE(sparse_of(with([](RecipeOptions& options) { options.fraction = 0.05; })).use_sigma)
      << "what is not said stays";
}

TEST(RecipeOptions, SparseOptionsNeedASparseRule) {
  const std::vector<std::function<void(RecipeOptions&)>> sets = {
      [](RecipeOptions& options) { options.fraction = 0.02; },
      [](RecipeOptions& options) { options.sigma_factor = 3.0; },
      [](RecipeOptions& options) { options.use_sigma = true; },
      [](RecipeOptions& options) { options.co_sparse = true; },
      [](RecipeOptions& options) { options.is_lowbit = true; },
  };
  for (const auto& set : sets) EXPECT_THAT(refusal("w8a8", with(set)), HasSubstr("sparse types"));
}

TEST(RecipeOptions, SparseOptionsGoWithBitsThatMakeARuleSparse) {
  const Recipe recipe = changed("w8a8", with([](RecipeOptions& options) {
                                  options.weight_bits = 4;
                                  options.activation_bits = 8;
                                  options.fraction = 0.03;
                                }));
  EXPECT_EQ(recipe.rule_for(kUpProj).method.sparse.value().fraction, 0.03);
  EXPECT_EQ(recipe.dtype, formats::DType::kF16) << "as that of every sparse type";
}

TEST(RecipeOptions, QuantizedAttentionIsSwitchedOnAndOff) {
  const auto cache = [](bool on) {
    return with([&](RecipeOptions& options) { options.use_kvcache_quant = on; });
  };
  const auto attention = [](bool on) {
    return with([&](RecipeOptions& options) { options.use_fa_quant = on; });
  };
  EXPECT_EQ(changed("w8a8", cache(true)).attention, Scheme::kC8);
  EXPECT_EQ(changed("w8a8c8", cache(false)).attention, Scheme::kFloat);
  EXPECT_EQ(changed("w8a8", attention(true)).attention, Scheme::kFaQuant);
  EXPECT_EQ(changed("qwen2p5_fa3", attention(false)).attention, Scheme::kFloat);
  EXPECT_THAT(refusal("w8a8", with([](RecipeOptions& options) {
                        options.use_kvcache_quant = true;
                        options.use_fa_quant = true;
                      })),
              HasSubstr("exclude each other"));
}

// Scripts pass every switch, those that are off as well.
TEST(RecipeOptions, SwitchingOneKindOfAttentionOffLeavesTheOther) {
  EXPECT_EQ(changed("w8a8c8", with([](RecipeOptions& options) { options.use_fa_quant = false; }))
                .attention,
            Scheme::kC8);
  EXPECT_EQ(changed("w8a8", with([](RecipeOptions& options) {
                      options.use_kvcache_quant = true;
                      options.use_fa_quant = false;
                    }))
                .attention,
            Scheme::kC8);
  EXPECT_EQ(changed("qwen2p5_fa3",
                    with([](RecipeOptions& options) { options.use_kvcache_quant = false; }))
                .attention,
            Scheme::kFaQuant);
}

TEST(RecipeOptions, MethodsOfWeightsAreForEveryRule) {
  const auto method = [](const char* name) {
    return with([&](RecipeOptions& options) { options.weight_method = name; });
  };
  EXPECT_EQ(changed("w8a8", method("gptq")).rule_for(kUpProj).method.kind, Kind::kGptq);
  EXPECT_EQ(changed("w8a8", method("ssz")).rule_for(kUpProj).method.kind, Kind::kSsz);
  const RecipeRule round = changed("w4a16", method("round")).rule_for(kUpProj);
  EXPECT_EQ(round.method.kind, Kind::kRound);
  EXPECT_FALSE(round.method.clip);
  EXPECT_THAT(refusal("w8a8", method("magic")), HasSubstr("round, ssz, gptq"));
}

TEST(BestPractice, IsThatOfTheModelAndElseTheTypeOfThatName) {
  struct Row {
    const char* model;
    const char* type;
    const char* recipe;
  };
  const std::vector<Row> rows = {
      {"Qwen3-14B", "w8a8", "w8a8_mix"},
      {"Qwen3-32B", "w8a8", "w8a8_mix"},
      {"Qwen3-30B-A3B", "w8a8", "qwen3_moe_w8a8"},
      {"Qwen3-235B-A22B", "w8a8", "qwen3_moe_w8a8"},
      {"qwen3-8b", "W8A8", "w8a8_mix"},
      {"Qwen2.5-7B-Instruct", "w8a8", "qwen_w8a8"},
      {"Qwen2.5-72B-Instruct", "w8a8c8", "qwen2p5_72b_w8a8c8_pdmix"},
      {"Qwen2.5-14B-Instruct", "w8a8c8", "qwen2p5_14b_w8a8c8_pdmix"},
      {"Qwen2.5-7B-Instruct", "w4a16", "qwen_w4a16"},
      {"Llama3.1-8B", "w8a8", "llama3.1_8b_w8a8"},
      {"Llama3.1-8B", "w4a16", "w4a16"},
      {"SomethingElse", "w8a8", "w8a8"},
      {"SomethingElse", "w8a8_dynamic", "w8a8_dynamic"},
  };
  for (const Row& row : rows)
    EXPECT_EQ(best_practice(row.model, row.type).name, row.recipe) << row.model << ' ' << row.type;
}

// Qwen3 dense: prefill token by token, decode static, no C8. Mixtures: experts token by token,
// attention static.
TEST(BestPractice, OfQwen3IsWhatTheToolsSay) {
  const Recipe dense = best_practice("Qwen3-14B", "w8a8");
  EXPECT_EQ(dense.rule_for(kUpProj).scheme, Scheme::kW8A8Mix);
  EXPECT_EQ(dense.attention, Scheme::kFloat);
  const Recipe mixture = best_practice("Qwen3-30B-A3B", "w8a8");
  EXPECT_EQ(mixture.rule_for("model.layers.3.mlp.experts.5.up_proj").scheme, Scheme::kW8A8Dynamic);
  EXPECT_EQ(mixture.rule_for("model.layers.3.self_attn.q_proj").scheme, Scheme::kW8A8);
  EXPECT_EQ(mixture.attention, Scheme::kFloat);
}

TEST(BestPractice, OfAnUnknownTypeIsTheList) {
  const std::string message =
      error_message(ErrorCode::kUsage, [] { (void)best_practice("Qwen3-14B", "w9a9"); });
  EXPECT_THAT(message, AllOf(HasSubstr("w9a9"), HasSubstr("qwen_w8a8s")));
}

}  // namespace
}  // namespace llmq::convert
