#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <limits>
#include <map>
#include <ostream>
#include <string>
#include <vector>

#include "tests/convert/verify/conformance_fixture.h"

namespace llmq::convert {
namespace {

namespace fs = std::filesystem;
using test::bytes_of;
using test::RawTensor;
using test::StaticFolder;
using testing::HasSubstr;

const std::string kQ = "model.layers.0.self_attn.q_proj";
const std::string kUp = "model.layers.1.mlp.up_proj";
const std::string kDown = "model.layers.1.mlp.down_proj";

TEST_F(ConformanceTest, AcceptsWhatTheVendorsToolWritesInEitherDtype) {
  expect_conforms(StaticFolder("bfloat16"));
  expect_conforms(StaticFolder("float16"));
}

TEST_F(ConformanceTest, EveryDocumentedRuleIsReported) {
  const auto rules = check(StaticFolder());
  for (const char* name :
       {"description-covers-tensors", "scheme-tensors", "fused-groups", "attention-scales",
        "derived-tensors", "deq-scale-encoding", "code-ranges", "symmetric-offsets",
        "config-coherent", "index-coherent", "finite-values"}) {
    EXPECT_TRUE(rules.contains(name)) << name;
  }
  EXPECT_EQ(rules.size(), 11U);
}

TEST_F(ConformanceTest, AcceptsScalesAsColumnsAndOffsetsInFloats) {
  StaticFolder folder;
  for (RawTensor& tensor : folder.tensors) {
    const bool is_column =
        tensor.name.ends_with(".weight_scale") || tensor.name.ends_with(".weight_offset");
    if (is_column) tensor.shape.push_back(1);
    if (tensor.name.ends_with(".input_offset"))
      tensor = {tensor.name, "F32", {1}, bytes_of(std::vector<float>{-5.0F})};
  }
  expect_conforms(folder);
}

TEST_F(ConformanceTest, AcceptsStaticLinearsWithoutWeightScales) {
  StaticFolder folder;
  for (const RawTensor& tensor : std::vector<RawTensor>(folder.tensors)) {
    if (tensor.name.ends_with(".weight_scale") || tensor.name.ends_with(".weight_offset"))
      folder.remove(tensor.name);
  }
  expect_conforms(folder);
}

TEST_F(ConformanceTest, AcceptsAQuantBiasThatIsOffByOneUnit) {
  StaticFolder folder;
  folder.set(kQ + ".quant_bias", 3, folder.get<int32_t>(kQ + ".quant_bias", 3) + 1);
  // The exact value lies between two integers, so that one of its neighbours may be beyond.
  const bool up = check(folder).at("derived-tensors").ok;
  folder.set(kQ + ".quant_bias", 3, folder.get<int32_t>(kQ + ".quant_bias", 3) - 2);
  EXPECT_TRUE(up || check(folder).at("derived-tensors").ok);
}

struct Damage {
  const char* name;
  void (*apply)(StaticFolder& folder);
  std::vector<std::string> rules;  ///< broken rules; the first one's detail holds `words`
  std::string words;
};

std::ostream& operator<<(std::ostream& stream, const Damage& damage) {
  return stream << damage.name;
}

class ConformanceDamage : public ConformanceTest, public testing::WithParamInterface<Damage> {};

TEST_P(ConformanceDamage, BreaksItsRuleAndIsNamed) {
  StaticFolder folder;
  GetParam().apply(folder);
  expect_broken(folder, GetParam().rules, GetParam().words);
}

const std::vector<Damage> kDamages = {
    {"quant_bias_far_off",
     [](StaticFolder& f) {
       f.set(kQ + ".quant_bias", 3, f.get<int32_t>(kQ + ".quant_bias", 3) + 3);
     },
     {"derived-tensors"},
     kQ + ".quant_bias is"},
    {"deq_scale_of_another_channel",
     [](StaticFolder& f) { f.set(kUp + ".deq_scale", 1, f.get<float>(kUp + ".deq_scale", 0)); },
     {"derived-tensors"},
     kUp + ".deq_scale is"},
    {"deq_scale_negative",
     [](StaticFolder& f) { f.set(kUp + ".deq_scale", 1, -1.0F); },
     {"deq-scale-encoding", "derived-tensors"},
     "decodes to -1 at element 1"},
    {"deq_scale_in_the_encoding_of_fp16",
     [](StaticFolder& f) { f.config["torch_dtype"] = "float16"; },
     {"deq-scale-encoding", "scheme-tensors"},
     "needs I64"},
    {"code_minus_128",
     [](StaticFolder& f) {
       const auto code = f.get<int8_t>(kUp + ".weight", 0);
       f.set<int8_t>(kUp + ".weight", 0, -128);
       // Keeps the sum of the row, so that only the range is wrong.
       const int shift = code + 128;
       const auto other = f.get<int8_t>(kUp + ".weight", 1);
       f.set(kUp + ".weight", 1, static_cast<int8_t>(other + (shift <= 127 - other ? shift : 0)));
     },
     {"code-ranges"},
     "has the code -128 at byte 0"},
    {"offset_of_symmetric_weights",
     [](StaticFolder& f) { f.set(kUp + ".weight_offset", 2, 1.0F); },
     {"symmetric-offsets"},
     kUp + ".weight_offset is not zero, but W8A8 is symmetric"},
    {"offset_that_is_a_fraction",
     [](StaticFolder& f) { f.set(kUp + ".weight_offset", 2, 0.5F); },
     {"code-ranges", "symmetric-offsets"},
     "the offset 0.5"},
    {"offset_out_of_range",
     [](StaticFolder& f) {
       f.replace({kDown + ".input_offset", "F32", {1}, bytes_of(std::vector<float>{128.0F})});
     },
     {"code-ranges", "derived-tensors"},
     "the offset 128"},
    {"scale_zero",
     [](StaticFolder& f) { f.set(kUp + ".weight_scale", 2, 0.0F); },
     {"finite-values", "derived-tensors"},
     kUp + ".weight_scale has the scale 0 at element 2"},
    {"norm_not_finite",
     [](StaticFolder& f) { f.set<uint16_t>("model.norm.weight", 7, 0x7f80); },
     {"finite-values"},
     "model.norm.weight has a NaN or infinity at element 7"},
    {"input_scale_of_one_member",
     [](StaticFolder& f) {
       f.set(kQ + ".input_scale", 0, 0.0625F);
       for (size_t row = 0; row < 64; ++row) {
         f.set(kQ + ".deq_scale", row, 0.0625F * f.get<float>(kQ + ".weight_scale", row));
       }
     },
     {"fused-groups", "derived-tensors"},  // the bias counts in units of deq_scale
     ".input_scale differs from that of " + kQ},
    {"tensor_of_another_scheme",
     [](StaticFolder& f) {
       f.add({kUp + ".index", "I8", {1}, "x"}, "W8A8");
     },
     {"scheme-tensors"},
     kUp + ".index does not belong to W8A8"},
    {"quant_bias_missing",
     [](StaticFolder& f) { f.remove(kUp + ".quant_bias"); },
     {"scheme-tensors"},
     kUp + " is W8A8 but tensor " + kUp + ".quant_bias is missing"},
    {"float_matrix_of_another_shape",
     [](StaticFolder& f) {
       f.at("lm_head.weight").shape = {64, 96};
     },
     {"scheme-tensors"},
     "tensor lm_head.weight has shape [64, 96]"},
    {"required_tensor_missing",
     [](StaticFolder& f) { f.remove("model.norm.weight"); },
     {"scheme-tensors"},
     "tensor model.norm.weight is missing"},
    {"codes_tagged_float",
     [](StaticFolder& f) {
       f.description["lm_head.weight"] = "FLOAT";
       f.at("lm_head.weight").dtype = "I8";
       f.at("lm_head.weight").bytes.resize(96 * 64);
     },
     {"scheme-tensors"},
     "tensor lm_head.weight is tagged FLOAT but stored as I8"},
    {"key_without_tensor",
     [](StaticFolder& f) { f.description["ghost.weight"] = "FLOAT"; },
     {"description-covers-tensors"},
     "ghost.weight, which no weight file holds"},
    {"tensor_without_key",
     [](StaticFolder& f) { f.description.erase("model.norm.weight"); },
     {"description-covers-tensors"},
     "tensor model.norm.weight is not in the description"},
    {"torch_dtype_missing",
     [](StaticFolder& f) { f.config.erase("torch_dtype"); },
     {"config-coherent", "deq-scale-encoding", "scheme-tensors"},
     "config.json has no torch_dtype"},
    {"quantize_of_another_type",
     [](StaticFolder& f) { f.config["quantize"] = "w8a16"; },
     {"config-coherent"},
     "config.json says quantize \"w8a16\", the description \"w8a8\""},
    {"configuration_of_another_quantizer",
     [](StaticFolder& f) {
       f.config["quantization_config"] = {{"quant_method", "gptq"}};
     },
     {"config-coherent"},
     "still has the quantization_config of another tool"},
};

INSTANTIATE_TEST_SUITE_P(Conformance, ConformanceDamage, testing::ValuesIn(kDamages),
                         [](const auto& tested) { return std::string(tested.param.name); });

// Damage of a kind that must not end the check: a verdict is asked for, not an error.
const std::vector<Damage> kRoughDamages = {
    {"input_scale_without_elements",
     [](StaticFolder& f) {
       f.replace({kUp + ".input_scale", "F32", {0}, ""});
     },
     {"scheme-tensors"},
     kUp + ".input_scale has shape [0]"},
    {"input_offset_without_elements",
     [](StaticFolder& f) {
       f.replace({kUp + ".input_offset", "I8", {0}, ""});
     },
     {"scheme-tensors"},
     kUp + ".input_offset has shape [0]"},
    {"scale_in_float64",
     [](StaticFolder& f) {
       f.replace({kUp + ".weight_scale", "F64", {128}, bytes_of(std::vector<double>(128, 1.0))});
     },
     {"scheme-tensors"},
     kUp + ".weight_scale is F64"},
    {"scale_in_float8",
     [](StaticFolder& f) {
       f.replace({kUp + ".weight_scale", "F8_E4M3", {128}, std::string(128, '\1')});
     },
     {"scheme-tensors"},
     kUp + ".weight_scale is F8_E4M3"},
    {"bias_in_bytes",
     [](StaticFolder& f) {
       f.replace({kQ + ".bias", "U8", {64}, std::string(64, '\1')});
     },
     {"derived-tensors"},
     kQ},
    {"scale_columns_that_do_not_divide",
     [](StaticFolder& f) {
       f.description["group_size"] = 48;
       f.replace({kUp + ".weight_scale", "F32", {128, 3}, bytes_of(std::vector<float>(384, 1.0F))});
     },
     {"scheme-tensors"},
     kUp},
    {"weight_of_another_size",
     [](StaticFolder& f) {
       f.replace({kUp + ".weight", "I8", {2, 2}, "abcd"});
     },
     {"scheme-tensors"},
     kUp + ".weight has shape [2, 2]"},
};

class ConformanceRough : public ConformanceTest, public testing::WithParamInterface<Damage> {};

TEST_P(ConformanceRough, IsAVerdictAndNotTheEndOfTheCheck) {
  StaticFolder folder;
  GetParam().apply(folder);
  const auto rules = check(folder);
  const RuleResult& rule = rules.at(GetParam().rules.front());
  EXPECT_FALSE(rule.ok);
  EXPECT_THAT(rule.detail, HasSubstr(GetParam().words));
}

INSTANTIATE_TEST_SUITE_P(Conformance, ConformanceRough, testing::ValuesIn(kRoughDamages),
                         [](const auto& tested) { return std::string(tested.param.name); });

TEST_F(ConformanceTest, MoreThanOneFaultOfARuleIsSaidOnce) {
  StaticFolder folder;
  for (size_t row = 0; row < 8; ++row) folder.set(kUp + ".deq_scale", row, -1.0F);
  folder.set("model.layers.0.mlp.up_proj.deq_scale", 0, -1.0F);
  const std::string detail = check(folder).at("deq-scale-encoding").detail;
  EXPECT_THAT(detail, testing::EndsWith(" (and more)"));
  EXPECT_EQ(detail.find(" (and more)"), detail.rfind(" (and more)"));
}

TEST_F(ConformanceTest, TheOlderNameOfTheDescriptionIsFound) {
  StaticFolder folder;
  folder.description.erase("version");
  folder.write(folder_ / "old");
  fs::rename(folder_ / "old" / "quant_model_description.json",
             folder_ / "old" / "quant_model_description_w8a8.json");
  for (const RuleResult& rule : check_conformance(folder_ / "old", std::nullopt, team_)) {
    EXPECT_TRUE(rule.ok) << rule.name << rule.detail;
  }
}

TEST_F(ConformanceTest, FloatFolderConformsWithoutADescription) {
  test::write_sharded_checkpoint(folder_ / "float", test::tiny_qwen2_config(),
                                 test::tiny_qwen2_tensors(), 9);
  for (const RuleResult& rule : check_conformance(folder_ / "float", folder_ / "float", team_)) {
    EXPECT_TRUE(rule.ok) << rule.name << rule.detail;
  }
}

class IndexRule : public ConformanceTest {
 protected:
  RuleResult with_metadata(const test::OrderedJson& metadata) {
    const fs::path path = folder_ / "float";
    test::write_sharded_checkpoint(path, test::tiny_qwen2_config(), test::tiny_qwen2_tensors(), 9);
    auto index = test::OrderedJson::parse(test::read_file(path / "model.safetensors.index.json"));
    total_size_ = index["metadata"]["total_size"].get<uint64_t>();
    index["metadata"] = metadata;
    test::write_file(path / "model.safetensors.index.json", index.dump());
    for (const RuleResult& rule : check_conformance(path, std::nullopt, team_)) {
      if (rule.name == "index-coherent") return rule;
    }
    return {"no such rule", false};
  }
  uint64_t total_size_ = 0;
};

TEST_F(IndexRule, TotalSizeMustBeThatOfTheTensors) {
  const RuleResult rule = with_metadata({{"total_size", 7}});
  EXPECT_FALSE(rule.ok);
  EXPECT_THAT(rule.detail,
              HasSubstr("says total_size 7, the files hold " + std::to_string(total_size_)));
}

TEST_F(IndexRule, MetadataIsOptional) {
  EXPECT_TRUE(with_metadata(test::OrderedJson::object()).ok);
  EXPECT_TRUE(with_metadata(nullptr).ok);
  EXPECT_TRUE(with_metadata(test::OrderedJson::array()).ok);
}

TEST(ConformanceJson, IsOkOnlyWhereEveryRuleIs) {
  const formats::Json good = conformance_json({{"a", true, "x"}, {"b", true, "y"}});
  EXPECT_EQ(good.dump(), R"({"ok":true,"rules":[{"name":"a","ok":true,"detail":"x"},)"
                         R"({"name":"b","ok":true,"detail":"y"}]})");
  EXPECT_FALSE(conformance_json({{"a", true}, {"b", false}})["ok"].get<bool>());
  EXPECT_TRUE(conformance_json({})["rules"].empty());
}

}  // namespace
}  // namespace llmq::convert
