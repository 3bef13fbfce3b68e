#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "tests/convert/quant_fixture.h"

namespace llmq::test {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

class CliQuantBytes : public QuantFixture {};

// Ways to quantize that take different paths: every linear, some linears, asymmetric codes, a cast.
const std::vector<std::vector<std::string>>& quant_variants() {
  static const std::vector<std::vector<std::string>> variants = {
      {"-type", "w8a16"},
      {"-type", "qwen_w8a16"},
      {"-type", "w8a16", "-w_sym", "False"},
      {"-type", "w8a16", "--dtype", "float16"},
  };
  return variants;
}

TEST_F(CliQuantBytes, BytesDoNotDependOnThreads) {
  for (size_t i = 0; i < quant_variants().size(); ++i) {
    auto options = quant_variants()[i];
    SCOPED_TRACE(testing::PrintToString(options));
    options.insert(options.end(), {"--threads", "1"});
    const auto one = result_files(quantize("one" + std::to_string(i), options));
    options.back() = "2";
    const auto two = result_files(quantize("two" + std::to_string(i), options));
    EXPECT_FALSE(one.empty());
    EXPECT_TRUE(one == two);
  }
}

TEST_F(CliQuantBytes, BytesDoNotDependOnInstructionSet) {
  for (size_t i = 0; i < quant_variants().size(); ++i) {
    const std::string number = std::to_string(i);
    SCOPED_TRACE(testing::PrintToString(quant_variants()[i]));
    const auto scalar =
        result_files(quantize("scalar" + number, quant_variants()[i], {{"LLMQ_ISA", "scalar"}}));
    for (const std::string isa : {"avx2", "avxvnni", "avx512vnni", "amx"}) {
      const fs::path destination = folder_ / (isa + number);
      Command command = llmq_command({"quant", "-src", source_, "-dst", destination});
      command.argv.insert(command.argv.end(), quant_variants()[i].begin(),
                          quant_variants()[i].end());
      command.environment = {{"LLMQ_ISA", isa}};
      const CommandResult result = run_command(command);
      if (result.exit_code == 0) {
        EXPECT_TRUE(result_files(destination) == scalar) << isa;
        continue;
      }
      EXPECT_EQ(result.exit_code, 2) << result.summary();
      EXPECT_THAT(result.err, HasSubstr(isa)) << "a refusal names the instruction set";
      EXPECT_FALSE(isa == "avx2" && __builtin_cpu_supports("avx2")) << result.summary();
    }
  }
}

TEST_F(CliQuantBytes, UnknownInstructionSetIsRefused) {
  Command command =
      llmq_command({"quant", "-src", source_, "-dst", folder_ / "out", "-type", "w8a16"});
  command.environment = {{"LLMQ_ISA", "mmx"}};
  const CommandResult result = run_command(command);
  EXPECT_EQ(result.exit_code, 2) << result.summary();
  EXPECT_THAT(result.err, HasSubstr("mmx"));
  EXPECT_FALSE(fs::exists(folder_ / "out"));
}

TEST_F(CliQuantBytes, ShardedSourceGivesTheSameBytes) {
  const auto single = result_files(quantize("single"));
  fs::remove_all(source_);
  write_sharded_checkpoint(source_, config_, tensors_, 10);
  const auto sharded = result_files(quantize("sharded"));
  EXPECT_TRUE(single == sharded);
  EXPECT_FALSE(sharded.contains("model.safetensors.index.json")) << "the float index is no use";
}

TEST_F(CliQuantBytes, OrderOfTensorsInTheSourceDoesNotMatter) {
  const auto forward = result_files(quantize("forward"));
  std::reverse(tensors_.begin(), tensors_.end());
  rewrite_source();
  EXPECT_TRUE(forward == result_files(quantize("backward")));
}

TEST_F(CliQuantBytes, SplitOutputHoldsTheSameTensorsAndARightIndex) {
  const auto whole = read_all_tensors(quantize("whole"));
  const fs::path split = quantize("split", {"-type", "w8a16", "-part_file_size", "0.00005"});
  const auto parts = read_all_tensors(split);
  const auto index = written_json(split, "quant_model_weight_w8a16.safetensors.index.json");
  ASSERT_EQ(parts.size(), whole.size());
  uint64_t total_size = 0;
  for (size_t i = 0; i < parts.size(); ++i) {
    EXPECT_EQ(parts[i].name, whole[i].name);
    EXPECT_TRUE(parts[i].bytes == whole[i].bytes) << parts[i].name;
    total_size += parts[i].bytes.size();
    const std::string file = index.at("weight_map").at(parts[i].name);
    auto stored = read_safetensors(split / file);
    EXPECT_NO_THROW(tensor_named(stored, parts[i].name));
  }
  EXPECT_EQ(index.at("metadata").at("total_size"), total_size);
  EXPECT_EQ(index.at("weight_map").size(), parts.size());
  EXPECT_TRUE(std::any_of(
      index.at("weight_map").begin(), index.at("weight_map").end(), [](const auto& file) {
        return file.template get<std::string>().starts_with("quant_model_weight_w8a16-00002-of-");
      }));
}

}  // namespace
}  // namespace llmq::test
