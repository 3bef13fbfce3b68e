#include "convert/recipes/recipe.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>
#include <string>
#include <vector>

#include "formats/error.h"
#include "tests/tools/test_files.h"

namespace llmq::convert {
namespace {

using formats::ErrorCode;
using formats::Json;
using formats::Scheme;
using test::error_message;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

Recipe parse(const char* text) {
  return parse_recipe(Json::parse(text), "r.json");
}

std::string refusal(const char* text) {
  return error_message(ErrorCode::kBadInput, [&] { (void)parse(text); });
}

struct Match {
  const char* pattern;
  const char* text;
  bool matches;
};

TEST(MatchesPattern, StarStandsForAnyRunOfCharacters) {
  const std::vector<Match> cases = {
      {"lm_head", "lm_head", true},
      {"lm_head", "lm_head2", false},
      {"lm_head", "model.lm_head", false},
      {"*", "", true},
      {"*", "model.layers.0.mlp.up_proj", true},
      {"", "", true},
      {"", "x", false},
      {"*.down_proj", "model.layers.0.mlp.down_proj", true},
      {"*.down_proj", ".down_proj", true},
      {"*.down_proj", "down_proj", false},
      {"model.layers.1.*", "model.layers.1.mlp.up_proj", true},
      {"model.layers.1.*", "model.layers.10.mlp.up_proj", false},
      {"model.*.mlp.*_proj", "model.layers.3.mlp.gate_proj", true},
      {"model.*.mlp.*_proj", "model.layers.3.self_attn.q_proj", false},
      {"*a*b*", "xxaxxbxx", true},
      {"*a*b*", "xxbxxaxx", false},
      {"*ab", "aab", true},
      {"a*a", "a", false},
      {"a*a", "aa", true},
      {"**", "x", true},
      {"a.c", "abc", false},
      {"[a-z]", "a", false},
      {"?", "a", false},
  };
  for (const Match& match : cases) {
    EXPECT_EQ(matches_pattern(match.pattern, match.text), match.matches)
        << match.pattern << " on " << match.text;
  }
}

TEST(MatchesPattern, ManyStarsDoNotTakeExponentialTime) {
  std::string pattern;
  for (int i = 0; i < 50; ++i) pattern += "*a";
  EXPECT_FALSE(matches_pattern(pattern + "b", std::string(2000, 'a')));
}

TEST(Recipe, KeepFloatGoesBeforeTheRulesAndTheFirstRuleDecides) {
  const Recipe recipe = parse(R"({"name":"r","keep_float":["*.down_proj"],"rules":[
      {"match":"*.mlp.*","scheme":"W8A8_DYNAMIC"},
      {"match":"model.*","scheme":"W8A16","symmetric":false,"group_size":64}]})");
  EXPECT_EQ(recipe.rule_for("model.layers.0.mlp.down_proj").scheme, Scheme::kFloat);
  EXPECT_EQ(recipe.rule_for("model.layers.0.mlp.down_proj").match, "*.down_proj");
  EXPECT_EQ(recipe.rule_for("model.layers.0.mlp.up_proj").scheme, Scheme::kW8A8Dynamic);
  const RecipeRule attention = recipe.rule_for("model.layers.0.self_attn.q_proj");
  EXPECT_EQ(attention.scheme, Scheme::kW8A16);
  EXPECT_FALSE(attention.symmetric);
  EXPECT_EQ(attention.group_size, 64);
  EXPECT_EQ(recipe.rule_for("lm_head").scheme, Scheme::kFloat);
  EXPECT_EQ(recipe.rule_for("lm_head").match, "");
}

TEST(Recipe, RulesAreSymmetricPerChannelWhereTheyDoNotSay) {
  const RecipeRule rule =
      parse(R"({"name":"r","rules":[{"match":"*","scheme":"W8A16"}]})").rule_for("x");
  EXPECT_TRUE(rule.symmetric);
  EXPECT_EQ(rule.group_size, 0);
}

TEST(Recipe, ActivationsFollowMinMaxOverTheFullRangeWhereNothingIsSaid) {
  const Recipe recipe = parse(R"({"name":"r","rules":[{"match":"*","scheme":"W8A8"}]})");
  EXPECT_EQ(recipe.act_method, quant::ActMethod::kMinMax);
  EXPECT_EQ(recipe.disable_level, 0);
  EXPECT_FALSE(recipe.rule_for("x").activation_symmetric);
}

TEST(Recipe, ChoicesForActivationsComeBackFromTheirDocument) {
  const Recipe recipe = parse(R"({"name":"r","act_method":3,"disable_level":7,"rules":[
      {"match":"*.q_proj","scheme":"W8A8","activation_symmetric":true},
      {"match":"*","scheme":"W8A8"}]})");
  for (const Recipe& one : {recipe, parse_recipe(recipe_json(recipe), "again")}) {
    EXPECT_EQ(one.act_method, quant::ActMethod::kAutomatic);
    EXPECT_EQ(one.disable_level, 7);
    EXPECT_TRUE(one.rule_for("model.layers.0.self_attn.q_proj").activation_symmetric);
    EXPECT_FALSE(one.rule_for("model.layers.0.self_attn.k_proj").activation_symmetric);
  }
}

