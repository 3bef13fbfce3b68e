#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "tests/convert/calibrated_fixture.h"

namespace llmq::test {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::HasSubstr;

constexpr int kBadUsage = 2;
constexpr int kBadInput = 3;

class CliQuantCalibration : public CalibratedFixture {
 protected:
  /// Calibrates once more, with statistics written to the file of that name.
  fs::path save_statistics(const std::string& name, std::vector<std::string> options = {}) {
    fs::path file = folder_ / name;
    options.insert(options.end(), {"--save-stats", file});
    std::ignore = calibrate("saved-" + name, options);
    return file;
  }

  static OrderedJson calibration(const fs::path& folder) {
    return report_of(folder).at("calibration");
  }
};

TEST_F(CliQuantCalibration, BuiltInSetIsNamedWhereNoFileIsGiven) {
  const CommandResult result = try_quant({"-type", "w8a8", "--calib-length", "16"});
  EXPECT_EQ(result.exit_code, 0) << result.summary();
  const OrderedJson used = calibration(folder_ / "refused");
  const std::string name = used.at("texts");
  EXPECT_THAT(name, HasSubstr("llmq"));
  EXPECT_THAT(result.err, HasSubstr(name));
  EXPECT_FALSE(used.at("from_statistics"));
  EXPECT_GE(used.at("samples"), 20) << "as many as the manual calls usual";
}

TEST_F(CliQuantCalibration, FilesOfEveryKindAreRead) {
  const std::vector<std::pair<std::string, std::string>> files = {
      {"a.jsonl", "{\"prompt\": \"the same text\"}\n\n{\"inputs_pretokenized\": \"a number\"}\n"},
      {"b.json", "[\"the same text\", {\"prompt\": \"a number\"}]"},
  };
  std::map<std::string, std::string> bytes;
  for (const auto& [name, content] : files) {
    write_file(folder_ / name, content);
    const fs::path out = quantize("out-" + name, {"-type", "w8a8", "-calib", folder_ / name});
    EXPECT_EQ(calibration(out).at("samples"), 2) << name;
    EXPECT_EQ(calibration(out).at("texts"), (folder_ / name).string());
    if (bytes.empty()) bytes = result_files(out);
    EXPECT_TRUE(result_files(out) == bytes) << "the same texts give the same bytes: " << name;
  }
  std::string text;
  for (int i = 0; i < 200; ++i) text += "What is number " + std::to_string(i) + "?\n";
  write_file(folder_ / "c.txt", text);
  const fs::path out = quantize("out-c", {"-type", "w8a8", "-calib", folder_ / "c.txt"});
  // Windows of min(512, 256 positions) tokens.
  EXPECT_EQ(calibration(out).at("tokens").get<int64_t>() / 256,
            calibration(out).at("samples").get<int64_t>() - 1);
}

TEST_F(CliQuantCalibration, SamplesAndLengthLimitWhatIsRead) {
  const OrderedJson all = calibration(calibrate("all"));
  EXPECT_EQ(all.at("samples"), 3);
  const OrderedJson two = calibration(calibrate("two", {"--calib-samples", "2"}));
  EXPECT_EQ(two.at("samples"), 2);
  EXPECT_LT(two.at("tokens"), all.at("tokens"));
  const OrderedJson cut = calibration(calibrate("cut", {"--calib-length", "5"}));
  EXPECT_EQ(cut.at("samples"), 3);
  EXPECT_EQ(cut.at("tokens"), 15);
}

TEST_F(CliQuantCalibration, SavedStatisticsGiveTheSameBytes) {
  for (const std::string method : {"1", "2", "3"}) {
    SCOPED_TRACE("-act_method " + method);
    const fs::path stats = save_statistics("stats" + method, {"-act_method", method});
    const fs::path loaded =
        quantize("loaded" + method, {"-type", "w8a8", "--stats", stats, "-act_method", method});
    const auto reference = result_files(folder_ / ("saved-stats" + method));
    EXPECT_TRUE(reference.contains("quant_model_weight_w8a8.safetensors"));
    EXPECT_TRUE(result_files(loaded) == reference);
    EXPECT_TRUE(calibration(loaded).at("from_statistics"));
    EXPECT_EQ(calibration(loaded).at("tokens"),
              calibration(folder_ / ("saved-stats" + method)).at("tokens"));
  }
}

TEST_F(CliQuantCalibration, SavedStatisticsNeedNoTokenizer) {
  const fs::path stats = save_statistics("stats.json");
  fs::remove(source_ / "tokenizer.json");
  std::ignore = quantize("out", {"-type", "w8a8", "--stats", stats});
}

TEST_F(CliQuantCalibration, SavedStatisticsHoldEveryGroupOnce) {
  const auto document = OrderedJson::parse(read_file(save_statistics("stats.json")));
  std::vector<std::string> groups;
  for (const OrderedJson& group : document.at("groups")) {
    groups.push_back(group.at("layer").dump() + " " + group.at("group").get<std::string>());
    EXPECT_LE(group.at("min"), group.at("max"));
    EXPECT_FALSE(group.contains("histogram")) << "min-max needs none";
  }
  std::sort(groups.begin(), groups.end());
  EXPECT_EQ(groups.size(), 8U) << "four in each of two layers";
  EXPECT_EQ(std::adjacent_find(groups.begin(), groups.end()), groups.end());
}

// A histogram holds what min-max needs.
TEST_F(CliQuantCalibration, StatisticsWithHistogramsServeEveryMethod) {
  const fs::path stats = save_statistics("stats.json", {"-act_method", "2"});
  for (const std::string method : {"1", "3"}) {
    const auto direct = result_files(calibrate("direct" + method, {"-act_method", method}));
    EXPECT_TRUE(result_files(quantize("loaded" + method, {"-type", "w8a8", "--stats", stats,
                                                          "-act_method", method})) == direct)
        << method;
  }
}

TEST_F(CliQuantCalibration, StatisticsThatLackWhatTheRecipeNeedsAreRefused) {
  const fs::path stats = save_statistics("stats.json");
  for (const std::string method : {"2", "3"}) {
    expect_refusal({"-type", "w8a8", "--stats", stats, "-act_method", method}, kBadUsage,
                   "holds no histograms, which act_method " + method + " needs");
  }
  expect_refusal({"-type", "w8a8", "--stats", stats, "-disable_level", "L1"}, kBadUsage,
                 "was saved without -disable_level");
  // Saved while the head stayed float.
  expect_refusal({"-type", "w8a8", "--stats", stats, "-disable_names", ""}, kBadInput, "lm_head");
}

TEST_F(CliQuantCalibration, StatisticsOfAnotherModelAreRefused) {
  const fs::path stats = save_statistics("stats.json");
  auto document = OrderedJson::parse(read_file(stats));
  document.at("model").at("hidden_size") = 128;
  write_file(stats, document.dump());
  expect_refusal({"-type", "w8a8", "--stats", stats}, kBadInput, "another model");
  write_file(stats, "{}");
  expect_refusal({"-type", "w8a8", "--stats", stats}, kBadInput, stats.string());
  expect_refusal({"-type", "w8a8", "--stats", folder_ / "nothing.json"}, kBadInput, "nothing.json");
}

TEST_F(CliQuantCalibration, StatisticsAndTextsExcludeEachOther) {
  const fs::path stats = save_statistics("stats.json");
  expect_refusal({"-type", "w8a8", "--stats", stats, "-calib", texts_}, kBadUsage, "--calib");
}

TEST_F(CliQuantCalibration, StatisticsThatCannotBeWrittenLeaveNothing) {
  expect_refusal({"-type", "w8a8", "-calib", texts_, "--save-stats", folder_ / "no" / "stats.json"},
                 4, "stats.json");
}

TEST_F(CliQuantCalibration, OptionsThatChangeNothingAreSaid) {
  const std::vector<std::vector<std::string>> cases = {{"-calib", texts_},
                                                       {"--save-stats", folder_ / "stats.json"},
                                                       {"-act_method", "2"},
                                                       {"-disable_level", "L2"}};
  for (std::vector<std::string> options : cases) {
    options.insert(options.end(), {"-type", "w8a16", "--force"});
    const CommandResult result = try_quant(options);
    EXPECT_EQ(result.exit_code, 0) << result.summary();
    EXPECT_THAT(result.err, HasSubstr("change nothing")) << options[0];
  }
  EXPECT_FALSE(fs::exists(folder_ / "stats.json"));
  EXPECT_THAT(try_quant({"-type", "w8a16", "--force"}).err,
              testing::Not(HasSubstr("change nothing")));
}

TEST_F(CliQuantCalibration, CalibrationFilesThatCannotBeUsedAreRefused) {
  expect_refusal({"-type", "w8a8", "-calib", folder_ / "nothing.jsonl"}, kBadInput,
                 "nothing.jsonl");
  const std::vector<std::pair<std::string, std::string>> files = {
      {"empty.jsonl", ""},        {"empty.txt", " \n"},
      {"empty.json", "[]"},       {"damaged.jsonl", "{\"prompt\": \"a\"}\n{\"prompt\": "},
      {"damaged.json", "[\"a\""}, {"keys.jsonl", "{\"text\": \"a\"}\n"},
  };
  for (const auto& [name, content] : files) {
    write_file(folder_ / name, content);
    expect_refusal({"-type", "w8a8", "-calib", folder_ / name}, kBadInput, name);
  }
  for (const std::string number : {"0", "-1", "x"})
    expect_refusal({"-type", "w8a8", "-calib", texts_, "--calib-samples", number}, kBadUsage,
                   "--calib-samples");
  expect_refusal({"-type", "w8a8", "-calib", texts_, "--calib-length", "1"}, kBadUsage,
                 "--calib-length");
  expect_refusal({"-type", "w8a8", "-act_method", "4"}, kBadUsage, "--act-method");
}

TEST_F(CliQuantCalibration, FolderWithoutTokenizerIsRefused) {
  fs::remove(source_ / "tokenizer.json");
  expect_refusal({"-type", "w8a8"}, kBadInput, "tokenizer");
  expect_refusal({"-type", "w8a8", "-calib", texts_}, kBadInput, "tokenizer");
}

TEST_F(CliQuantCalibration, TokenizerOfAnotherModelIsRefused) {
  config_["vocab_size"] = 96;
  tensors_ = tiny_qwen2_tensors();
  write_source();
  expect_refusal({"-type", "w8a8", "-calib", texts_}, kBadInput, "vocabulary of 96");
}

// 3e38 times a normalized value beyond 1.13 is no float32; the layer's own weights are all finite.
TEST_F(CliQuantCalibration, ActivationsThatOverflowAreRefusedNamingLayerAndGroup) {
  const std::string norm = "model.layers.1.post_attention_layernorm.weight";
  for (size_t i = 0; i < 64; ++i) set_source(norm, i, 3e38F);
  write_source();
  expect_refusal({"-type", "w8a8", "-calib", texts_}, kBadInput, "layer 1, input of gate_up");
}

TEST_F(CliQuantCalibration, OverflowBeforeTheHeadIsRefusedNamingTheHead) {
  for (size_t i = 0; i < 64; ++i) set_source("model.norm.weight", i, 3e38F);
  write_source();
  std::ignore = calibrate("out");  // the head stays float, and nobody looks at its input
  const CommandResult result = try_quant({"-type", "w8a8", "-calib", texts_, "-disable_names", ""});
  EXPECT_EQ(result.exit_code, kBadInput) << result.summary();
  EXPECT_THAT(result.err, HasSubstr("input of head"));
  EXPECT_THAT(result.err, testing::Not(HasSubstr("layer 2"))) << "the model has layers 0 and 1";
}

class CliDisableLevel : public CliQuantCalibration {
 protected:
  // One feature of what q, k and v of layer 1 read is 200 times the others: of 64 features the
  // deviation is about an eighth of the largest one's, whose own extreme is a few deviations.
  void SetUp() override {
    CliQuantCalibration::SetUp();
    set_source("model.layers.1.input_layernorm.weight", 5, 200.0F);
    write_source();
  }

