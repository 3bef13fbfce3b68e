#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <iomanip>
#include <limits>
#include <sstream>

#include "tests/convert/calibrated_fixture.h"

namespace llmq::test {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

constexpr int kBadUsage = 2;

class CliQuantSelection : public CalibratedFixture {
 protected:
  /// The model with larger weights, so that rounding them tells.
  void SetUp() override {
    CalibratedFixture::SetUp();
    for (RawTensor& tensor : tensors_) {
      if (tensor.shape.size() != 2) continue;
      const size_t n = tensor.bytes.size() / 2;
      const std::vector<float> values = tensor_values(tensor);
      for (size_t i = 0; i < n; ++i) {
        const uint16_t bits = formats::float_to_bf16(3.0F * values[i]);
        std::memcpy(tensor.bytes.data() + 2 * i, &bits, 2);
      }
    }
    write_source();
    write_file(plain_texts_,
               "What is a number? The model answers in words.\n=====\n"
               "The same text is quantized into the wrong number\n=====\n"
               "Eight weights and 1029 scales; 4090 letters, [0, 2]\n");
  }

  [[nodiscard]] fs::path select(const std::string& name, const std::string& type,
                                std::vector<std::string> options) const {
    options.insert(options.end(), {"-type", type, "-calib", texts_});
    return quantize(name, options);
  }

  static OrderedJson selection(const fs::path& folder) { return report_of(folder).at("selection"); }

  /// Bits per weight by the definition, from the files and the source alone.
  [[nodiscard]] double bits_of_files(const fs::path& folder) const {
    double bytes = 0;
    double parameters = 0;
    for (const RawTensor& tensor : read_all_tensors(folder))
      bytes += static_cast<double>(tensor.bytes.size());
    for (const RawTensor& tensor : tensors_) {
      double elements = 1;
      for (const int64_t extent : tensor.shape) elements *= static_cast<double>(extent);
      parameters += elements;
    }
    return 8 * bytes / parameters;
  }

  /// KL of a folder from the source on the texts that it was calibrated on, by `llmq eval`.
  [[nodiscard]] double measured_kl(const fs::path& folder) const {
    const CommandResult result =
        run_llmq({"eval", "--model_path", folder, "--reference", source_, "--text", plain_texts_,
                  "--split", "=====", "--context", "256", "--json"});
    EXPECT_EQ(result.exit_code, 0) << result.summary();
    return json_output(result).at("kl").get<double>();
  }

  /// KL with everything quantized, and the bits per weight of both ends.
  struct Ends {
    double kl = 0;
    double bits_quantized = 0;
    double bits_float = 0;
  };
  [[nodiscard]] Ends ends_of(const std::string& type) const {
    const fs::path all = select("ends-" + type, type, {"--max-kl", "1e9"});
    EXPECT_EQ(selection(all).at("groups_kept_float"), 0);
    Ends ends{selection(all).at("kl"), bits_of_files(all), 0};
    const fs::path none = select("none-" + type, type, {"--target-bits", "1000"});
    ends.bits_float = bits_of_files(none);
    return ends;
  }

