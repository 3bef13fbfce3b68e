// What the families differ in when they are quantized: experts, one matrix for q, k and v, heads
// that are tied to the embedding.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <set>

#include "tests/convert/calibrated_fixture.h"

namespace llmq::test {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

constexpr int kBadUsage = 2;
constexpr int kNoMemory = 5;
constexpr int kGateFailed = 6;
constexpr int64_t kFewestTokens = 32;

/// Random models of the golden models' configurations, with a tokenizer.
class CliQuantFamilies : public CalibratedFixture {
 protected:
  /// Makes the source a random model of this golden model's configuration.
  void take(const std::string& golden, const OrderedJson& changes = OrderedJson::object()) {
    config_ = OrderedJson::parse(
        read_file(fs::path(LLMQ_TEST_SOURCE_DIR) / "golden" / golden / "config.json"));
    config_["vocab_size"] = kVocabulary;
    config_.update(changes);
    write_file(folder_ / "config.json", config_.dump());
    fs::remove_all(source_);
    Command make;
    make.argv = {LLMQ_MAKE_CHECKPOINT,
                 "--config",
                 folder_ / "config.json",
                 "--out",
                 source_,
                 "--std",
                 "0.15"};
    ASSERT_EQ(run_command(make).exit_code, 0);
    fs::copy_file(golden_tokenizer(), source_ / "tokenizer.json");
  }

  [[nodiscard]] fs::path recipe_file(const OrderedJson& recipe) const {
    write_file(folder_ / "recipe.json", recipe.dump());
    return folder_ / "recipe.json";
  }

  /// What was written under this name.
  static RawTensor written(const fs::path& folder, const std::string& name) {
    std::vector<RawTensor> tensors = read_all_tensors(folder);
    return tensor_named(tensors, name);
  }

  /// `quant` with texts, whose streams are to be read.
  [[nodiscard]] CommandResult quant(const std::string& name,
                                    const std::vector<std::string>& options) const {
    Command command = llmq_command(
        {"quant", "-src", source_, "-dst", folder_ / name, "-calib", texts_, "--json"});
    command.argv.insert(command.argv.end(), options.begin(), options.end());
    CommandResult result = run_command(command);
    EXPECT_EQ(result.exit_code, 0) << result.summary();
    return result;
  }

