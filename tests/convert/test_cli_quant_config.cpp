#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/convert/quant_fixture.h"

namespace llmq::test {
namespace {

namespace fs = std::filesystem;

class CliQuantConfig : public QuantFixture {};

TEST_F(CliQuantConfig, TiedHeadComesOutTheSameUnderWhicheverNameItIsStored) {
  const std::string embedding = "model.embed_tokens.weight";
  config_["tie_word_embeddings"] = true;
  tensor_named(tensors_, "lm_head.weight").bytes = tensor_named(tensors_, embedding).bytes;
  const auto both = tensors_;
  const auto without = [&](const std::string& name) {
    auto tensors = both;
    std::erase_if(tensors, [&](const RawTensor& tensor) { return tensor.name == name; });
    return tensors;
  };
  std::vector<std::vector<RawTensor>> results;
  for (const auto& tensors : {both, without("lm_head.weight"), without(embedding)}) {
    tensors_ = tensors;
    rewrite_source();
    results.push_back(read_all_tensors(quantize("out" + std::to_string(results.size()))));
    EXPECT_TRUE(tensor_named(results.back(), "lm_head.weight").bytes ==
                tensor_named(results.back(), embedding).bytes);
  }
  EXPECT_EQ(results[0], results[1]) << "stored as the embedding only";
  EXPECT_EQ(results[0], results[2]) << "stored as the head only";
}

TEST_F(CliQuantConfig, KeepTiedDoesNotCloneTheHead) {
  config_["tie_word_embeddings"] = true;
  std::erase_if(tensors_, [](const RawTensor& tensor) { return tensor.name == "lm_head.weight"; });
  rewrite_source();
  for (const RawTensor& tensor :
       read_all_tensors(quantize("out", {"-type", "w8a16", "--keep-tied"}))) {
    EXPECT_NE(tensor.name, "lm_head.weight");
  }
}

TEST_F(CliQuantConfig, ConfigKeepsUnknownKeysAndTheirOrder) {
  OrderedJson config = {{"zeta_extra", {{"b", 1}, {"a", {1.5, "x", nullptr}}}}};
  config.update(config_);
  config["alpha_extra"] = "ünïcode";
  config["hidden_extra"] = false;
  config_ = config;
  rewrite_source();
  const auto written = written_json(quantize("out"), "config.json");
  std::vector<std::string> source_keys;
  std::vector<std::string> kept_keys;
  for (const auto& [key, value] : config_.items()) {
    source_keys.push_back(key);
  }
  for (const auto& [key, value] : written.items()) {
    if (config_.contains(key)) {
      kept_keys.push_back(key);
      EXPECT_EQ(value.dump(), config_.at(key).dump()) << key;
    }
  }
  EXPECT_EQ(kept_keys, source_keys);
  EXPECT_EQ(written.at("quantize"), "w8a16");
  EXPECT_EQ(written.at("torch_dtype"), "bfloat16");
  EXPECT_TRUE(written.contains("quantization_config"));
}

TEST_F(CliQuantConfig, HeadDimMayBeMissing) {
  const auto missing = quantize("missing");
  config_["head_dim"] = 16;
  rewrite_source();
  const auto given = quantize("given");
  EXPECT_TRUE(read_all_tensors(missing).size() == read_all_tensors(given).size());
  EXPECT_TRUE(read_file(missing / "quant_model_weight_w8a16.safetensors") ==
              read_file(given / "quant_model_weight_w8a16.safetensors"));
}

TEST_F(CliQuantConfig, RopeScalingIsKeptInEitherSpelling) {
  for (const std::string key : {"type", "rope_type"}) {
    config_["rope_scaling"] = {
        {key, "yarn"}, {"factor", 4.0}, {"original_max_position_embeddings", 64}};
    rewrite_source();
    const auto written = written_json(quantize("out-" + key), "config.json");
    EXPECT_EQ(written.at("rope_scaling").dump(), config_.at("rope_scaling").dump());
  }
}

TEST_F(CliQuantConfig, DtypeKeyWorksAloneAndBesideTorchDtype) {
  const auto reference = read_file(quantize("torch") / "quant_model_weight_w8a16.safetensors");
  config_["dtype"] = "bfloat16";
  rewrite_source();
  const fs::path both = quantize("both");
  config_.erase("torch_dtype");
  rewrite_source();
  const fs::path alone = quantize("alone");
  for (const fs::path& out : {both, alone}) {
    EXPECT_TRUE(read_file(out / "quant_model_weight_w8a16.safetensors") == reference);
    EXPECT_EQ(written_json(out, "config.json").at("torch_dtype"), "bfloat16");
  }
}

TEST_F(CliQuantConfig, TokenizerFilesComeAlong) {
  const std::vector<std::string> names = {
      "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.json",
      "merges.txt",     "generation_config.json"};
  for (const std::string& name : names) {
    write_file(source_ / name, "{\"name\": \"" + name + "\"}");
  }
  const auto files = folder_contents(quantize("out"));
  for (const std::string& name : names) {
    ASSERT_TRUE(files.contains(name)) << name;
    EXPECT_EQ(files.at(name), "{\"name\": \"" + name + "\"}");
  }
}

}  // namespace
}  // namespace llmq::test
