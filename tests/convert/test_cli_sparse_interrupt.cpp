#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <csignal>
#include <thread>

#include "tests/convert/sparse_fixture.h"

namespace llmq::test {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

/// A model that takes long enough to compress to be interrupted: 13 MB of codes.
class CliSparseInterrupt : public SparseFixture, public testing::WithParamInterface<int> {
 protected:
  void SetUp() override {
    CalibratedFixture::SetUp();
    config_["vocab_size"] = 464;
    config_["hidden_size"] = 512;
    config_["intermediate_size"] = 2048;
    config_["num_hidden_layers"] = 3;
    config_["num_attention_heads"] = 8;
    config_["num_key_value_heads"] = 4;
    write_file(folder_ / "config.json", config_.dump());
    make_source(1);
    sparse_ = quantize("sparse", sparse_options_);
    fs::create_directory(work_);
  }

  [[nodiscard]] Command command(const fs::path& to) const {
    std::vector<std::string> options{"--codec", "deflate", "--threads", "1"};
    if (!split_.empty()) options.insert(options.end(), {"--save_split_w8a8s_dir", split_});
    return compress_command(sparse_, to, 2, options);
  }

  /// Starts compressing and sends the signal once this is there in the staging folder.
  [[nodiscard]] CommandResult interrupt_at(const std::string& sign) const {
    RunningCommand running(command(work_ / "out"));
    while (running.is_running() && !fs::exists(work_ / ".out.llmq-partial" / sign))
      std::this_thread::sleep_for(std::chrono::microseconds(100));
    running.send_signal(GetParam());
    return running.wait();
  }

  void expect_stopped(const CommandResult& result) const {
    if (GetParam() == SIGKILL) {
      EXPECT_EQ(result.signal, SIGKILL) << result.summary();
    } else {
      EXPECT_EQ(result.exit_code, 130) << result.summary();
    }
    EXPECT_FALSE(fs::exists(work_ / "out"));
  }

  /// The same command again ends with what an undisturbed run writes.
  void expect_finished(const testing::Matcher<std::string>& words) {
    const CommandResult again = run_command(command(work_ / "out"));
    EXPECT_EQ(again.exit_code, 0) << again.summary();
    EXPECT_THAT(again.err, words);
    EXPECT_THAT(folder_entries(work_), ElementsAre("out")) << "staging is gone";
    split_ = split_.empty() ? fs::path() : folder_ / "reference-split";
    ASSERT_EQ(run_command(command(folder_ / "reference")).exit_code, 0);
    EXPECT_TRUE(folder_contents(work_ / "out") == folder_contents(folder_ / "reference"));
  }

  fs::path work_ = folder_ / "work";
  fs::path split_;  ///< kept where it is not empty
};

TEST_P(CliSparseInterrupt, WhileCompressingTheNextRunGoesOn) {
  expect_stopped(interrupt_at("rank-0"));
  expect_finished(HasSubstr("going on where the interrupted run stopped"));
}

TEST_P(CliSparseInterrupt, WhileCuttingTheNextRunStartsAnew) {
  expect_stopped(interrupt_at(".llmq-split.llmq-partial"));
  expect_finished(Not(HasSubstr("going on")));
}

TEST_P(CliSparseInterrupt, ASplitFolderThatIsKeptIsNotCutAgain) {
  split_ = folder_ / "split";
  expect_stopped(interrupt_at("rank-0"));
  const auto cut = folder_contents(split_);
  EXPECT_FALSE(cut.empty());
  expect_finished(HasSubstr("going on where the interrupted run stopped"));
  EXPECT_TRUE(folder_contents(folder_ / "split") == cut);
  EXPECT_TRUE(folder_contents(folder_ / "reference-split") == cut);
}

TEST_P(CliSparseInterrupt, AnotherSourceIsNotMixedWithWhatWasWritten) {
  expect_stopped(interrupt_at("rank-0"));
  make_source(2);
  fs::remove_all(sparse_);
  ASSERT_EQ(quantize("sparse", sparse_options_), sparse_);
  expect_finished(Not(HasSubstr("going on")));
}

INSTANTIATE_TEST_SUITE_P(Cli, CliSparseInterrupt, testing::Values(SIGINT, SIGKILL),
                         [](const auto& instance) {
                           return std::string("Sig") + sigabbrev_np(instance.param);
                         });

}  // namespace
}  // namespace llmq::test
