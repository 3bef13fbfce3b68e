// Folders whose weights were smoothed or rotated before they were written.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "formats/float16.h"
#include "tests/convert/calibrated_fixture.h"

namespace llmq::test {
namespace {

using testing::HasSubstr;

class CliTransform : public CalibratedFixture {
 protected:
  /// Multiplies channel i of every norm by a power of two and divides the columns that read it: the
  /// model is the same bit for bit.
  void move_gains() {
    const auto power = [](size_t channel) {
      return std::ldexp(1.0F, static_cast<int>(channel * 5 % 9) - 4);
    };
    for (RawTensor& tensor : tensors_) {
      const bool is_norm = tensor.name.ends_with("input_layernorm.weight") ||
                           tensor.name.ends_with("post_attention_layernorm.weight");
      bool is_reader = false;
      for (const char* reader : {"q_proj", "k_proj", "v_proj", "gate_proj", "up_proj"})
        is_reader = is_reader || tensor.name.ends_with(std::string(reader) + ".weight");
      if (!is_norm && !is_reader) continue;
      const std::vector<float> values = tensor_values(tensor);
      const auto n_channels = static_cast<size_t>(tensor.shape.back());
      for (size_t i = 0; i < values.size(); ++i) {
        const float gain = power(i % n_channels);
        set_source(tensor.name, i, is_norm ? values[i] * gain : values[i] / gain);
      }
    }
    write_source();
  }

  /// Mean NLL of the folder on the small texts.
  [[nodiscard]] double mean_nll(const std::filesystem::path& folder) const {
    const CommandResult result =
        run_llmq({"eval", "--model_path", folder, "--text", texts_, "--context", "32", "--json"});
    EXPECT_EQ(result.exit_code, 0) << result.summary();
    return json_output(result).at("mean_nll");
  }

  [[nodiscard]] double kl_to_source(const std::filesystem::path& folder) const {
    const CommandResult result = run_llmq({"eval", "--model_path", folder, "--reference", source_,
                                           "--text", texts_, "--context", "32", "--json"});
    EXPECT_EQ(result.exit_code, 0) << result.summary();
    return json_output(result).at("kl");
  }

  /// Quantizes the small texts' way by a recipe of this text.
  [[nodiscard]] std::filesystem::path by_recipe(const std::string& name,
                                                const std::string& recipe) const {
    write_file(folder_ / (name + ".json"), recipe);
    return quantize(name, {"--recipe", folder_ / (name + ".json"), "-calib", texts_});
  }
};

// Scales follow gains (see Equivariance in test_smooth_layer), norms are rounded to bfloat16, and
// what the columns get is exact: codes, scales and all else come out the same.
TEST_F(CliTransform, PureGainRescalingIsUndoneExactly) {
  const std::vector<std::string> methods = {"m1", "m2", "m3", "m4", "m6"};
  std::vector<std::filesystem::path> before;
  for (const std::string& method : methods)
    before.push_back(calibrate("before_" + method, {"-anti_method", method}));
  const auto plain = calibrate("before_plain");
  const double nll = mean_nll(source_);
  move_gains();
  ASSERT_EQ(mean_nll(source_), nll) << "not the same function to begin with";
  for (size_t i = 0; i < methods.size(); ++i) {
    const auto after = calibrate("after_" + methods[i], {"-anti_method", methods[i]});
    EXPECT_EQ(read_all_tensors(after), read_all_tensors(before[i])) << methods[i];
  }
  EXPECT_NE(read_all_tensors(calibrate("after_plain")), read_all_tensors(plain));
}

// A rotated weight is rounded to bfloat16 once, with an error of up to 2⁻⁹ of itself; one of eight
// bits per channel with up to 1/254 of the largest of its row. So the former may not cost more.
TEST_F(CliTransform, ARotatedModelIsTheSourceUpToTheRoundingOfItsWeights) {
  const auto rotated = by_recipe("rotated", R"({"name":"rotated","rotate":true,
      "rules":[{"match":"*","scheme":"FLOAT"}]})");
  const auto plain = by_recipe("plain", R"({"name":"plain","keep_float":[],
      "rules":[{"match":"*","scheme":"W8A16"}]})");
  EXPECT_LE(kl_to_source(rotated), kl_to_source(plain));
  auto written = read_all_tensors(rotated);
  for (const char* name : {"model.norm.weight", "model.layers.0.input_layernorm.weight",
                           "model.layers.1.post_attention_layernorm.weight"}) {
    EXPECT_THAT(float_values(tensor_named(written, name)), testing::Each(1.0F)) << name;
  }
  EXPECT_NE(tensor_named(written, "model.embed_tokens.weight").bytes,
            tensor_named(tensors_, "model.embed_tokens.weight").bytes);
}

