#include "formats/description.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <string>

#include "formats/error.h"
#include "tests/tools/test_files.h"

namespace llmq::formats {
namespace {

using test::error_message;
using test::TemporaryFolder;
using test::write_file;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Pair;

class DescriptionFile : public testing::Test {
 protected:
  [[nodiscard]] Description read(const std::string& text) const {
    write_file(folder_ / "d.json", text);
    return read_description(folder_ / "d.json");
  }
  [[nodiscard]] std::string refusal(const std::string& text) const {
    return error_message(ErrorCode::kBadInput, [&] { (void)read(text); });
  }

  TemporaryFolder folder_;
};

TEST_F(DescriptionFile, TensorsAndMetadataAreToldApart) {
  const Description description = read(R"({"model_quant_type":"W8A8","version":"1.0.0",
      "group_size":64,"kv_cache_type":"C8","kv_quant_type":"C8","fa_quant_type":"FAQuant",
      "reduce_quant_type":"per_channel","metadata":{},"optional":{"quarot":{}},
      "is_nzcasted":true,"b.weight":"W8A8","a.weight":"FLOAT"})");
  EXPECT_EQ(description.model_quant_type, "W8A8");
  EXPECT_EQ(description.version, "1.0.0");
  EXPECT_EQ(description.group_size, 64);
  EXPECT_EQ(description.kv_quant_type, "C8");
  EXPECT_EQ(description.fa_quant_type, "FAQuant");
  EXPECT_THAT(description.tensors,
              ElementsAre(Pair("b.weight", "W8A8"), Pair("a.weight", "FLOAT")));
  EXPECT_EQ(description.other.at("reduce_quant_type"), "per_channel");
  EXPECT_TRUE(description.other.contains("optional"));
  EXPECT_EQ(description.tag_of("a.weight"), "FLOAT");
  EXPECT_EQ(description.tag_of("metadata"), "");
  EXPECT_EQ(description.tag_of("none.weight"), "");
}

TEST_F(DescriptionFile, FilesOfOlderToolsHaveNoVersionAndNoGroupSize) {
  const Description description = read(R"({"model_quant_type":"W8A16","a.weight":"W8A16"})");
  EXPECT_FALSE(description.version.has_value());
  EXPECT_EQ(description.group_size, 0);
  EXPECT_EQ(description.kv_quant_type, "");
}

TEST_F(DescriptionFile, EitherKeyNamesTheKvCacheType) {
  EXPECT_EQ(read(R"({"model_quant_type":"W8A8","kv_cache_type":"C8"})").kv_quant_type, "C8");
  EXPECT_EQ(read(R"({"model_quant_type":"W8A8","kv_quant_type":"C8","kv_cache_type":null})")
                .kv_quant_type,
            "C8");
}

TEST_F(DescriptionFile, ValuesThatAreNoTextAreKeptAndAreNoTensors) {
  const Description description = read(R"({"model_quant_type":"W16A16SC","kv_quant_type":null,
      "fa_quant_type":null,"a.weight.outdim":4096,"a.weight":"W8A8SC","list":[1,2]})");
  EXPECT_EQ(description.kv_quant_type, "");
  EXPECT_EQ(description.fa_quant_type, "");
  EXPECT_THAT(description.tensors, ElementsAre(Pair("a.weight", "W8A8SC")));
  EXPECT_EQ(description.other.at("a.weight.outdim"), 4096);
}

// The newer vendor tool writes the type of an attention module beside its tensors.
TEST_F(DescriptionFile, QuantTypeOfAnAttentionModuleIsNoTensor) {
  const Description description =
      read(R"({"model_quant_type":"W8A8","model.layers.0.self_attn.quant_type":"INT8",
               "model.layers.0.self_attn.fa_q.scale":"FAQuant"})");
  EXPECT_THAT(description.tensors,
              ElementsAre(Pair("model.layers.0.self_attn.fa_q.scale", "FAQuant")));
  EXPECT_EQ(description.other.value("model.layers.0.self_attn.quant_type", ""), "INT8");
}

TEST_F(DescriptionFile, WhatIsWrittenIsReadBackTheSame) {
  Description description;
  description.model_quant_type = "W8A8";
  description.version = "1.0.0";
  description.group_size = 128;
  description.kv_quant_type = "C8";
  description.fa_quant_type = "FAQuant";
  description.tensors = {{"z", "W8A8"}, {"a", "FLOAT"}, {"m", "W8A8"}};
  description.other["reduce_quant_type"] = "per_channel";
  const Json document = description_json(description);
  EXPECT_EQ(document["kv_cache_type"], "C8");
  EXPECT_EQ(document["kv_quant_type"], "C8");
  const Description again = read(document.dump());
  EXPECT_EQ(description_json(again), document);
  EXPECT_EQ(again.tensors, description.tensors);
  EXPECT_EQ(again.group_size, 128);
}

TEST_F(DescriptionFile, MetadataStandsBeforeTheTensors) {
  Description description;
  description.tensors = {{"b", "FLOAT"}, {"a", "FLOAT"}};
  EXPECT_EQ(description_json(description).dump(),
            R"({"model_quant_type":"FLOAT","group_size":0,"b":"FLOAT","a":"FLOAT"})");
}

TEST_F(DescriptionFile, WhatMustBeThereIsNamed) {
  EXPECT_THAT(refusal("[]"), HasSubstr("d.json: is not a JSON object"));
  for (const char* text : {"{}", R"({"model_quant_type":null})", R"({"model_quant_type":8})"}) {
    EXPECT_THAT(refusal(text), HasSubstr("\"model_quant_type\" is missing or not a string"));
  }
  for (const char* size : {"-1", "1.5", "\"64\"", "18446744073709551615"}) {
    EXPECT_THAT(refusal(R"({"model_quant_type":"W4A16","group_size":)" + std::string(size) + "}"),
                AllOf(HasSubstr("d.json"), HasSubstr("group_size is " + std::string(size))));
  }
}

TEST(FindDescription, PrefersTheNameThatEnginesLookFor) {
  const TemporaryFolder folder;
  EXPECT_FALSE(find_description(folder.path()).has_value());
  write_file(folder / "quant_model_description_w8a8.json", "{}");
  EXPECT_EQ(find_description(folder.path()), folder / "quant_model_description_w8a8.json");
  write_file(folder / "quant_model_description.json", "{}");
  EXPECT_EQ(find_description(folder.path()), folder / "quant_model_description.json");
}

TEST(FindDescription, SeveralOfTheOlderKindAreRefused) {
  const TemporaryFolder folder;
  write_file(folder / "quant_model_description_w8a8.json", "{}");
  write_file(folder / "quant_model_description_w8a16.json", "{}");
  EXPECT_THAT(error_message(ErrorCode::kBadInput, [&] { (void)find_description(folder.path()); }),
              HasSubstr("2 description files"));
}

}  // namespace
}  // namespace llmq::formats
