#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <limits>
#include <ostream>

#include "tests/convert/checkpoint_writer.h"
#include "tests/convert/cli_runner.h"

namespace llmq::test {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

const std::string kWeights = "quant_model_weight_w8a16.safetensors";
const std::string kDescription = "quant_model_description.json";
const std::string kModule = "model.layers.1.self_attn.k_proj";
const std::string kNorm = "model.layers.0.input_layernorm.weight";

// What a quantized folder consists of, to be damaged.
struct QuantizedFolder {
  OrderedJson config;
  OrderedJson description;
  std::vector<RawTensor> tensors;
};

struct Damage {
  std::string name;
  void (*apply)(QuantizedFolder& folder);
  std::string word;  ///< what the verdict must name
  bool needs_source = false;
};

void PrintTo(const Damage& damage, std::ostream* stream) {
  *stream << damage.name;
}

void set_float(RawTensor& tensor, size_t element, float value) {
  std::memcpy(tensor.bytes.data() + 4 * element, &value, sizeof value);
}

void remove_tensor(QuantizedFolder& folder, const std::string& name) {
  std::erase_if(folder.tensors, [&](const RawTensor& tensor) { return tensor.name == name; });
}

const std::vector<Damage>& damages() {
  static const std::vector<Damage> all = {
      {"tensor_without_a_key",
       [](QuantizedFolder& folder) { folder.description.erase(kModule + ".weight_scale"); },
       kModule + ".weight_scale"},
      {"key_without_a_tensor",
       [](QuantizedFolder& folder) { folder.description["model.ghost.weight"] = "FLOAT"; },
       "model.ghost.weight"},
      {"scale_missing",
       [](QuantizedFolder& folder) {
         remove_tensor(folder, kModule + ".weight_scale");
         folder.description.erase(kModule + ".weight_scale");
       },
       kModule + ".weight_scale"},
      {"offset_missing",
       [](QuantizedFolder& folder) {
         remove_tensor(folder, kModule + ".weight_offset");
         folder.description.erase(kModule + ".weight_offset");
       },
       kModule + ".weight_offset"},
      {"scale_of_wrong_shape",
       [](QuantizedFolder& folder) {
         auto& shape = tensor_named(folder.tensors, kModule + ".weight_scale").shape;
         std::swap(shape[0], shape[1]);
       },
       kModule + ".weight_scale"},
      {"scale_of_wrong_dtype",
       [](QuantizedFolder& folder) {
         tensor_named(folder.tensors, kModule + ".weight_scale").dtype = "I32";
       },
       kModule + ".weight_scale"},
      {"scale_not_a_number",
       [](QuantizedFolder& folder) {
         set_float(tensor_named(folder.tensors, kModule + ".weight_scale"), 3,
                   std::numeric_limits<float>::quiet_NaN());
       },
       kModule + ".weight_scale"},
      {"fused_group_of_two_schemes",
       [](QuantizedFolder& folder) {
         remove_tensor(folder, kModule + ".weight_scale");
         remove_tensor(folder, kModule + ".weight_offset");
         folder.description.erase(kModule + ".weight_scale");
         folder.description.erase(kModule + ".weight_offset");
         folder.description[kModule + ".weight"] = "FLOAT";
         RawTensor& weight = tensor_named(folder.tensors, kModule + ".weight");
         weight.dtype = "BF16";
         weight.bytes.resize(2 * weight.bytes.size());
       },
       "model.layers.1.self_attn"},
      {"config_of_another_type",
       [](QuantizedFolder& folder) { folder.config["quantize"] = "w8a8"; }, "quantize"},
      {"scales_doubled",
       [](QuantizedFolder& folder) {
         RawTensor& scale = tensor_named(folder.tensors, kModule + ".weight_scale");
         const auto values = tensor_values(scale);
         for (size_t row = 0; row < values.size(); ++row) {
           set_float(scale, row, 2 * values[row]);
         }
       },
       kModule, true},
      {"codes_of_another_row",
       [](QuantizedFolder& folder) {
         std::string& bytes = tensor_named(folder.tensors, kModule + ".weight").bytes;
         std::rotate(bytes.begin(), bytes.begin() + 64, bytes.end());
       },
       kModule, true},
      {"norm_changed",
       [](QuantizedFolder& folder) { tensor_named(folder.tensors, kNorm).bytes[10] ^= 1; }, kNorm,
       true},
  };
  return all;
}

class CliVerify : public testing::TestWithParam<Damage> {
 protected:
  void SetUp() override {
    write_checkpoint(source_, tiny_qwen2_config(), tiny_qwen2_tensors());
    const CommandResult result =
        run_llmq({"quant", "-src", source_, "-dst", quantized_, "-type", "w8a16"});
    ASSERT_EQ(result.exit_code, 0) << result.summary();
  }

