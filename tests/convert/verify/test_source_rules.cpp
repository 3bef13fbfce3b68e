// Folders against the float model that they were made from.

#include <cmath>
#include <filesystem>
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

const std::string kUp = "model.layers.1.mlp.up_proj";

// A W8A16 folder whose codes are the rounding of its source.
class SourceRules : public ConformanceTest {
 protected:
  SourceRules() {
    test::write_checkpoint(source_, test::tiny_qwen2_config(), test::tiny_qwen2_tensors());
    folder_contents_.tensors.clear();
    folder_contents_.description = {{"model_quant_type", "W8A16"}, {"version", "1.0.0"}};
    folder_contents_.config["quantize"] = "w8a16";
    for (const RawTensor& tensor : test::tiny_qwen2_tensors()) {
      const size_t at = tensor.name.find("_proj.weight");
      if (at == std::string::npos) {
        folder_contents_.add(tensor, "FLOAT");
      } else {
        add_rounded(tensor.name.substr(0, at + 5), tensor);
      }
    }
  }

  void add_rounded(const std::string& module, const RawTensor& source) {
    const auto n = static_cast<size_t>(source.shape[0]);
    const auto k = static_cast<size_t>(source.shape[1]);
    const std::vector<float> values = test::tensor_values(source);
    std::vector<int8_t> codes(n * k);
    std::vector<float> scales(n);
    for (size_t row = 0; row < n; ++row) {
      float absmax = 0;
      for (size_t col = 0; col < k; ++col)
        absmax = std::max(absmax, std::abs(values[row * k + col]));
      scales[row] = absmax / 127.0F;
      for (size_t col = 0; col < k; ++col) {
        codes[row * k + col] =
            static_cast<int8_t>(std::nearbyint(values[row * k + col] / scales[row]));
      }
    }
    const auto rows = static_cast<int64_t>(n);
    folder_contents_.add({module + ".weight", "I8", source.shape, bytes_of(codes)}, "W8A16");
    folder_contents_.add({module + ".weight_scale", "F32", {rows, 1}, bytes_of(scales)}, "W8A16");
    folder_contents_.add(
        {module + ".weight_offset", "F32", {rows, 1}, bytes_of(std::vector<float>(n))}, "W8A16");
  }

  fs::path source_ = folder_ / "source";
  StaticFolder folder_contents_;
};

TEST_F(SourceRules, RoundedWeightsAndCopiedFloatsAreThoseOfTheSource) {
  const auto rules = check(folder_contents_, source_);
  for (const auto& [name, rule] : rules) EXPECT_TRUE(rule.ok) << name << rule.detail;
  EXPECT_THAT(rules.at("source-weights").detail, HasSubstr("14 linears"));
}

TEST_F(SourceRules, OneRowOfOtherCodesIsFound) {
  std::string& codes = folder_contents_.at(kUp + ".weight").bytes;
  for (size_t col = 0; col < 64; ++col)
    codes[5 * 64 + col] = static_cast<char>(-codes[5 * 64 + col]);
  const auto rules = check(folder_contents_, source_);
  EXPECT_FALSE(rules.at("source-weights").ok);
  EXPECT_THAT(rules.at("source-weights").detail, HasSubstr(kUp));
  EXPECT_TRUE(rules.at("source-float-tensors").ok);
}

TEST_F(SourceRules, OneBitOfAFloatTensorIsFound) {
  folder_contents_.at("model.norm.weight").bytes[9] ^= 1;
  const auto rules = check(folder_contents_, source_);
  EXPECT_FALSE(rules.at("source-float-tensors").ok);
  EXPECT_THAT(rules.at("source-float-tensors").detail, HasSubstr("model.norm.weight"));
}

TEST_F(SourceRules, MissingOrMisshapenTensorsAreAVerdict) {
  const StaticFolder whole = folder_contents_;
  folder_contents_.remove(kUp + ".weight_scale");
  EXPECT_FALSE(check(folder_contents_, source_).at("source-weights").ok);
  folder_contents_ = whole;
  folder_contents_.replace({kUp + ".weight", "I8", {2, 2}, "abcd"});
  EXPECT_FALSE(check(folder_contents_, source_).at("source-weights").ok);
  folder_contents_ = whole;
  folder_contents_.replace({kUp + ".weight_scale", "F32", {0}, ""});
  EXPECT_FALSE(check(folder_contents_, source_).at("source-weights").ok);
}

}  // namespace
}  // namespace llmq::convert