  // Linears outside the recipe's own list that stay float.
  static std::vector<std::string> kept(const fs::path& folder) {
    std::vector<std::string> modules;
    const auto description = written_json(folder, "quant_model_description.json");
    for (const auto& [name, tag] : description.items()) {
      if (!name.ends_with("_proj.weight") || tag != "FLOAT") continue;
      const std::string module = name.substr(0, name.size() - 7);
      if (!module.ends_with("down_proj")) modules.push_back(module);
    }
    return modules;
  }
};

const std::vector<std::string> kWidest = {"model.layers.1.self_attn.q_proj",
                                          "model.layers.1.self_attn.k_proj",
                                          "model.layers.1.self_attn.v_proj"};

TEST_F(CliDisableLevel, KeepsTheLinearsWithTheWidestInputsFloat) {
  for (const std::string level : {"L1", "L2", "3"}) {
    SCOPED_TRACE(level);
    const CommandResult result =
        run_llmq({"quant", "-src", source_, "-dst", folder_ / level, "-type", "w8a8", "-calib",
                  texts_, "-disable_level", level});
    EXPECT_EQ(result.exit_code, 0) << result.summary();
    EXPECT_THAT(result.err, HasSubstr("self_attn.q_proj stays float"));
    EXPECT_THAT(kept(folder_ / level), testing::UnorderedElementsAreArray(kWidest));
    EXPECT_THAT(report_of(folder_ / level).at("recipe").at("keep_float").dump(),
                AllOf(HasSubstr("lm_head"), HasSubstr("down_proj"), HasSubstr(kWidest[0])));
    const CommandResult verified = run_llmq({"verify", folder_ / level, "--source", source_});
    EXPECT_EQ(verified.exit_code, 0) << verified.summary();
  }
  EXPECT_GT(kept(calibrate("L4", {"-disable_level", "L4"})).size(), 3U) << "another group";
}

TEST_F(CliDisableLevel, LevelZeroKeepsNoneAndALevelBeyondAllKeepsEverythingFloat) {
  EXPECT_THAT(kept(calibrate("L0", {"-disable_level", "L0"})), testing::IsEmpty());
  EXPECT_TRUE(result_files(folder_ / "L0") == result_files(calibrate("plain")));
  EXPECT_EQ(kept(calibrate("L1000", {"-disable_level", "L1000"})).size(), 12U);
}

TEST_F(CliDisableLevel, RecipeOfTheReportGivesTheSameBytes) {
  const fs::path out = calibrate("out", {"-disable_level", "L2"});
  write_file(folder_ / "recipe.json", report_of(out).at("recipe").dump());
  const fs::path again = quantize("again", {"--recipe", folder_ / "recipe.json", "-calib", texts_});
  EXPECT_TRUE(result_files(again) == result_files(out));
}

TEST_F(CliDisableLevel, SavedStatisticsChooseTheSameLinears) {
  const fs::path stats = save_statistics("stats.json", {"-disable_level", "L2"});
  const fs::path loaded =
      quantize("loaded", {"-type", "w8a8", "--stats", stats, "-disable_level", "L2"});
  EXPECT_TRUE(result_files(loaded) == result_files(folder_ / "saved-stats.json"));
  std::map<double, std::string> by_spread;
  const auto document = OrderedJson::parse(read_file(stats));
  for (const OrderedJson& group : document.at("first_samples"))
    by_spread[group.at("max_over_std")] =
        group.at("layer").dump() + " " + group.at("group").get<std::string>();
  EXPECT_EQ(by_spread.rbegin()->second, "1 qkv") << "the outlier is what decided";
  EXPECT_EQ(kept(quantize("L0", {"-type", "w8a8", "--stats", stats})).size(), 0U)
      << "statistics hold the groups that stayed float as well";
}

TEST_F(CliDisableLevel, WhatIsNoLevelIsRefused) {
  for (const std::string level : {"Lx", "L", "L-1", "L1.5", "LL1", "L99999999999999999999"})
    expect_refusal({"-type", "w8a8", "-calib", texts_, "-disable_level", level}, kBadUsage, level);
}

}  // namespace
}  // namespace llmq::test