TEST_F(CliTransform, ATiedHeadIsUntiedByRotation) {
  config_["tie_word_embeddings"] = true;
  std::erase_if(tensors_, [](const RawTensor& tensor) { return tensor.name == "lm_head.weight"; });
  RawTensor& norm = tensor_named(tensors_, "model.norm.weight");
  for (size_t i = 0; i < static_cast<size_t>(norm.shape[0]); ++i)
    set_source(norm.name, i, i % 2 == 0 ? 0.5F : 2.0F);
  write_source();
  const auto rotated = by_recipe("rotated", R"({"name":"rotated","rotate":true,
      "keep_float":["lm_head"],"rules":[{"match":"*","scheme":"W8A8_DYNAMIC"}]})");
  auto written = read_all_tensors(rotated);
  EXPECT_NE(tensor_named(written, "lm_head.weight").bytes,
            tensor_named(written, "model.embed_tokens.weight").bytes)
      << "the head carries the final norm's gain";
  EXPECT_LE(kl_to_source(rotated),
            4.0 * kl_to_source(quantize("plain", {"-type", "w8a8_dynamic"})));
}

TEST_F(CliTransform, ShiftingWritesBiasesOfNormsAndOfTheirReaders) {
  const auto shifted = calibrate("shifted", {"-anti_method", "m2"});
  auto written = read_all_tensors(shifted);
  const auto description = written_json(shifted, "quant_model_description.json");
  for (const char* layer : {"model.layers.0.", "model.layers.1."}) {
    for (const char* name : {"input_layernorm.bias", "post_attention_layernorm.bias"}) {
      const std::string bias = std::string(layer) + name;
      EXPECT_EQ(tensor_named(written, bias).shape, std::vector<int64_t>{64});
      EXPECT_THAT(float_values(tensor_named(written, bias)), testing::Contains(testing::Ne(0.0F)));
      EXPECT_EQ(description.at(bias), "FLOAT");
    }
    // What was not there before: gate and up have no biases in a Qwen2 model.
    EXPECT_EQ(
        elements_of<int32_t>(tensor_named(written, layer + std::string("mlp.up_proj.quant_bias")))
            .size(),
        static_cast<size_t>(
            tensor_named(written, layer + std::string("mlp.up_proj.weight")).shape[0]));
  }
  const CommandResult verified = run_llmq({"verify", shifted, "--source", source_});
  EXPECT_EQ(verified.exit_code, 0) << verified.summary();
}

TEST_F(CliTransform, ShiftedNormsGoWithReadersThatStayFloat) {
  const auto shifted = by_recipe("shifted", R"({"name":"shifted",
      "keep_float":["lm_head","*.gate_proj","*.up_proj"],
      "rules":[{"match":"*","scheme":"W8A8_DYNAMIC"}],"smooth":{"method":"m2"}})");
  const auto plain = by_recipe("plain", R"({"name":"plain",
      "keep_float":["lm_head","*.gate_proj","*.up_proj"],
      "rules":[{"match":"*","scheme":"W8A8_DYNAMIC"}]})");
  EXPECT_LE(kl_to_source(shifted), 4.0 * kl_to_source(plain));
}

TEST_F(CliTransform, TheReportNamesWhatWasDoneToEveryLayerAndSubgraph) {
  const auto smoothed = calibrate("smoothed", {"-anti_method", "m4"});
  const OrderedJson done = report_of(smoothed).at("calibration").at("transformations");
  // down_proj stays float, so that nothing is done for it.
  ASSERT_EQ(done.size(), 6U);
  const std::vector<std::string> order = {"v_o", "norm_qkv", "norm_gate_up"};
  for (size_t i = 0; i < done.size(); ++i) {
    EXPECT_EQ(done[i].at("layer"), i / 3);
    EXPECT_EQ(done[i].at("subgraph"), order[i % 3]);
    EXPECT_EQ(done[i].at("method"), "m4");
    EXPECT_EQ(done[i].at("alpha"), 0.9);
  }
}

TEST_F(CliTransform, MethodsThatAreNotOfferedAreRefusedByName) {
  expect_refusal({"-type", "w8a8", "-calib", texts_, "-anti_method", "m5"}, 2, "m5");
  expect_refusal({"-type", "w8a8", "-calib", texts_, "--method", "magic"}, 2, "magic");
}

TEST_F(CliTransform, TypesThatAreNotOfferedAreRefusedInASentence) {
  for (const char* type : {"w4a4", "w16a16s"}) expect_refusal({"-type", type}, 2, type);
}

TEST_F(CliTransform, ATypeOfAnotherFamilyWhosePatternsMatchNothingIsRefused) {
  expect_refusal({"-type", "llama3.1_70b_instruct_fp16_w8a8", "-calib", texts_}, 2, "layers.2.*");
}

TEST_F(CliTransform, TheNewerSpellingTakesTheModelsBestPractice) {
  for (const auto& [model, recipe] : std::vector<std::pair<std::string, std::string>>{
           {"Qwen3-14B", "w8a8_mix"}, {"Qwen2.5-7B-Instruct", "qwen_w8a8"}}) {
    const CommandResult result =
        run_llmq({"quant", "--model_path", source_, "--save_path", folder_ / recipe, "--model_type",
                  model, "--quant_type", "w8a8", "-calib", texts_, "--dry-run", "--json"});
    EXPECT_EQ(result.exit_code, 0) << result.summary();
    EXPECT_EQ(json_output(result).at("recipe").at("name"), recipe);
  }
}

}  // namespace
}  // namespace llmq::test
