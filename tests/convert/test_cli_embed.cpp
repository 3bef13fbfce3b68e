#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "tests/convert/calibrated_fixture.h"

namespace llmq::test {
namespace {

using testing::AllOf;
using testing::Each;

using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;

constexpr int kUsage = 2;
constexpr int kBadInput = 3;

/// A Qwen2 checkpoint as embedding models are published: bare names and no head.
class CliEmbed : public CalibratedFixture {
 protected:
  void SetUp() override {
    give_vocabulary();
    std::erase_if(tensors_,
                  [](const RawTensor& tensor) { return tensor.name == "lm_head.weight"; });
    for (RawTensor& tensor : tensors_) tensor.name.erase(0, std::string("model.").size());
    write_source();
    write_file(texts_, "{\"prompt\": \"What is a number? The model answers in words.\"}\n");
  }

  static CommandResult embed(const std::filesystem::path& folder,
                             const std::vector<std::string>& more) {
    Command command = llmq_command({"run", "--model_path", folder, "--embed"});
    command.argv.insert(command.argv.end(), more.begin(), more.end());
    return run_command(command);
  }

  static OrderedJson embed_json(const std::filesystem::path& folder,
                                std::vector<std::string> more) {
    more.emplace_back("--json");
    const CommandResult result = embed(folder, more);
    EXPECT_EQ(result.exit_code, 0) << result.summary();
    return json_output(result);
  }

  static std::vector<double> vector_of(const OrderedJson& result) { return result["embedding"]; }

  static double dot(const std::vector<double>& a, const std::vector<double>& b) {
    double sum = 0;
    for (size_t i = 0; i < a.size(); ++i) sum += a[i] * b.at(i);
    return sum;
  }