  [[nodiscard]] double kl_of(const fs::path& folder) const {
    write_file(folder_ / "text.txt",
               "The model is a number of words, and the text has 16 of them.");
    const CommandResult result =
        run_llmq({"eval", "--model_path", folder, "--reference", source_, "--text",
                  folder_ / "text.txt", "--context", "64", "--json"});
    EXPECT_EQ(result.exit_code, 0) << result.summary();
    return json_output(result).at("kl").get<double>();
  }
};

TEST_F(CliQuantFamilies, TheReportCountsTheTokensOfEveryExpert) {
  take("qwen3-moe");
  const fs::path out = calibrate("out");
  const OrderedJson calibration = report_of(out).at("calibration");
  const auto n_routed = calibration.at("tokens").get<int64_t>() * 2;
  std::set<int64_t> layers;
  for (const OrderedJson& one : calibration.at("expert_tokens")) {
    layers.insert(one.at("layer").get<int64_t>());
    const auto tokens = one.at("tokens").get<std::vector<int64_t>>();
    EXPECT_EQ(tokens.size(), 8U);
    EXPECT_EQ(std::accumulate(tokens.begin(), tokens.end(), int64_t{0}), n_routed);
    const std::string name = "model.layers." + one.at("layer").dump() + ".mlp.experts.3.up_proj";
    EXPECT_EQ(reported(out, name + ".weight").at("calibration_tokens"), tokens[3]);
  }
  EXPECT_EQ(layers, (std::set<int64_t>{1, 3})) << "decoder_sparse_step 2";
}

TEST_F(CliQuantFamilies, AnExpertWithFewTokensTakesTheRangeOfAllExpertsOfItsLayer) {
  take("qwen3-moe");
  const fs::path stats = folder_ / "stats.json";
  const CommandResult result = quant("out", {"-type", "w8a8", "--save-stats", stats});
  const fs::path out = folder_ / "out";
  const auto document = OrderedJson::parse(read_file(stats));
  const OrderedJson calibration = report_of(out).at("calibration");
  const auto few = calibration.at("experts_with_few_tokens").get<std::set<std::string>>();
  size_t n_few = 0;
  size_t n_many = 0;
  for (const OrderedJson& one : calibration.at("expert_tokens")) {
    const auto tokens = one.at("tokens").get<std::vector<int64_t>>();
    float min = 0.0F;
    float max = 0.0F;
    std::map<int64_t, std::pair<float, float>> own;
    for (const OrderedJson& group : document.at("groups")) {
      if (group.at("layer") != one.at("layer") || group.at("group") != "expert_gate_up") continue;
      own[group.at("expert").get<int64_t>()] = {group.at("min"), group.at("max")};
      min = std::min(min, group.at("min").get<float>());
      max = std::max(max, group.at("max").get<float>());
    }
    for (size_t expert = 0; expert < tokens.size(); ++expert) {
      const std::string module = "model.layers." + one.at("layer").dump() + ".mlp.experts." +
                                 std::to_string(expert) + ".gate_proj";
      const OrderedJson tensor = reported(out, module + ".weight");
      const bool has_few = tokens[expert] < kFewestTokens;
      EXPECT_EQ(few.contains(module), has_few) << module;
      EXPECT_EQ(tensor.contains("calibrated_from"), has_few) << module;
      const auto [own_min, own_max] =
          has_few ? std::pair{min, max} : own.at(static_cast<int64_t>(expert));
      EXPECT_EQ(tensor.at("input_min").get<float>(), own_min) << module;
      EXPECT_EQ(tensor.at("input_max").get<float>(), own_max) << module;
      (has_few ? n_few : n_many) += 1;
    }
  }
  EXPECT_GT(n_few, 0U);
  EXPECT_GT(n_many, 0U);
  EXPECT_THAT(result.err, HasSubstr(std::to_string(n_few) + " experts saw fewer than 32 tokens"));
  EXPECT_TRUE(result_files(quantize("loaded", {"-type", "w8a8", "--stats", stats})) ==
              result_files(out));
}

TEST_F(CliQuantFamilies, AnExpertWithFewTokensIsFittedToItsWeightsAlone) {
  take("qwen3-moe");
  const fs::path fitted = quantize(
      "fitted",
      {"-calib", texts_, "--recipe",
       recipe_file(
           {{"name", "gptq"},
            {"keep_float", {"lm_head"}},
            {"rules", {{{"match", "*"}, {"scheme", "W8A8_DYNAMIC"}, {"method", "gptq"}}}}})});
  const fs::path alone =
      quantize("alone", {"-type", "w8a8_dynamic", "-calib", texts_, "--method", "ssz"});
  const OrderedJson calibration = report_of(fitted).at("calibration");
  size_t n_few = 0;
  size_t n_changed = 0;
  for (const OrderedJson& one : calibration.at("expert_tokens")) {
    const auto tokens = one.at("tokens").get<std::vector<int64_t>>();
    for (size_t expert = 0; expert < tokens.size(); ++expert) {
      const std::string module = "model.layers." + one.at("layer").dump() + ".mlp.experts." +
                                 std::to_string(expert) + ".down_proj";
      const bool is_same =
          written(fitted, module + ".weight") == written(alone, module + ".weight");
      const bool has_few = tokens[expert] < kFewestTokens;
      if (has_few) {
        EXPECT_TRUE(is_same) << module;
      }
      EXPECT_EQ(reported(fitted, module + ".weight").contains("calibrated_from"), has_few)
          << module;
      n_few += has_few ? 1 : 0;
      n_changed += is_same ? 0 : 1;
    }
  }
  EXPECT_GT(n_few, 0U);
  EXPECT_GT(n_changed, 0U);
}

TEST_F(CliQuantFamilies, SmoothingLeavesExpertsAloneAndSaysSoOnce) {
  take("qwen2-moe");
  const CommandResult result = quant("out", {"-type", "w8a8_dynamic", "-anti_method", "m2"});
  const std::string words = "leaves the experts of 2 layers as they are";
  const size_t first = result.err.find(words);
  ASSERT_NE(first, std::string::npos) << result.err;
  EXPECT_EQ(result.err.find(words, first + 1), std::string::npos);
  const OrderedJson report = report_of(folder_ / "out");
  EXPECT_THAT(report.at("warnings").dump(), HasSubstr(words));
  std::set<std::string> done;
  for (const OrderedJson& one : report.at("calibration").at("transformations"))
    done.insert(one.at("layer").dump() + one.at("subgraph").get<std::string>());
  EXPECT_EQ(done, (std::set<std::string>{"0norm_qkv", "1norm_qkv", "1norm_gate_up", "2norm_qkv"}))
      << "layer 1 is dense";
  for (const OrderedJson& tensor : report.at("tensors")) {
    const auto name = tensor.at("name").get<std::string>();
    const bool is_of_experts = name.find("experts") != std::string::npos ||
                               name.find(".mlp.gate.") != std::string::npos ||
                               name.find("shared_expert") != std::string::npos;
    EXPECT_FALSE(is_of_experts && name.ends_with(".bias")) << name;
  }
}

TEST_F(CliQuantFamilies, SmoothingExpertsByNameIsRefused) {
  take("qwen2-moe");
  for (const char* subgraph : {"norm_gate_up", "up_down"}) {
    const fs::path recipe =
        recipe_file({{"name", "experts"},
                     {"rules", {{{"match", "*"}, {"scheme", "W8A8_DYNAMIC"}}}},
                     {"smooth", {{"method", "m4"}, {"subgraphs", {"norm_qkv", subgraph}}}}});
    expect_refusal({"--recipe", recipe, "-calib", texts_}, kBadUsage,
                   "experts are not smoothed, but \"" + std::string(subgraph) + "\"");
  }
}

TEST_F(CliQuantFamilies, StatisticsDoNotServeWhatNeedsTheModelToRun) {
  const fs::path stats = folder_ / "stats.json";
  std::ignore = calibrate("saved", {"--save-stats", stats});
  const fs::path rotated = recipe_file(
      {{"name", "rotated"}, {"rotate", true}, {"rules", {{{"match", "*"}, {"scheme", "W8A8"}}}}});
  expect_refusal({"-type", "w8a8", "-anti_method", "m4", "--stats", stats}, kBadUsage,
                 "smoothing m4 (-anti_method none)");
  expect_refusal({"-type", "w8a8", "--method", "gptq", "--stats", stats}, kBadUsage,
                 "GPTQ (--method round)");
  expect_refusal({"-type", "w8a8c8", "--stats", stats}, kBadUsage, "C8 (-use_kvcache_quant False)");
  expect_refusal({"-type", "qwen2p5_fa3", "--stats", stats}, kBadUsage,
                 "FAQuant (-use_fa_quant False)");
  expect_refusal({"--recipe", rotated, "--stats", stats}, kBadUsage, "\"rotate\"");
  expect_refusal({"-type", "w8a8c8", "-anti_method", "m1", "--stats", stats, "--dry-run"},
                 kBadUsage, "smoothing m1 (-anti_method none), C8 (-use_kvcache_quant False)");
  expect_refusal({"-type", "w8a8", "-anti_method", "m4", "-calib", texts_, "--save-stats",
                  folder_ / "smoothed.json"},
                 kBadUsage, "serves no other run");
}

TEST_F(CliQuantFamilies, AFusedMatrixIsSmoothedRotatedAndFittedToItsInputs) {
  take("qwen");
  const std::string module = "transformer.h.1.attn.c_attn";
  EXPECT_LT(
      kl_of(quantize("gptq", {"-type", "w8a8_dynamic", "-calib", texts_, "--method", "gptq"})),
      0.05);
  EXPECT_GT(reported(folder_ / "gptq", module + ".weight").at("calibration_rows"), 0);
  EXPECT_LT(
      kl_of(quantize("m4", {"-type", "w8a8_dynamic", "-calib", texts_, "-anti_method", "m4"})),
      0.05);
  EXPECT_NE(written(folder_ / "m4", module + ".weight"),
            written(folder_ / "gptq", module + ".weight"));
  const fs::path rotated = recipe_file({{"name", "rotated"},
                                        {"rotate", true},
                                        {"keep_float", {"lm_head"}},
                                        {"rules", {{{"match", "*"}, {"scheme", "W8A16"}}}}});
  EXPECT_LT(kl_of(quantize("rotated", {"--recipe", rotated, "-calib", texts_})), 0.05);
  for (const char* option : {"-use_kvcache_quant", "-use_fa_quant"}) {
    expect_refusal({"-type", "w8a8", "-calib", texts_, option, "True"}, kBadUsage,
                   "are one matrix, and no engine names scales");
  }
}

TEST_F(CliQuantFamilies, VerifyRefusesScalesOfAttentionThatNoEngineNames) {
  take("qwen");
  const fs::path out = quantize("out");
  EXPECT_EQ(run_llmq({"verify", out}).exit_code, 0);
  OrderedJson description = written_json(out, "quant_model_description.json");
  description["kv_cache_type"] = description["kv_quant_type"] = "C8";
  write_file(out / "quant_model_description.json", description.dump());
  const CommandResult result = run_llmq({"verify", out});
  EXPECT_EQ(result.exit_code, kGateFailed);
  EXPECT_THAT(result.out, HasSubstr("no engine names its tensors"));
}

TEST_F(CliQuantFamilies, ModelsWithExpertsAreNotRotated) {
  take("qwen3-moe");
  const fs::path recipe = recipe_file(
      {{"name", "rotated"}, {"rotate", true}, {"rules", {{{"match", "*"}, {"scheme", "W8A8"}}}}});
  expect_refusal({"--recipe", recipe, "-calib", texts_}, kBadUsage,
                 "models with experts are not rotated");
}

TEST_F(CliQuantFamilies, RotationUntiesTheHeadAndSaysSo) {
  take("qwen2-tied");
  const OrderedJson recipe{{"name", "rotated"},
                           {"rotate", true},
                           {"keep_float", {"lm_head"}},
                           {"rules", {{{"match", "*"}, {"scheme", "W8A16"}}}}};
  const CommandResult result = quant("out", {"--recipe", recipe_file(recipe)});
  EXPECT_THAT(result.err, HasSubstr("unties lm_head"));
  const OrderedJson config = written_json(folder_ / "out", "config.json");
  EXPECT_EQ(config.at("tie_word_embeddings"), false);
  EXPECT_NE(written(folder_ / "out", "lm_head.weight").bytes,
            written(folder_ / "out", "model.embed_tokens.weight").bytes);
  EXPECT_LT(kl_of(folder_ / "out"), 0.05);
  expect_refusal({"--recipe", recipe_file(recipe), "-calib", texts_, "--keep-tied"}, kBadUsage,
                 "--keep-tied");
}

// Gains are folded into the head, so that what it reads has unit mean square, whatever they were.
TEST_F(CliQuantFamilies, AStaticHeadOfARotatedModelIsCalibratedOnWhatItReads) {
  take("qwen2-tied", {{"tie_word_embeddings", false}, {"hidden_size", 64}});
  tensors_ = read_all_tensors(source_);
  for (size_t i = 0; i < 64; ++i) set_source("model.norm.weight", i, 16.0F);
  write_source();
  const OrderedJson recipe{{"name", "rotated"},
                           {"rotate", true},
                           {"keep_float", {"model.*"}},
                           {"rules", {{{"match", "*"}, {"scheme", "W8A8"}}}}};
  const fs::path out = quantize("out", {"--recipe", recipe_file(recipe), "-calib", texts_});
  const OrderedJson head = reported(out, "lm_head.weight");
  EXPECT_LE(head.at("input_max").get<double>(), 8.01) << "at most the root of 64 channels";
  EXPECT_GE(head.at("input_min").get<double>(), -8.01);
  EXPECT_GT(head.at("input_max").get<double>(), 1.0);
  EXPECT_LT(kl_of(out), 0.2);
}

// The embedding comes first in the files, and a head that is tied to it wants the whole model run.
TEST_F(CliQuantFamilies, AQuantizedTiedHeadLeavesTheLayersAsTheyAre) {
  take("qwen2-tied");
  const std::vector<std::string> options{"-type",    "w8a8c8", "-calib",       texts_,
                                         "--method", "gptq",   "-anti_method", "m4"};
  std::vector<std::string> with_head = options;
  with_head.insert(with_head.end(), {"-disable_names", "*.down_proj"});
  std::vector<RawTensor> want = read_all_tensors(quantize("plain", options));
  std::vector<RawTensor> got = read_all_tensors(quantize("head", with_head));
  const auto outside = [](const RawTensor& tensor) {
    return tensor.name.find(".layers.") == std::string::npos;
  };
  EXPECT_NE(std::count_if(got.begin(), got.end(), outside),
            std::count_if(want.begin(), want.end(), outside));
  std::erase_if(want, outside);
  std::erase_if(got, outside);
  EXPECT_EQ(got, want);
  EXPECT_GT(reported(folder_ / "head", "model.embed_tokens.weight").at("calibration_rows"), 0);
}

TEST_F(CliQuantFamilies, ARunThatWouldNotFitIsRefusedBeforeItBegins) {
  expect_refusal({"-type", "w8a8", "-calib", texts_, "--max-memory", "1MiB"}, kNoMemory,
                 "--max-memory allows 1.05 MB");
  for (const char* size : {"0", "-1", "4TiB", "GiB", "1e40"}) {
    expect_refusal({"-type", "w8a8", "-calib", texts_, "--max-memory", size}, kBadUsage,
                   "is no size");
  }
  std::ignore = calibrate("fits", {"--max-memory", "4GiB"});
  const CommandResult plan = run_llmq({"plan", "-src", source_, "-type", "w8a8", "--json"});
  const CommandResult dry = quant("dry", {"-type", "w8a8", "--dry-run"});
  EXPECT_EQ(json_output(dry).at("totals").at("expected_peak_memory_bytes"),
            json_output(plan).at("peak_memory_bytes"));
}

}  // namespace
}  // namespace llmq::test
