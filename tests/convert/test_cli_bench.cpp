#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "quant/kernels/cpu.h"
#include "tests/convert/cli_runner.h"

namespace llmq::test {
namespace {

using testing::HasSubstr;

const std::string kPico = std::string(LLMQ_TEST_SOURCE_DIR) + "/../samples/pico";

nlohmann::ordered_json document_of(const Command& command) {
  const CommandResult result = run_command(command);
  EXPECT_EQ(result.exit_code, 0) << result.summary();
  return json_output(result);
}

nlohmann::ordered_json bench(std::vector<std::string> arguments) {
  std::vector<std::string> all{"bench", "--json"};
  all.insert(all.end(), arguments.begin(), arguments.end());
  return document_of(llmq_command(all));
}

// The shape "tiny": hidden 64, intermediate 160, 2 layers, 4 heads and 2 KV heads of 16 lanes, 512
// tokens. Weights of a layer: q and o 64·64, k and v 32·64, three of 64·160.
constexpr double kLayerWeights = 2 * 64 * 64 + 2 * 32 * 64 + 3 * 64 * 160;
constexpr double kHeadWeights = 512 * 64;

TEST(CliBench, GivesARowForEachBatchDepthAndCase) {
  const auto rows = bench({"--shape", "tiny", "-type", "w8a8_dynamic", "--case_pair",
                           "[[16,3],[4,0]]", "--depth", "0,200", "--batch_size", "1,2"});
  ASSERT_EQ(rows.size(), 8U);
  std::set<std::string> cases;
  for (const auto& row : rows) {
    cases.insert(row["batch_size"].dump() + "/" + row["depth"].dump() + "/" +
                 row["prefill_tokens"].dump());
    EXPECT_GT(row["first_token_ms"].get<double>(), 0);
    EXPECT_GT(row["prefill_tokens_per_s"].get<double>(), 0);
    EXPECT_EQ(row["decode_tokens_per_s"].is_null(), row["decode_tokens"] == 0);
    EXPECT_EQ(row["share_of_bandwidth"].is_null(), row["decode_tokens"] == 0);
  }
  EXPECT_EQ(cases.size(), 8U);
}

TEST(CliBench, CountsOperationsAndBytesFromTheShapes) {
  constexpr double kPrefill = 16;
  constexpr double kDecode = 3;
  constexpr double kDepth = 200;
  const auto rows = bench({"--shape", "tiny", "-type", "w8a16", "-disable_names", "lm_head", "--kv",
                           "bf16", "--case_pair", "[[16,3]]", "--depth", "200"});
  const auto& row = rows[0];
  EXPECT_EQ(row["kv"], "BF16");
  // The head gives one row of logits for the whole prompt.
  const double linear = 2 * (2 * kLayerWeights + kHeadWeights / kPrefill);
  EXPECT_NEAR(row["prefill_linear_operations_per_token"].get<double>(), linear, 1e-6 * linear);
  // 2 layers, q·k and p·v of 4 heads of 16 lanes, a multiplication and an addition each.
  const double per_key = 2 * 4 * 4 * 16;
  const double mean_keys = kDepth + (kPrefill + 1) / 2;
  EXPECT_NEAR(row["prefill_attention_operations_per_token"].get<double>(), per_key * mean_keys,
              1e-6 * per_key * mean_keys);
  // A byte a weight and 4 for its output's scale; the bf16 head two a weight.
  const double n_outputs = 64 + 2 * 32 + 64 + 2 * 160 + 64;
  // Each output of q, k and v has a float32 bias.
  const double n_biases = 64 + 2 * 32;
  const double weights = 2 * (kLayerWeights + 4 * n_outputs + 4 * n_biases) + 2 * kHeadWeights;
  EXPECT_NEAR(row["decode_weight_bytes_per_step"].get<double>(), weights, 1e-6 * weights);
  // Keys and values of 2 heads of 16 lanes in 2 layers, two bytes each.
  const double kv = (kDepth + kPrefill + (kDecode + 1) / 2) * 2 * 2 * 16 * 2 * 2;
  EXPECT_NEAR(row["decode_bytes_per_token"].get<double>(), weights + kv, 1e-6 * weights);
}

TEST(CliBench, SyntheticModelsOfEveryLinearSchemeAndKvRun) {
  for (const char* type : {"w8a8", "w8a8_dynamic", "w8a8_mix", "w8a8s", "w8a16", "w4a16"}) {
    for (const char* kv : {"bf16", "int8"}) {
      const auto rows = bench({"--shape", "tiny", "-type", type, "--kv", kv, "--case_pair",
                               "[[4,1]]", "--skip-limits"});
      EXPECT_EQ(rows[0]["kv"], std::string(kv) == "int8" ? "I8" : "BF16") << type;
      EXPECT_GT(rows[0]["decode_tokens_per_s"].get<double>(), 0) << type;
      EXPECT_TRUE(rows[0]["share_of_bandwidth"].is_null()) << type;
    }
  }
}

TEST(CliBench, ASavedSyntheticModelObeysTheRulesOfRealOnes) {
  const TemporaryFolder place;
  for (const char* type : {"w8a8", "w4a16"}) {
    bench({"--shape", "tiny", "-type", type, "--kv", "int8", "--save-model", place / type,
           "--case_pair", "[[2,1]]", "--skip-limits"});
    const CommandResult verified = run_llmq({"verify", place / type});
    EXPECT_EQ(verified.exit_code, 0) << verified.summary();
  }
  const CommandResult refused =
      run_llmq({"bench", "--shape", "tiny", "-type", "w8a8", "--save-model", place / "w8a8"});
  EXPECT_EQ(refused.exit_code, 2);
  EXPECT_THAT(refused.err, HasSubstr("not empty"));
}

TEST(CliBench, DepthMayBeRunInsteadOfFilled) {
  const auto rows =
      bench({"--model_path", kPico, "--depth", "20", "--prefill-depth", "--case_pair", "[[4,2]]"});
  EXPECT_EQ(rows[0]["depth"], 20);
  EXPECT_EQ(rows[0]["quantize"], "float");
}

TEST(CliBench, LimitsNameTheInstructionsOfEverySet) {
  const auto limits = bench({"--limits"})["limits"];
  EXPECT_GT(limits["read_gb_per_s"].get<double>(), 0);
  std::set<std::string> int8_sets;
  for (const auto& peak : limits["peaks"]) {
    EXPECT_GT(peak["gops"].get<double>(), 0) << peak.dump();
    if (peak["kind"] == "int8") int8_sets.insert(peak["instruction_set"].get<std::string>());
  }
  std::set<std::string> expected;
  for (const quant::Isa isa : quant::supported_isas()) {
    if (isa != quant::Isa::kScalar) expected.insert(std::string(quant::isa_name(isa)));
  }
  EXPECT_EQ(int8_sets, expected);
}

TEST(CliBench, CsvHasAHeadingAndARow) {
  const CommandResult result =
      run_llmq({"bench", "--shape", "tiny", "--csv", "--case_pair", "[[2,1]]"});
  ASSERT_EQ(result.exit_code, 0) << result.summary();
  EXPECT_EQ(std::count(result.out.begin(), result.out.end(), '\n'), 2);
  EXPECT_THAT(result.out, HasSubstr("share_of_bandwidth"));
}

TEST(CliBench, RefusesWhatDoesNotFit) {
  const std::vector<std::pair<std::vector<std::string>, std::string>> cases{
      {{"bench"}, "nothing to measure"},
      {{"bench", "--shape", "huge"}, "qwen2.5-1.5b"},
      {{"bench", "--shape", "tiny", "--model_path", kPico}, "exclude"},
      {{"bench", "--model_path", kPico, "-type", "w8a8"}, "-type"},
      {{"bench", "--shape", "tiny", "--kv", "int8"}, "-type"},
      {{"bench", "--shape", "tiny", "--case_pair", "[[0,1]]"}, "--case_pair"}};
  for (const auto& [arguments, word] : cases) {
    const CommandResult result = run_llmq(arguments);
    EXPECT_EQ(result.exit_code, 2) << word << result.summary();
    EXPECT_THAT(result.err, HasSubstr(word));
  }
}

TEST(CliInfo, ShowsTheForcedSetAndNoKernelAboveIt) {
  for (const quant::Isa isa : quant::supported_isas()) {
    Command command = llmq_command({"info", "--json"});
    command.environment["LLMQ_ISA"] = quant::isa_name(isa);
    const auto document = document_of(command);
    EXPECT_EQ(document["active_instruction_set"], quant::isa_name(isa));
    EXPECT_EQ(document["is_forced"], true);
    const auto names = document["instruction_sets"].get<std::vector<std::string>>();
    const auto active = std::find(names.begin(), names.end(), quant::isa_name(isa));
    for (const auto& kernel : document["kernels"]) {
      const auto used =
          std::find(names.begin(), names.end(), kernel["instruction_set"].get<std::string>());
      EXPECT_LE(used, active) << kernel.dump();
    }
  }
}

TEST(CliRun, ExplainNamesKernelAndSetOfEachKindOfLinear) {
  const TemporaryFolder place;
  bench({"--shape", "tiny", "-type", "w8a8", "--kv", "int8", "--save-model", place / "model",
         "--case_pair", "[[2,1]]", "--skip-limits"});
  Command command = llmq_command({"run", "--model_path", place / "model", "--explain", "--json"});
  command.environment["LLMQ_ISA"] = "scalar";
  const auto document = document_of(command);
  EXPECT_EQ(document["attention"]["kv_dtype"], "I8");
  EXPECT_EQ(document["attention"]["arithmetic"], "16-bit integers by int8 keys and values");
  std::set<std::string> seen;
  for (const auto& linear : document["linears"]) {
    seen.insert(linear["scheme"].get<std::string>() + " " + linear["kernel"].get<std::string>());
    EXPECT_EQ(linear["instruction_set"], "scalar");
  }
  EXPECT_EQ(seen, (std::set<std::string>{"W8A8 gemm_w8a8", "FLOAT gemm_f16"}));
}

TEST(CliRun, TextsOfABatchAreThoseOfEachAlone) {
  const std::string requests =
      R"([{"prompt": "Once", "max_output_length": 9}, {"prompt": "The dog", "max_output_length": 5},)"
      R"( "A"])";
  nlohmann::ordered_json alone;
  for (const char* size : {"1", "2", "3"}) {
    const auto document = document_of(
        llmq_command({"run", "--model_path", kPico, "--input_dict", requests, "--max_batch_size",
                      size, "--max_output_length", "7", "--deterministic", "--json"}));
    ASSERT_EQ(document["results"].size(), 3U);
    EXPECT_LE(document["results"][1]["ids"].size(), 5U);
    if (alone.is_null()) alone = document;
    EXPECT_EQ(document, alone) << size;
  }
}

}  // namespace
}  // namespace llmq::test