  /// Gives the tokenizer a template that ends texts with <|im_end|>, id 458.
  void end_texts() const {
    OrderedJson file = OrderedJson::parse(read_file(source_ / "tokenizer.json"));
    file["post_processor"] = OrderedJson::parse(R"({"type":"TemplateProcessing",
        "single":[{"Sequence":{"id":"A","type_id":0}},
                  {"SpecialToken":{"id":"<|im_end|>","type_id":0}}],
        "pair":[],"special_tokens":{"<|im_end|>":{"id":"<|im_end|>","ids":[458],
                                                  "tokens":["<|im_end|>"]}}})");
    write_file(source_ / "tokenizer.json", file.dump());
  }
};

TEST_F(CliEmbed, GivesEachTextAVectorOfLengthOneAndTheCosines) {
  const OrderedJson document =
      embed_json(source_, {"--input_texts", "the model", "numbers", "the model"});
  const OrderedJson& results = document["results"];
  ASSERT_EQ(results.size(), 3U);
  for (const OrderedJson& result : results) {
    EXPECT_EQ(result["dimensions"], 64);
    EXPECT_NEAR(dot(vector_of(result), vector_of(result)), 1.0, 1e-6);
  }
  EXPECT_EQ(results[0]["embedding"], results[2]["embedding"]);
  EXPECT_NE(results[0]["embedding"], results[1]["embedding"]);
  const OrderedJson& similarity = document["similarity"];
  ASSERT_EQ(similarity.size(), 3U);
  for (size_t i = 0; i < 3; ++i) {
    for (size_t j = 0; j < 3; ++j) {
      EXPECT_NEAR(similarity[i][j].get<double>(), dot(vector_of(results[i]), vector_of(results[j])),
                  1e-6);
    }
  }
}

TEST_F(CliEmbed, OneTextIsOneObjectAndDoesNotDependOnTheBatch) {
  const OrderedJson alone = embed_json(source_, {"--input_texts", "numbers"});
  const OrderedJson batch = embed_json(source_, {"--input_texts", "the model", "numbers",
                                                 "--max_batch_size", "2", "--threads", "2"});
  EXPECT_FALSE(alone.contains("similarity"));
  EXPECT_EQ(alone["embedding"], batch["results"][1]["embedding"]);
  const OrderedJson ids = embed_json(source_, {"--input_ids", alone["prompt_ids"].dump()});
  EXPECT_EQ(ids, alone);
}

TEST_F(CliEmbed, ShowsDimensionsFirstValuesAndATable) {
  const CommandResult result = embed(source_, {"--input_texts", "the model", "numbers"});
  EXPECT_EQ(result.exit_code, 0) << result.summary();
  EXPECT_THAT(result.out, AllOf(HasSubstr("[1] "), HasSubstr("64 dimensions: "),
                                HasSubstr("cosine"), HasSubstr("1.0000")));
  const CommandResult one = embed(source_, {"--input_texts", "the model"});
  EXPECT_THAT(one.out, Not(HasSubstr("cosine")));
}

TEST_F(CliEmbed, TextsEndAsTheTokenizerEndsThem) {
  const std::vector<int32_t> plain =
      embed_json(source_, {"--input_texts", "numbers"})["prompt_ids"];
  end_texts();
  std::vector<int32_t> ended = embed_json(source_, {"--input_texts", "numbers"})["prompt_ids"];
  ASSERT_EQ(ended.size(), plain.size() + 1);
  EXPECT_EQ(ended.back(), 458);
  ended.pop_back();
  EXPECT_EQ(ended, plain);
  // A text to be continued has no end.
  const CommandResult run = run_llmq({"run", "--model_path", source_, "--input_texts", "numbers",
                                      "--max_output_length", "1", "--json"});
  EXPECT_EQ(json_output(run)["prompt_ids"].get<std::vector<int32_t>>(), plain);
}

TEST_F(CliEmbed, RefusesOptionsOfTextThatIsContinued) {
  for (const auto& option : std::vector<std::vector<std::string>>{
           {"--is_chat_model"}, {"--temperature", "1"}, {"--max_output_length", "5"}}) {
    std::vector<std::string> arguments{"--input_texts", "a"};
    arguments.insert(arguments.end(), option.begin(), option.end());
    EXPECT_EQ(embed(source_, arguments).exit_code, kUsage) << option.front();
  }
}

TEST_F(CliEmbed, RefusesAModelWhoseAttentionIsNotCausal) {
  config_["is_causal"] = false;
  write_source();
  const CommandResult result = embed(source_, {"--input_texts", "a"});
  EXPECT_EQ(result.exit_code, kBadInput);
  EXPECT_THAT(result.err, HasSubstr("is_causal of config.json is false"));
}

TEST_F(CliEmbed, RefusesAnotherPoolingThanTheLastTokens) {
  std::filesystem::create_directory(source_ / "1_Pooling");
  write_file(source_ / "1_Pooling/config.json", R"({"pooling_mode_lasttoken": true})");
  EXPECT_EQ(embed(source_, {"--input_texts", "a"}).exit_code, 0);
  for (const std::string pooling :
       {R"({"pooling_mode_mean_tokens": true, "pooling_mode_lasttoken": false})", "{}", "[]"}) {
    write_file(source_ / "1_Pooling/config.json", pooling);
    const CommandResult result = embed(source_, {"--input_texts", "a"});
    EXPECT_EQ(result.exit_code, kBadInput) << pooling;
    EXPECT_THAT(result.err, HasSubstr("1_Pooling"));
  }
}

TEST_F(CliEmbed, QuantizedFoldersKeepTheNamesGetNoHeadAndEmbedAlike) {
  const OrderedJson floats = embed_json(source_, {"--input_texts", "the model"});
  for (const std::string type : {"w8a16", "w8a8", "w8a8_dynamic", "w8a8c8"}) {
    std::vector<std::string> options{"-type", type, "-calib", texts_};
    if (type == "w8a16" || type == "w8a8_dynamic") options.resize(2);
    const std::filesystem::path written = quantize(type, options);
    for (const RawTensor& tensor : read_all_tensors(written)) {
      EXPECT_THAT(tensor.name, Not(StartsWith("model."))) << type;
      EXPECT_THAT(tensor.name, Not(StartsWith("lm_head"))) << type;
    }
    const OrderedJson description = written_json(written, "quant_model_description.json");
    EXPECT_TRUE(description.contains("layers.1.mlp.up_proj.weight")) << type;
    EXPECT_FALSE(description.contains("lm_head.weight")) << type;
    const CommandResult verified = run_llmq({"verify", written, "--source", source_});
    EXPECT_EQ(verified.exit_code, 0) << verified.summary();
    const OrderedJson quantized = embed_json(written, {"--input_texts", "the model"});
    EXPECT_GT(dot(vector_of(floats), vector_of(quantized)), 0.99) << type;
  }
}

TEST_F(CliEmbed, PatternsFindModulesUnderEitherName) {
  for (const std::string pattern : {"model.layers.0.mlp.*", "layers.0.mlp.*"}) {
    const std::filesystem::path written = quantize("kept" + std::to_string(pattern.size()),
                                                   {"-type", "w8a16", "-disable_names", pattern});
    const OrderedJson description = written_json(written, "quant_model_description.json");
    EXPECT_EQ(description["layers.0.mlp.up_proj.weight"], "FLOAT") << pattern;
    EXPECT_EQ(description["layers.1.mlp.up_proj.weight"], "W8A16") << pattern;
  }
}

TEST_F(CliEmbed, ATiedModelWithoutBareNamesGetsNoHeadWhereItsClassHasNone) {
  for (RawTensor& tensor : tensors_) tensor.name = "model." + tensor.name;
  config_["architectures"] = {"Qwen2Model"};
  config_["tie_word_embeddings"] = true;
  write_source();
  const std::filesystem::path written = quantize("decoder");
  std::vector<std::string> names;
  for (const RawTensor& tensor : read_all_tensors(written)) names.push_back(tensor.name);
  EXPECT_THAT(names, Each(StartsWith("model.")));
  EXPECT_EQ(run_llmq({"verify", written}).exit_code, 0);
}

TEST_F(CliEmbed, ARotationThatNoHeadTurnsBackIsRefused) {
  write_file(folder_ / "recipe.json",
             R"({"name": "turned", "rotate": true, "rules": [{"match": "*", "scheme": "W8A16"}]})");
  const CommandResult result = run_llmq({"quant", "-src", source_, "-dst", folder_ / "turned",
                                         "--recipe", folder_ / "recipe.json", "-calib", texts_});
  EXPECT_EQ(result.exit_code, kUsage) << result.summary();
  EXPECT_THAT(result.err, HasSubstr("recipe turned: rotates the hidden states"));
}

TEST_F(CliEmbed, AMissingTensorIsNamedAsTheFolderWouldNameIt) {
  std::erase_if(tensors_, [](const RawTensor& tensor) {
    return tensor.name == "layers.1.mlp.up_proj.weight";
  });
  write_source();
  const CommandResult result =
      run_llmq({"quant", "-src", source_, "-dst", folder_ / "out", "-type", "w8a16"});
  EXPECT_EQ(result.exit_code, kBadInput);
  EXPECT_THAT(result.err, HasSubstr("tensor layers.1.mlp.up_proj.weight is missing"));
}

}  // namespace
}  // namespace llmq::test
