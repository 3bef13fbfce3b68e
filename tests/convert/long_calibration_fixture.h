#pragma once

#include <gtest/gtest.h>

#include <chrono>
#include <filesystem>
#include <thread>

#include "tests/convert/calibrated_fixture.h"

namespace llmq::test {

/// A model that calibrates long enough to be interrupted: four layers of 256 features.
class LongCalibrationFixture : public CalibratedFixture {
 protected:
  void SetUp() override {
    config_["vocab_size"] = kVocabulary;
    config_["hidden_size"] = 256;
    config_["intermediate_size"] = 768;
    config_["num_hidden_layers"] = 4;
    write_file(folder_ / "config.json", config_.dump());
    Command make;
    make.argv = {LLMQ_MAKE_CHECKPOINT, "--config", folder_ / "config.json", "--out", source_};
    const CommandResult made = run_command(make);
    ASSERT_EQ(made.exit_code, 0) << made.summary();
    std::filesystem::copy_file(golden_tokenizer(), source_ / "tokenizer.json");
    std::filesystem::create_directory(work_);
  }

  /// Returns when the command has begun to write into work_, or has ended.
  void wait_for_staging(const RunningCommand& command) const {
    while (command.is_running() && folder_entries(work_).empty())
      std::this_thread::sleep_for(std::chrono::microseconds(100));
  }

  std::filesystem::path work_ = folder_ / "work";
};

}  // namespace llmq::test