  // Writes the result again, by another writer and after `apply`.
  void rewrite(void (*apply)(QuantizedFolder& folder)) {
    QuantizedFolder folder{OrderedJson::parse(read_file(quantized_ / "config.json")),
                           OrderedJson::parse(read_file(quantized_ / kDescription)),
                           read_all_tensors(quantized_)};
    apply(folder);
    fs::remove_all(quantized_);
    fs::create_directory(quantized_);
    write_file(quantized_ / "config.json", folder.config.dump(2));
    write_file(quantized_ / kDescription, folder.description.dump(2));
    write_file(quantized_ / kWeights, safetensors_file(folder.tensors));
  }

  [[nodiscard]] CommandResult verify(bool with_source) const {
    Command command = llmq_command({"verify", quantized_, "--json"});
    if (with_source) {
      command.argv.insert(command.argv.end(), {"--source", source_});
    }
    return run_command(command);
  }

  TemporaryFolder folder_;
  fs::path source_ = folder_ / "source";
  fs::path quantized_ = folder_ / "quantized";
};

void expect_every_rule_holds(const CommandResult& result) {
  EXPECT_EQ(result.exit_code, 0) << result.summary();
  const auto document = json_output(result);
  ASSERT_TRUE(document.contains("rules")) << result.summary();
  EXPECT_GE(document.at("rules").size(), 5U);
  for (const auto& rule : document.at("rules")) {
    EXPECT_TRUE(rule.at("ok").get<bool>()) << rule.dump();
  }
}

TEST_F(CliVerify, AcceptsWhatQuantWrote) {
  expect_every_rule_holds(verify(false));
  expect_every_rule_holds(verify(true));
}

TEST_F(CliVerify, AcceptsTheSameTensorsFromAnotherWriter) {
  rewrite(
      [](QuantizedFolder& folder) { std::reverse(folder.tensors.begin(), folder.tensors.end()); });
  expect_every_rule_holds(verify(true));
}

TEST_F(CliVerify, MissingDescriptionIsNamed) {
  fs::remove(quantized_ / kDescription);
  const CommandResult result = verify(false);
  EXPECT_THAT(result.exit_code, testing::AnyOf(3, 6)) << result.summary();
  EXPECT_THAT(result.out, HasSubstr(kDescription));
}

TEST_F(CliVerify, UnknownSchemeIsNamedWithItsFileAndTensor) {
  rewrite([](QuantizedFolder& folder) { folder.description[kModule + ".weight"] = "W3A3"; });
  const CommandResult result = verify(false);
  EXPECT_THAT(result.exit_code, testing::AnyOf(3, 6)) << result.summary();
  for (const std::string& word : {std::string("W3A3"), kDescription, kModule}) {
    EXPECT_THAT(result.out, HasSubstr(word));
  }
}

TEST_P(CliVerify, NamesTheDamage) {
  rewrite(GetParam().apply);
  const CommandResult result = verify(GetParam().needs_source);
  EXPECT_EQ(result.exit_code, 6) << result.summary();
  const auto document = json_output(result);
  ASSERT_TRUE(document.contains("rules")) << result.summary();
  std::string broken;
  for (const auto& rule : document.at("rules")) {
    if (!rule.at("ok").get<bool>()) {
      broken += rule.dump() + "\n";
    }
  }
  EXPECT_THAT(broken, HasSubstr(GetParam().word));
}

INSTANTIATE_TEST_SUITE_P(Cli, CliVerify, testing::ValuesIn(damages()),
                         [](const auto& instance) { return instance.param.name; });

}  // namespace
}  // namespace llmq::test