TEST(Recipe, OnlyStaticActivationsNeedCalibration) {
  const auto needs_calibration = [](const std::string& scheme) {
    return parse((R"({"name":"r","rules":[{"match":"a","scheme":"W8A16"},{"match":"*","scheme":")" +
                  scheme + "\"}]}")
                     .c_str())
        .needs_calibration();
  };
  EXPECT_TRUE(needs_calibration("W8A8"));
  for (const char* scheme : {"FLOAT", "W8A16", "W8A8_DYNAMIC"})
    EXPECT_FALSE(needs_calibration(scheme)) << scheme;
  EXPECT_FALSE(parse(R"({"name":"r","rules":[]})").needs_calibration());
}

// The vendor's types for int8 activations: lm_head and every down_proj stay float.
TEST(Recipe, StaticBuiltinsKeepHeadAndDownProjectionsFloat) {
  for (const char* type : {"w8a8", "qwen_w8a8", "qwen2_72b_w8a8", "llama3.1_8b_w8a8"}) {
    const Recipe& recipe = builtin_recipe(type);
    EXPECT_TRUE(recipe.needs_calibration()) << type;
    EXPECT_EQ(recipe.main_scheme(), Scheme::kW8A8) << type;
    EXPECT_EQ(recipe.rule_for("lm_head").scheme, Scheme::kFloat) << type;
    EXPECT_EQ(recipe.rule_for("model.layers.31.mlp.down_proj").scheme, Scheme::kFloat) << type;
    EXPECT_EQ(recipe.rule_for("model.layers.31.mlp.up_proj").scheme, Scheme::kW8A8) << type;
    EXPECT_EQ(recipe.rule_for("model.layers.0.self_attn.o_proj").scheme, Scheme::kW8A8) << type;
    EXPECT_EQ(recipe.smooth.has_value(), std::string(type) == "llama3.1_8b_w8a8") << type;
  }
}

TEST(Recipe, MainSchemeIsTheStrongestOfTheRules) {
  EXPECT_EQ(parse(R"({"name":"r","rules":[]})").main_scheme(), Scheme::kFloat);
  EXPECT_EQ(parse(R"({"name":"r","rules":[{"match":"a","scheme":"W8A16"},
                      {"match":"b","scheme":"W8A8_DYNAMIC"},
                      {"match":"c","scheme":"FLOAT"}]})")
                .main_scheme(),
            Scheme::kW8A8Dynamic);
}

struct Refused {
  const char* text;
  const char* words;
};

TEST(Recipe, WhatIsWrongIsNamedWithItsKey) {
  const std::vector<Refused> cases = {
      {"[]", "r.json: is not a JSON object"},
      {R"({"rules":[]})", "\"name\" is missing"},
      {R"({"name":7,"rules":[]})", "\"name\" is missing or not a string"},
      {R"({"name":"r"})", "\"rules\" is missing or not a list"},
      {R"({"name":"r","rules":{}})", "\"rules\" is missing or not a list"},
      {R"({"name":"r","rules":[],"keep_float":"lm_head"})", "\"keep_float\" is not a list"},
      {R"({"name":"r","rules":[],"keep_float":[1]})", "\"keep_float\" holds something"},
      {R"({"name":"r","rules":[],"families":"qwen2"})", "\"families\" is not a list"},
      {R"({"name":"r","rules":[],"disable":[]})", "unknown key \"disable\""},
      {R"({"name":"r","rules":["*"]})", "r.json: rule 1: is not a JSON object"},
      {R"({"name":"r","rules":[{"scheme":"W8A16"}]})", "rule 1: the key \"match\" is missing"},
      {R"({"name":"r","rules":[{"match":"*"}]})", "rule 1: the key \"scheme\" is missing"},
      {R"({"name":"r","rules":[{"match":"*","scheme":"W8A16"},{"match":"*","scheme":"W9"}]})",
       "r.json: rule 2: unknown scheme \"W9\""},
      {R"({"name":"r","rules":[{"match":"*","scheme":"W8A16","sym":true}]})",
       "unknown key \"sym\""},
      {R"({"name":"r","rules":[{"match":"*","scheme":"W8A16","symmetric":"True"}]})",
       "\"symmetric\" is neither true nor false"},
      {R"({"name":"r","rules":[{"match":"*","scheme":"W8A16","group_size":-1}]})",
       "\"group_size\""},
      {R"({"name":"r","rules":[{"match":"*","scheme":"W8A16","group_size":64.0}]})",
       "\"group_size\""},
      {R"({"name":"r","rules":[{"match":"*","scheme":"W8A16","group_size":65537}]})",
       "\"group_size\""},
      {R"({"name":"r","rules":[{"match":"*","scheme":"W8A16","group_size":18446744073709551615}]})",
       "\"group_size\""},
      {R"({"name":"r","rules":[],"act_method":0})", "\"act_method\""},
      {R"({"name":"r","rules":[],"act_method":4})", "\"act_method\""},
      {R"({"name":"r","rules":[],"act_method":"1"})", "\"act_method\""},
      {R"({"name":"r","rules":[],"act_method":2.0})", "\"act_method\""},
      {R"({"name":"r","rules":[],"act_method":18446744073709551615})", "\"act_method\""},
      {R"({"name":"r","rules":[],"disable_level":-1})", "\"disable_level\""},
      {R"({"name":"r","rules":[],"disable_level":"L2"})", "\"disable_level\""},
      {R"({"name":"r","rules":[],"disable_level":9223372036854775807})", "\"disable_level\""},
      {R"({"name":"r","rules":[{"match":"*","scheme":"W8A8","activation_symmetric":0}]})",
       "rule 1: \"activation_symmetric\" is neither true nor false"},
  };
  for (const Refused& refused : cases) {
    EXPECT_THAT(refusal(refused.text), HasSubstr(refused.words)) << refused.text;
  }
}

