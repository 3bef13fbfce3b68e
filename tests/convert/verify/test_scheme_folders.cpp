// Conformance of schemes beside static W8A8, and of folders that other tools wrote.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "convert/verify/conformance.h"
#include "tests/convert/verify/static_folder.h"

namespace llmq::convert {
namespace {

namespace fs = std::filesystem;
using test::bytes_of;
using test::RawTensor;
using test::StaticFolder;
using testing::HasSubstr;

const std::string kUp = "model.layers.1.mlp.up_proj";

/// The static folder under another tag, without the tensors that end in `dropped`.
StaticFolder folder_of(const std::string& tag, const std::vector<std::string>& dropped,
                       const std::string& dtype = "bfloat16") {
  StaticFolder folder(dtype);
  folder.description["model_quant_type"] = tag;
  std::string quantize;
  for (const char letter : tag) quantize += static_cast<char>(std::tolower(letter));
  folder.config["quantize"] = quantize;
  for (const RawTensor& tensor : std::vector<RawTensor>(folder.tensors)) {
    if (folder.description[tensor.name] == "W8A8") folder.description[tensor.name] = tag;
    for (const std::string& suffix : dropped) {
      if (tensor.name.ends_with(suffix)) folder.remove(tensor.name);
    }
  }
  return folder;
}

StaticFolder dynamic_folder() {
  return folder_of("W8A8_DYNAMIC", {".input_scale", ".input_offset", ".quant_bias", ".deq_scale"});
}

/// int4 linears: codes −7..7, packed by columns (group_size 0) or rows, or one a byte.
StaticFolder int4_folder(int64_t group_size, bool is_packed) {
  StaticFolder folder =
      folder_of("W4A16", {".input_scale", ".input_offset", ".quant_bias", ".deq_scale"});
  folder.description["group_size"] = group_size;
  for (RawTensor& tensor : folder.tensors) {
    if (folder.description[tensor.name] != "W4A16") continue;
    if (!tensor.name.ends_with("_proj.weight")) {
      if (group_size == 0) continue;
      const RawTensor& weight =
          folder.at(tensor.name.substr(0, tensor.name.rfind('.')) + ".weight");
      const bool is_scale = tensor.name.ends_with("_scale");
      // The linears of the folder read 64 or 128 inputs.
      const int64_t k = weight.name.find("down_proj") == std::string::npos ? 64 : 128;
      tensor.shape = {tensor.shape[0], k / group_size};
      tensor.bytes = bytes_of(std::vector<float>(
          static_cast<size_t>(tensor.shape[0] * tensor.shape[1]), is_scale ? 0.25F : 0.0F));
      continue;
    }
    if (is_packed) {
      tensor.shape[group_size > 0 ? 0 : 1] /= 2;
      tensor.bytes.resize(tensor.bytes.size() / 2);
      for (size_t i = 0; i < tensor.bytes.size(); ++i)
        tensor.bytes[i] = static_cast<char>(i % 7 == 0 ? 0x97 : 0x3f);  // 7, −7; −1, 3
    } else {
      for (size_t i = 0; i < tensor.bytes.size(); ++i)
        tensor.bytes[i] = static_cast<char>(static_cast<int>(i % 15) - 7);
    }
  }
  return folder;
}

class SchemeFolders : public testing::Test {
 protected:
  std::map<std::string, RuleResult> check(const StaticFolder& contents) {
    fs::remove_all(folder_ / "out");
    contents.write(folder_ / "out");
    std::map<std::string, RuleResult> rules;
    for (RuleResult& rule : check_conformance(folder_ / "out", std::nullopt, team_))
      rules[rule.name] = rule;
    return rules;
  }
  void expect_conforms(const StaticFolder& contents) {
    for (const auto& [name, rule] : check(contents)) EXPECT_TRUE(rule.ok) << name << rule.detail;
  }
  void expect_broken(const StaticFolder& contents, const std::string& broken,
                     const std::string& words) {
    for (const auto& [name, rule] : check(contents)) {
      EXPECT_EQ(rule.ok, name != broken) << name << ": " << rule.detail;
      if (name == broken) {
        EXPECT_THAT(rule.detail, HasSubstr(words));
      }
    }
  }

