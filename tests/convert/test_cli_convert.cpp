#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>

#include "tests/convert/checkpoint_writer.h"
#include "tests/convert/cli_runner.h"

namespace llmq::test {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

class CliConvert : public testing::Test {
 protected:
  void SetUp() override {
    write_checkpoint(source_, tiny_qwen2_config(), tensors_);
    std::sort(tensors_.begin(), tensors_.end(),
              [](const RawTensor& a, const RawTensor& b) { return a.name < b.name; });
  }

  fs::path convert(const std::string& name, const std::vector<std::string>& options) {
    Command command = llmq_command({"convert", source_, folder_ / name});
    command.argv.insert(command.argv.end(), options.begin(), options.end());
    const CommandResult result = run_command(command);
    EXPECT_EQ(result.exit_code, 0) << result.summary();
    return folder_ / name;
  }

  TemporaryFolder folder_;
  fs::path source_ = folder_ / "source";
  std::vector<RawTensor> tensors_ = tiny_qwen2_tensors();
};

// Value of binary16 bits, by its definition.
double half_value(uint32_t bits) {
  const double sign = (bits >> 15) != 0 ? -1 : 1;
  const int exponent = static_cast<int>(bits >> 10 & 31);
  const double fraction = (bits & 1023) / 1024.0;
  return exponent == 0 ? sign * std::ldexp(fraction, -14)
                       : sign * std::ldexp(1 + fraction, exponent - 15);
}

TEST_F(CliConvert, SplittingKeepsEveryByte) {
  const fs::path split = convert("split", {"--part_file_size", "0.00005"});
  EXPECT_EQ(read_all_tensors(split), tensors_);
  size_t n_files = 0;
  for (const std::string& name : folder_entries(split)) {
    n_files += name.ends_with(".safetensors") ? 1 : 0;
  }
  EXPECT_GT(n_files, 1U);
}

TEST_F(CliConvert, SplitAndMergedIsTheOriginal) {
  const fs::path split = convert("split", {"--part_file_size", "0.00005"});
  const CommandResult merged = run_llmq({"convert", split, folder_ / "merged"});
  EXPECT_EQ(merged.exit_code, 0) << merged.summary();
  EXPECT_EQ(read_all_tensors(folder_ / "merged"), tensors_);
}

TEST_F(CliConvert, Float32HoldsTheValuesExactly) {
  auto converted = read_all_tensors(convert("wide", {"--dtype", "float32"}));
  for (const RawTensor& tensor : tensors_) {
    const RawTensor& wide = tensor_named(converted, tensor.name);
    EXPECT_EQ(wide.dtype, "F32");
    EXPECT_EQ(tensor_values(wide), tensor_values(tensor)) << tensor.name;
  }
  EXPECT_EQ(OrderedJson::parse(read_file(folder_ / "wide" / "config.json")).at("torch_dtype"),
            "float32");
}

// Half has more fraction bits than bfloat16: exact above 2^-14, else within half a step of 2^-24.
TEST_F(CliConvert, Float16IsTheNearestValue) {
  auto converted = read_all_tensors(convert("half", {"--dtype", "float16"}));
  for (const RawTensor& tensor : tensors_) {
    const RawTensor& half = tensor_named(converted, tensor.name);
    ASSERT_EQ(half.dtype, "F16");
    const auto values = tensor_values(tensor);
    for (size_t i = 0; i < values.size(); ++i) {
      const auto low = static_cast<uint8_t>(half.bytes[2 * i]);
      const auto high = static_cast<uint8_t>(half.bytes[2 * i + 1]);
      const double error = std::abs(half_value(high * 256U + low) - double{values[i]});
      const double allowed = std::abs(values[i]) >= std::ldexp(1, -14) ? 0 : std::ldexp(1, -25);
      ASSERT_LE(error, allowed) << tensor.name << " element " << i;
    }
  }
}

TEST_F(CliConvert, ValueBeyondFloat16IsRefusedByName) {
  const std::string name = "model.layers.1.mlp.down_proj.weight";
  const auto bits = std::bit_cast<uint32_t>(70000.0F);
  std::string& bytes = tensor_named(tensors_, name).bytes;
  bytes[20] = static_cast<char>(bits >> 16);
  bytes[21] = static_cast<char>(bits >> 24);
  fs::remove_all(source_);
  write_checkpoint(source_, tiny_qwen2_config(), tensors_);
  const CommandResult result =
      run_llmq({"convert", source_, folder_ / "half", "--dtype", "float16"});
  EXPECT_EQ(result.exit_code, 3) << result.summary();
  EXPECT_THAT(result.err, HasSubstr(name));
  EXPECT_FALSE(fs::exists(folder_ / "half"));
}

TEST_F(CliConvert, InspectListsEveryTensorOfFolderAndFile) {
  for (const fs::path& path : {source_, source_ / "model.safetensors"}) {
    const CommandResult result = run_llmq({"inspect", path, "--json"});
    ASSERT_EQ(result.exit_code, 0) << result.summary();
    const auto document = json_output(result);
    ASSERT_EQ(document.at("tensors").size(), tensors_.size());
    for (const auto& listed : document.at("tensors")) {
      const RawTensor& tensor = tensor_named(tensors_, listed.at("name").get<std::string>());
      EXPECT_EQ(listed.at("dtype"), tensor.dtype);
      EXPECT_EQ(listed.at("shape").get<std::vector<int64_t>>(), tensor.shape);
      EXPECT_EQ(listed.at("size_bytes"), tensor.bytes.size());
    }
  }
}

}  // namespace
}  // namespace llmq::test
