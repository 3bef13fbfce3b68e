#pragma once

#include <gtest/gtest.h>

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "tests/convert/checkpoint_writer.h"
#include "tests/convert/cli_runner.h"

namespace llmq::test {

/// A small Qwen2 checkpoint in a temporary folder, and the means to change and quantize it.
class QuantFixture : public testing::Test {
 protected:
  void SetUp() override { write_checkpoint(source_, config_, tensors_); }

  /// Writes the source anew from config_ and tensors_.
  void rewrite_source() {
    std::filesystem::remove_all(source_);
    write_checkpoint(source_, config_, tensors_);
  }

  /// Quantizes into a folder of that name and expects success; returns the folder.
  [[nodiscard]] std::filesystem::path quantize(
      const std::string& name, const std::vector<std::string>& options = {"-type", "w8a16"},
      const std::map<std::string, std::string>& environment = {}) const {
    Command command = llmq_command({"quant", "-src", source_, "-dst", folder_ / name});
    command.argv.insert(command.argv.end(), options.begin(), options.end());
    command.environment = environment;
    const CommandResult result = run_command(command);
    EXPECT_EQ(result.exit_code, 0) << result.summary();
    return folder_ / name;
  }

  /// The files that hold a result; the report beside them also holds times and paths.
  static std::map<std::string, std::string> result_files(const std::filesystem::path& folder) {
    auto files = folder_contents(folder);
    std::erase_if(files, [](const auto& file) { return file.first.starts_with("llmq_report"); });
    return files;
  }

  static OrderedJson written_json(const std::filesystem::path& folder, const std::string& name) {
    return OrderedJson::parse(read_file(folder / name));
  }

  TemporaryFolder folder_;
  std::filesystem::path source_ = folder_ / "source";
  OrderedJson config_ = tiny_qwen2_config();
  std::vector<RawTensor> tensors_ = tiny_qwen2_tensors();
};

}  // namespace llmq::test