  test::TemporaryFolder folder_;
  quant::ThreadTeam team_{2};
};

TEST_F(SchemeFolders, EveryLinearSchemeConforms) {
  expect_conforms(dynamic_folder());
  expect_conforms(folder_of("W8A8_MIX", {}));
  expect_conforms(folder_of("W8A8S", {".weight_scale", ".weight_offset"}, "float16"));
  for (const int64_t group_size : {0, 32}) expect_conforms(int4_folder(group_size, true));
}

TEST_F(SchemeFolders, AMissingTensorOfEachSchemeIsNamed) {
  StaticFolder folder = dynamic_folder();
  folder.remove(kUp + ".weight_offset");
  expect_broken(folder, "scheme-tensors", kUp + ".weight_offset is missing");
  folder = folder_of("W8A8_MIX", {});
  folder.remove(kUp + ".weight_scale");
  expect_broken(folder, "scheme-tensors", kUp + ".weight_scale is missing");
  folder = folder_of("W8A8_MIX", {});
  folder.remove(kUp + ".deq_scale");
  expect_broken(folder, "scheme-tensors", kUp + ".deq_scale is missing");
  folder = folder_of("W8A8S", {".weight_scale", ".weight_offset"}, "float16");
  folder.remove(kUp + ".quant_bias");
  expect_broken(folder, "scheme-tensors", kUp + ".quant_bias is missing");
}

TEST_F(SchemeFolders, ATensorOfStaticLinearsDoesNotBelongToDynamicOnes) {
  StaticFolder folder = dynamic_folder();
  folder.add({kUp + ".deq_scale", "F32", {128}, bytes_of(std::vector<float>(128, 1.0F))},
             "W8A8_DYNAMIC");
  EXPECT_FALSE(check(folder).at("scheme-tensors").ok);
}

TEST_F(SchemeFolders, OffsetsOfSymmetricSchemesAreZero) {
  for (StaticFolder folder : {dynamic_folder(), folder_of("W8A8_MIX", {})}) {
    folder.set(kUp + ".weight_offset", 3, 2.0F);
    expect_broken(folder, "symmetric-offsets", kUp + ".weight_offset is not zero");
  }
}

TEST_F(SchemeFolders, OffsetsOfInt4AreWithinFourBits) {
  StaticFolder folder = int4_folder(0, true);
  folder.set(kUp + ".weight_offset", 3, 7.0F);
  expect_conforms(folder);
  folder.set(kUp + ".weight_offset", 3, 8.0F);
  expect_broken(folder, "code-ranges", "the offset 8, not a whole number from -8 to 7");
}

TEST_F(SchemeFolders, ScalesOfSparseLinearsArePositive) {
  StaticFolder folder = folder_of("W8A8S", {".weight_scale", ".weight_offset"}, "float16");
  folder.set<int64_t>(kUp + ".deq_scale", 3, 0);
  const auto rules = check(folder);
  EXPECT_FALSE(rules.at("deq-scale-encoding").ok);
  EXPECT_THAT(rules.at("deq-scale-encoding").detail, HasSubstr(kUp + ".deq_scale decodes to 0"));
}

TEST_F(SchemeFolders, TheLowestCodeOfInt4IsAcceptedAndSaid) {
  StaticFolder folder = int4_folder(32, true);
  folder.at(kUp + ".weight").bytes[5] = static_cast<char>(0x80);
  const auto rules = check(folder);
  EXPECT_TRUE(rules.at("code-ranges").ok);
  EXPECT_THAT(rules.at("code-ranges").detail, HasSubstr("1 of int4 with the code -8"));
}

TEST_F(SchemeFolders, Int4CodesArePackedFromVersion1OnOnly) {
  expect_broken(int4_folder(32, false), "scheme-tensors", "engines expect [32, 64]");
  StaticFolder older = int4_folder(32, false);
  older.description.erase("version");
  older.description.erase("group_size");
  expect_conforms(older);
  older.at(kUp + ".weight").bytes[9] = 8;
  expect_broken(older, "code-ranges", kUp + ".weight has the code 8 at byte 9");
  older = int4_folder(32, true);
  older.description.erase("version");
  EXPECT_FALSE(check(older).at("scheme-tensors").ok);
}

TEST_F(SchemeFolders, TheDescriptionNamesTheGroupSizeOfTheScales) {
  StaticFolder folder = int4_folder(32, true);
  folder.description["group_size"] = 16;
  expect_broken(folder, "scheme-tensors", "a scale for each 32 inputs, the description says");
}

TEST_F(SchemeFolders, AnOlderFolderConformsAndItsDifferencesAreSaid) {
  StaticFolder folder = folder_of("W8A8_MIX", {});
  folder.config["quantize"] = "w8a8";
  folder.description.erase("version");
  folder.description.erase("group_size");
  folder.description["ghost.weight"] = "FLOAT";
  folder.description["model.outdim"] = 3;
  folder.description["kv_quant_type"] = nullptr;
  const std::string norm = "model.layers.1.input_layernorm";
  RawTensor wrapped = folder.at(norm + ".weight");
  folder.remove(norm + ".weight");
  wrapped.name = norm + ".module.weight";
  folder.add(wrapped, "W8A8_MIX");
  wrapped.name = norm + ".module.bias";
  folder.add(wrapped, "W8A8_MIX");
  for (RawTensor& tensor : folder.tensors) {
    if (tensor.name.ends_with(".input_scale") || tensor.name.ends_with(".input_offset"))
      tensor.shape.clear();
  }
  expect_conforms(folder);
  const auto rules = check(folder);
  EXPECT_THAT(rules.at("description-covers-tensors").detail,
              HasSubstr("1 keys without a tensor, no version (0.0.0)"));
  EXPECT_THAT(rules.at("config-coherent").detail, HasSubstr("config.json says w8a8"));
}

TEST_F(SchemeFolders, AWeightOf16BitsIsFloatWhateverItsTag) {
  const std::string down = "model.layers.1.mlp.down_proj";
  StaticFolder folder;
  for (const RawTensor& tensor : test::tiny_qwen2_tensors()) {
    if (tensor.name == down + ".weight") folder.replace(tensor);
  }
  expect_conforms(folder);
  EXPECT_THAT(check(folder).at("scheme-tensors").detail, HasSubstr("2 linears FLOAT"));
  EXPECT_THAT(check(folder).at("scheme-tensors").detail,
              HasSubstr("1 of them float in spite of their tag"));
}

}  // namespace
}  // namespace llmq::convert