  fs::path plain_texts_ = folder_ / "texts.txt";
};

TEST_F(CliQuantSelection, TargetBitsBoundsTheFilesAndLeavesNoRoom) {
  const Ends ends = ends_of("w4a16");
  ASSERT_LT(ends.bits_quantized, ends.bits_float);
  size_t n_before = 0;
  for (const double share : {0.0, 0.3, 0.6, 0.9, 1.0}) {
    const double target = ends.bits_quantized + share * (ends.bits_float - ends.bits_quantized);
    const std::string number = (std::ostringstream() << std::setprecision(17) << target).str();
    SCOPED_TRACE("--target-bits " + number);
    const fs::path folder = select("bits" + number, "w4a16", {"--target-bits", number});
    const double bits = bits_of_files(folder);
    EXPECT_LE(bits, target);
    const OrderedJson report = report_of(folder);
    EXPECT_EQ(report.at("totals").at("bits_per_weight"), bits);
    EXPECT_EQ(report.at("selection").at("bits_per_weight"), bits);
    double least_extra = std::numeric_limits<double>::infinity();
    for (const OrderedJson& group : report.at("sensitivity")) {
      EXPECT_GT(group.at("score").get<double>(), 0);
      if (group.at("kept_float")) continue;
      least_extra = std::min(least_extra, group.at("bytes_float").get<double>() -
                                              group.at("bytes_quantized").get<double>());
    }
    const double parameters = report.at("totals").at("parameters");
    EXPECT_GT(bits + 8 * least_extra / parameters, target) << "another group would still fit";
    const size_t n_kept = report.at("selection").at("groups_kept_float");
    EXPECT_GE(n_kept, n_before);
    n_before = n_kept;
  }
  EXPECT_EQ(n_before, 8U) << "four groups in each of two layers";
}

TEST_F(CliQuantSelection, TargetBelowTheLeastIsRefusedAndTheLeastIsNamed) {
  expect_refusal({"-type", "w4a16", "-calib", texts_, "--target-bits", "2"}, kBadUsage,
                 "bits per weight, and not less");
  const double least = ends_of("w4a16").bits_quantized;
  const CommandResult refused =
      try_quant({"-type", "w4a16", "-calib", texts_, "--target-bits", "2"});
  EXPECT_THAT(refused.err, HasSubstr(fmt::format("{:.4f} bits", least)));
}

// What is decided on is what is written: the KL of the report is that of the folder, bit for bit
// but for the order in which samples are added up.
TEST_F(CliQuantSelection, KlOfTheDecisionIsThatOfTheFolder) {
  for (const std::string type : {"w4a16", "w8a8", "w8a8_dynamic", "w8a16"}) {
    SCOPED_TRACE(type);
    const double kl = ends_of(type).kl;
    EXPECT_GT(kl, 0);
    EXPECT_NEAR(measured_kl(folder_ / ("ends-" + type)), kl, 1e-12 * kl);
    const fs::path half = select("half-" + type, type, {"--max-kl", fmt::format("{}", kl / 2)});
    const double decided = selection(half).at("kl");
    EXPECT_LE(decided, kl / 2);
    EXPECT_NEAR(measured_kl(half), decided, 1e-12 * kl);
  }
}

TEST_F(CliQuantSelection, SmallerMaxKlKeepsMoreFloat) {
  const double kl = ends_of("w8a8").kl;
  size_t n_before = 0;
  double bits_before = 0;
  for (const double share : {0.9, 0.5, 0.2, 0.05, 1e-6}) {
    const std::string limit = fmt::format("{}", share * kl);
    SCOPED_TRACE("--max-kl " + limit);
    const fs::path folder = select("kl" + limit, "w8a8", {"--max-kl", limit});
    EXPECT_LE(measured_kl(folder), share * kl);
    const size_t n_kept = selection(folder).at("groups_kept_float");
    EXPECT_GE(n_kept, std::max<size_t>(1, n_before));
    EXPECT_GE(bits_of_files(folder), bits_before);
    n_before = n_kept;
    bits_before = bits_of_files(folder);
  }
  EXPECT_GT(n_before, 4U);
}

TEST_F(CliQuantSelection, ScoresTellWhatDoesDamage) {
  // Outliers that take all of int4's steps, in a column that reads nothing but zeros.
  for (size_t i = 0; i < 64; ++i) {
    set_source("model.layers.1.mlp.gate_proj.weight", i, 0.0F);
    set_source("model.layers.1.mlp.down_proj.weight", i * 128, 30.0F);
  }
  write_source();
  const fs::path folder = select("out", "w4a16", {"--target-bits", "1000", "--method", "round"});
  const OrderedJson groups = report_of(folder).at("sensitivity");
  double largest = 0;
  std::string worst;
  for (const OrderedJson& group : groups) {
    if (group.at("score").get<double>() <= largest) continue;
    largest = group.at("score");
    worst = group.at("layer").dump() + " " + group.at("group").get<std::string>();
  }
  EXPECT_EQ(worst, "1 down") << groups.dump(1);
}

TEST_F(CliQuantSelection, RecipeOfTheReportDoesTheSameAgain) {
  const double kl = ends_of("w8a8").kl;
  const fs::path chosen = select("chosen", "w8a8", {"--max-kl", fmt::format("{}", kl / 3)});
  write_file(folder_ / "recipe.json", report_of(chosen).at("recipe").dump());
  const fs::path again = quantize("again", {"--recipe", folder_ / "recipe.json", "-calib", texts_});
  EXPECT_TRUE(result_files(again) == result_files(chosen));
  EXPECT_FALSE(report_of(again).contains("selection"));
}

TEST_F(CliQuantSelection, ThreadsDoNotMatter) {
  for (const std::string type : {"w4a16", "w8a8"}) {
    std::map<std::string, std::string> files;
    OrderedJson decided;
    for (const std::string threads : {"1", "2", "3"}) {
      const fs::path folder =
          select(fmt::format("t{}-{}", threads, type), type,
                 {"--max-kl", "0.01", "--target-bits", "1000", "--threads", threads});
      if (files.empty()) files = result_files(folder);
      if (decided.is_null()) decided = report_of(folder).at("sensitivity");
      EXPECT_TRUE(result_files(folder) == files) << threads;
      EXPECT_EQ(report_of(folder).at("sensitivity"), decided) << threads;
    }
  }
}

TEST_F(CliQuantSelection, BothGoalsHoldOrAreRefused) {
  const Ends ends = ends_of("w4a16");
  const std::string limit = fmt::format("{}", ends.kl / 4);
  const fs::path alone = select("alone", "w4a16", {"--max-kl", limit});
  const double bits = bits_of_files(alone);
  const fs::path both =
      select("both", "w4a16", {"--max-kl", limit, "--target-bits", fmt::format("{}", bits)});
  EXPECT_TRUE(result_files(both) == result_files(alone));
  expect_refusal({"-type", "w4a16", "-calib", texts_, "--max-kl", limit, "--target-bits",
                  fmt::format("{}", ends.bits_quantized)},
                 kBadUsage, fmt::format("takes {:.4f} bits per weight", bits));
}

TEST_F(CliQuantSelection, GoalsThatAreNoGoalsAreRefused) {
  for (const std::string option : {"--target-bits", "--max-kl"}) {
    for (const std::string value : {"0", "-1", "nan", "inf"}) {
      expect_refusal({"-type", "w8a8", "-calib", texts_, fmt::format("{}={}", option, value)},
                     kBadUsage, option + " ");
    }
    expect_refusal({"-type", "w8a8", "--stats", folder_ / "s.json", option, "5"}, kBadUsage,
                   "--stats");
    expect_refusal({"-type", "w8a8", "-calib", texts_, "-disable_names", "*", option, "5"},
                   kBadUsage, "quantizes no linear");
  }
}

TEST_F(CliQuantSelection, DryRunDecidesAndWritesNothing) {
  const auto before = folder_entries(folder_.path());
  const CommandResult result = try_quant(
      {"-type", "w4a16", "-calib", texts_, "--target-bits", "1000", "--dry-run", "--json"});
  EXPECT_EQ(result.exit_code, 0) << result.summary();
  EXPECT_EQ(folder_entries(folder_.path()), before);
  const OrderedJson report = json_output(result);
  EXPECT_EQ(report.at("selection").at("groups_kept_float"), 8);
  EXPECT_GT(report.at("recipe").at("keep_float").size(), 8U);
}

// Smoothed and rotated layers are measured as they are written. The KL of a rotated folder holds
// what rounding its float tensors to 16 bits adds: by the triangle inequality of √KL (to second
// order a distance) at most that of a rotated folder with every linear float.
TEST_F(CliQuantSelection, TransformedLayersAreMeasuredAsTheyAreWritten) {
  const fs::path smooth = select("smooth", "w8a8", {"--max-kl", "1e9", "--anti-method", "m1"});
  const double kl = selection(smooth).at("kl");
  EXPECT_NEAR(measured_kl(smooth), kl, 1e-12 * kl);

  OrderedJson recipe = report_of(smooth).at("recipe");
  recipe.erase("smooth");
  recipe["rotate"] = true;
  write_file(folder_ / "rotate.json", recipe.dump());
  const fs::path rotated = quantize(
      "rotated", {"--recipe", folder_ / "rotate.json", "-calib", texts_, "--max-kl", "1e9"});
  recipe["keep_float"] = {"*"};
  write_file(folder_ / "float.json", recipe.dump());
  const double rounding = std::sqrt(
      measured_kl(quantize("float", {"--recipe", folder_ / "float.json", "-calib", texts_})));
  EXPECT_NEAR(std::sqrt(selection(rotated).at("kl").get<double>()), std::sqrt(measured_kl(rotated)),
              rounding);
}

TEST_F(CliQuantSelection, ExpertsOfALayerStayFloatTogether) {
  config_ = OrderedJson{{"architectures", {"Qwen3MoeForCausalLM"}},
                        {"model_type", "qwen3_moe"},
                        {"vocab_size", kVocabulary},
                        {"hidden_size", 64},
                        {"intermediate_size", 128},
                        {"moe_intermediate_size", 32},
                        {"num_experts", 4},
                        {"num_experts_per_tok", 2},
                        {"norm_topk_prob", true},
                        {"num_hidden_layers", 2},
                        {"num_attention_heads", 4},
                        {"num_key_value_heads", 2},
                        {"head_dim", 16},
                        {"max_position_embeddings", 256},
                        {"rms_norm_eps", 1e-6},
                        {"rope_theta", 10000.0},
                        {"hidden_act", "silu"},
                        {"tie_word_embeddings", false},
                        {"torch_dtype", "bfloat16"}};
  write_file(folder_ / "config.json", config_.dump());
  fs::remove_all(source_);
  Command make;
  make.argv = {LLMQ_MAKE_CHECKPOINT, "--config", folder_ / "config.json", "--out", source_};
  const CommandResult made = run_command(make);
  ASSERT_EQ(made.exit_code, 0) << made.summary();
  fs::copy_file(golden_tokenizer(), source_ / "tokenizer.json");
  const fs::path all = select("all", "w4a16", {"--max-kl", "1e9"});
  const double kl = selection(all).at("kl");
  EXPECT_NEAR(measured_kl(all), kl, 1e-12 * kl);
  const OrderedJson groups = report_of(all).at("sensitivity");
  ASSERT_EQ(groups.size(), 6U) << "qkv, attention_out and experts in each layer";
  EXPECT_EQ(groups.at(2).at("group"), "experts");
  const fs::path none = select("none", "w4a16", {"--target-bits", "1000"});
  const OrderedJson kept = report_of(none).at("recipe").at("keep_float");
  EXPECT_NE(std::find(kept.begin(), kept.end(), "model.layers.1.mlp.experts.*.up_proj"),
            kept.end());
  const OrderedJson tensors = report_of(none).at("tensors");
  for (const OrderedJson& tensor : tensors)
    EXPECT_EQ(tensor.at("scheme"), "FLOAT") << tensor.at("name");
}

}  // namespace
}  // namespace llmq::test
