#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <csignal>
#include <thread>

#include "tests/convert/checkpoint_writer.h"
#include "tests/convert/cli_runner.h"

namespace llmq::test {
namespace {

namespace fs = std::filesystem;

// A model whose quantization takes long enough to be interrupted: about 100 MB of weights.
OrderedJson wide_config() {
  OrderedJson config = tiny_qwen2_config();
  config["hidden_size"] = 1024;
  config["intermediate_size"] = 4096;
  config["num_hidden_layers"] = 3;
  config["num_attention_heads"] = 16;
  return config;
}

class CliInterrupt : public testing::TestWithParam<int> {
 protected:
  void SetUp() override {
    write_file(folder_ / "config.json", wide_config().dump());
    Command make;
    make.argv = {LLMQ_MAKE_CHECKPOINT, "--config", folder_ / "config.json", "--out", source_};
    const CommandResult made = run_command(make);
    ASSERT_EQ(made.exit_code, 0) << made.summary();
    fs::create_directory(work_);
  }

  [[nodiscard]] Command quantize_to(const fs::path& destination) const {
    return llmq_command(
        {"quant", "-src", source_, "-dst", destination, "-type", "w8a16", "--threads", "1"});
  }

  // Starts quantizing and sends the signal as soon as something appears where the result will be.
  CommandResult interrupt(const fs::path& destination, int signal) {
    RunningCommand command(quantize_to(destination));
    while (command.is_running() && folder_entries(work_).empty()) {
      std::this_thread::sleep_for(std::chrono::microseconds(100));
    }
    command.send_signal(signal);
    return command.wait();
  }

  TemporaryFolder folder_;
  fs::path source_ = folder_ / "source";
  fs::path work_ = folder_ / "work";
};

TEST_P(CliInterrupt, LeavesNoDestinationAndTheNextRunFinishesTheSame) {
  const fs::path destination = work_ / "out";
  const CommandResult interrupted = interrupt(destination, GetParam());
  if (GetParam() == SIGKILL) {
    EXPECT_EQ(interrupted.signal, SIGKILL) << interrupted.summary();
  } else {
    EXPECT_EQ(interrupted.exit_code, 130) << interrupted.summary();
  }
  EXPECT_FALSE(fs::exists(destination));

  const CommandResult again = run_command(quantize_to(destination));
  EXPECT_EQ(again.exit_code, 0) << again.summary();
  EXPECT_THAT(folder_entries(work_), testing::ElementsAre("out")) << "staging is gone";

  const fs::path reference = folder_ / "reference";
  const CommandResult whole = run_command(quantize_to(reference));
  EXPECT_EQ(whole.exit_code, 0) << whole.summary();
  for (const std::string name :
       {"quant_model_weight_w8a16.safetensors", "quant_model_description.json", "config.json"}) {
    EXPECT_TRUE(read_file(destination / name) == read_file(reference / name)) << name;
  }
}

TEST_P(CliInterrupt, NoResumeStartsAnewWithTheSameBytes) {
  const fs::path destination = work_ / "out";
  interrupt(destination, GetParam());
  Command again = quantize_to(destination);
  again.argv.emplace_back("--no-resume");
  const CommandResult result = run_command(again);
  EXPECT_EQ(result.exit_code, 0) << result.summary();
  const fs::path reference = folder_ / "reference";
  EXPECT_EQ(run_command(quantize_to(reference)).exit_code, 0);
  EXPECT_TRUE(read_file(destination / "quant_model_weight_w8a16.safetensors") ==
              read_file(reference / "quant_model_weight_w8a16.safetensors"));
}

TEST_P(CliInterrupt, ChangedSourceIsNotMixedWithWhatWasWritten) {
  const fs::path destination = work_ / "out";
  interrupt(destination, GetParam());
  // Another seed: the same names and shapes with other weights.
  fs::remove_all(source_);
  Command make;
  make.argv = {
      LLMQ_MAKE_CHECKPOINT, "--config", folder_ / "config.json", "--out", source_, "--seed", "2"};
  ASSERT_EQ(run_command(make).exit_code, 0);
  const CommandResult again = run_command(quantize_to(destination));
  EXPECT_EQ(again.exit_code, 0) << again.summary();
  const fs::path reference = folder_ / "reference";
  EXPECT_EQ(run_command(quantize_to(reference)).exit_code, 0);
  EXPECT_TRUE(read_file(destination / "quant_model_weight_w8a16.safetensors") ==
              read_file(reference / "quant_model_weight_w8a16.safetensors"));
}

INSTANTIATE_TEST_SUITE_P(Cli, CliInterrupt, testing::Values(SIGINT, SIGTERM, SIGKILL),
                         [](const auto& instance) {
                           return std::string("Sig") + sigabbrev_np(instance.param);
                         });

}  // namespace
}  // namespace llmq::test