TEST(Recipe, BuiltinsComeBackFromTheirOwnDocuments) {
  std::set<std::string> names;
  for (const Recipe& recipe : builtin_recipes()) {
    EXPECT_TRUE(names.insert(recipe.name).second) << recipe.name;
    EXPECT_FALSE(recipe.summary.empty()) << recipe.name;
    EXPECT_EQ(&builtin_recipe(recipe.name), &recipe);
    const Json document = recipe_json(recipe);
    EXPECT_EQ(recipe_json(parse_recipe(document, "again")), document) << recipe.name;
    EXPECT_EQ(recipe.rule_for("lm_head").scheme, Scheme::kFloat) << recipe.name;
  }
  EXPECT_TRUE(names.contains("qwen_w8a16"));
}

// The layers that the original scripts keep float for their types.
TEST(Recipe, BuiltinsKeepTheLayersOfTheOriginalScriptsFloat) {
  const Recipe& qwen = builtin_recipe("qwen_w8a16");
  EXPECT_EQ(qwen.rule_for("model.layers.79.mlp.down_proj").scheme, Scheme::kFloat);
  EXPECT_EQ(qwen.rule_for("model.layers.79.mlp.up_proj").scheme, Scheme::kW8A16);
  EXPECT_TRUE(qwen.rule_for("model.layers.79.mlp.up_proj").symmetric);
  const Recipe& llama = builtin_recipe("llama3_70b_w8a16");
  EXPECT_EQ(llama.rule_for("model.layers.4.self_attn.o_proj").scheme, Scheme::kFloat);
  EXPECT_EQ(llama.rule_for("model.layers.5.self_attn.o_proj").scheme, Scheme::kW8A16);
  EXPECT_EQ(llama.rule_for("model.layers.40.mlp.down_proj").scheme, Scheme::kW8A16);
  EXPECT_FALSE(llama.rule_for("model.layers.40.mlp.down_proj").symmetric);
}

TEST(Recipe, UnknownTypeListsEveryType) {
  const std::string message =
      error_message(ErrorCode::kUsage, [] { (void)builtin_recipe("qwen_w9a9"); });
  EXPECT_THAT(message, HasSubstr("\"qwen_w9a9\""));
  for (const Recipe& recipe : builtin_recipes()) EXPECT_THAT(message, HasSubstr(recipe.name));
}

TEST(Recipe, FileIsReadAndItsErrorsNameIt) {
  const test::TemporaryFolder folder;
  test::write_file(folder / "r.json", recipe_json(builtin_recipe("w8a16")).dump(2));
  EXPECT_EQ(recipe_json(read_recipe(folder / "r.json")), recipe_json(builtin_recipe("w8a16")));
  test::write_file(folder / "bad.json", "{}");
  EXPECT_THAT(error_message(ErrorCode::kBadInput, [&] { (void)read_recipe(folder / "bad.json"); }),
              HasSubstr((folder / "bad.json").string()));
}

std::vector<std::string> kept_after(const char* names) {
  Recipe recipe;
  recipe.keep_float = {"lm_head", "*.down_proj"};
  apply_disable_names(recipe, names);
  return recipe.keep_float;
}

TEST(ApplyDisableNames, ReplacesTheListAndAPlusAddsToIt) {
  EXPECT_THAT(kept_after("a,b"), ElementsAre("a", "b"));
  EXPECT_THAT(kept_after("+a,b"), ElementsAre("lm_head", "*.down_proj", "a", "b"));
  EXPECT_THAT(kept_after(""), IsEmpty());
  EXPECT_THAT(kept_after("+"), ElementsAre("lm_head", "*.down_proj"));
}

TEST(ApplyDisableNames, SpacesAndEmptyNamesAreSkipped) {
  EXPECT_THAT(kept_after(" a , ,b ,"), ElementsAre("a", "b"));
  EXPECT_THAT(kept_after(","), IsEmpty());
  EXPECT_THAT(kept_after("+ a"), ElementsAre("lm_head", "*.down_proj", "a"));
}

}  // namespace
}  // namespace llmq::convert
