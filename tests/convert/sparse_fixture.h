#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <string>
#include <vector>

#include "tests/convert/calibrated_fixture.h"

namespace llmq::test {

/// A small W8A8S checkpoint whose every extent four ranks can divide, and the means to compress it.
class SparseFixture : public CalibratedFixture {
 protected:
  void SetUp() override {
    CalibratedFixture::SetUp();
    config_["vocab_size"] = 464;
    config_["num_key_value_heads"] = 4;
    config_["intermediate_size"] = 320;  // two tiles wide for none, two high for gate and up
    write_file(folder_ / "config.json", config_.dump());
    make_source(1);
    sparse_ = quantize("sparse", sparse_options_);
  }

  /// A random model of config_ as the source.
  void make_source(int seed) {
    std::filesystem::remove_all(source_);
    Command make;
    make.argv = {
        LLMQ_MAKE_CHECKPOINT, "--config", folder_ / "config.json", "--out", source_, "--seed",
        std::to_string(seed)};
    ASSERT_EQ(run_command(make).exit_code, 0);
    std::filesystem::copy_file(golden_tokenizer(), source_ / "tokenizer.json");
  }

  [[nodiscard]] static Command compress_command(const std::filesystem::path& from,
                                                const std::filesystem::path& to, int tp,
                                                const std::vector<std::string>& options = {}) {
    Command command = llmq_command({"sparse-compress", "--tp", std::to_string(tp), "--model_path",
                                    from, "--save_directory", to, "--json"});
    if (std::find(options.begin(), options.end(), "--layout") == options.end())
      command.argv.insert(command.argv.end(), {"--layout", "hf"});
    command.argv.insert(command.argv.end(), options.begin(), options.end());
    return command;
  }

  /// Compresses the sparse folder into one of that name and expects success.
  [[nodiscard]] std::filesystem::path compress(const std::string& name, int tp,
                                               const std::vector<std::string>& options = {}) const {
    const CommandResult result =
        run_command(compress_command(sparse_, folder_ / name, tp, options));
    EXPECT_EQ(result.exit_code, 0) << result.summary();
    return folder_ / name;
  }

  [[nodiscard]] static CommandResult decompress(const std::filesystem::path& from,
                                                const std::filesystem::path& to) {
    return run_llmq(
        {"sparse-compress", "--decompress", "--model_path", from, "--save_directory", to});
  }

  /// The folder of a rank in a compressed folder.
  [[nodiscard]] static std::filesystem::path part(const std::filesystem::path& folder, int rank) {
    return folder / ("rank-" + std::to_string(rank));
  }
  static constexpr const char* kWeightFile = "quant_model_weight_w8a8sc.safetensors";
  static constexpr const char* kDescription = "quant_model_description.json";

  /// Every linear sparse, rounded because that is quick.
  const std::vector<std::string> sparse_options_{"-type",    "w8a8s", "-calib",         texts_,
                                                 "--method", "round", "-disable_names", ""};
  std::filesystem::path sparse_;
};

}  // namespace llmq::test
