#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <csignal>
#include <thread>

#include "tests/convert/long_calibration_fixture.h"

namespace llmq::test {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;
using testing::ElementsAre;
using testing::HasSubstr;

class CliCalibrationInterrupt : public LongCalibrationFixture {
 protected:
  void SetUp() override {
    ASSERT_NO_FATAL_FAILURE(LongCalibrationFixture::SetUp());
    reference_ = undisturbed();
  }

  [[nodiscard]] Command quantize_to(const fs::path& destination, const fs::path& stats) const {
    return llmq_command({"quant", "-src", source_, "-dst", destination, "-type", "w8a8",
                         "--calib-samples", "12", "-act_method", "2", "--threads", "1",
                         "--save-stats", stats});
  }

  /// Result of a run that nothing disturbs; its time between the start of the work and the end is
  /// what interruptions are spread over.
  std::map<std::string, std::string> undisturbed() {
    RunningCommand command(quantize_to(work_ / "out", reference_stats_));
    wait_for_staging(command);
    const auto begin = Clock::now();
    const CommandResult result = command.wait();
    duration_ = Clock::now() - begin;
    EXPECT_EQ(result.exit_code, 0) << result.summary();
    auto files = result_files(work_ / "out");
    EXPECT_TRUE(files.contains("quant_model_weight_w8a8.safetensors"));
    fs::remove_all(work_ / "out");
    return files;
  }

  /// Runs and sends the signal when that share of the usual time has gone by.
  CommandResult interrupt(double share, int signal) {
    RunningCommand command(quantize_to(work_ / "out", folder_ / "stats.json"));
    wait_for_staging(command);
    std::this_thread::sleep_for(share * duration_);
    command.send_signal(signal);
    return command.wait();
  }

  /// Runs the same command to its end and expects what the undisturbed run gave.
  CommandResult expect_the_next_run_finishes() {
    CommandResult again = run_command(quantize_to(work_ / "out", folder_ / "stats.json"));
    EXPECT_EQ(again.exit_code, 0) << again.summary();
    EXPECT_THAT(folder_entries(work_), ElementsAre("out")) << "staging is gone";
    EXPECT_TRUE(result_files(work_ / "out") == reference_);
    EXPECT_TRUE(read_file(folder_ / "stats.json") == read_file(reference_stats_))
        << "a run that goes on saves all statistics, also of layers done before";
    fs::remove_all(work_ / "out");
    return again;
  }

  fs::path reference_stats_ = folder_ / "reference.json";
  std::map<std::string, std::string> reference_;
  std::chrono::duration<double> duration_{};
};

TEST_F(CliCalibrationInterrupt, InterruptedRunGoesOnToTheSameBytes) {
  int n_resumed = 0;
  for (const double share : {0.05, 0.45, 0.8, 0.97}) {
    SCOPED_TRACE(share);
    const CommandResult interrupted = interrupt(share, SIGINT);
    if (interrupted.exit_code == 0) {  // this run was quicker than the one that was timed
      EXPECT_TRUE(result_files(work_ / "out") == reference_);
      fs::remove_all(work_ / "out");
      continue;
    }
    EXPECT_EQ(interrupted.exit_code, 130) << interrupted.summary();
    EXPECT_FALSE(fs::exists(work_ / "out"));
    const CommandResult again = expect_the_next_run_finishes();
    n_resumed += again.err.find("going on where") != std::string::npos ? 1 : 0;
  }
  EXPECT_GT(n_resumed, 0);
}

TEST_F(CliCalibrationInterrupt, KilledRunLeavesNoDestinationUnlessComplete) {
  int n_killed = 0;
  for (int moment = 0; moment < 10; ++moment) {
    SCOPED_TRACE(moment);
    const CommandResult killed = interrupt(moment / 9.0, SIGKILL);
    n_killed += killed.signal == SIGKILL ? 1 : 0;
    if (!fs::exists(work_ / "out")) continue;
    EXPECT_TRUE(result_files(work_ / "out") == reference_) << "what appears is complete";
    EXPECT_TRUE(fs::exists(work_ / "out" / "llmq_report.json"));
    fs::remove_all(work_ / "out");
  }
  EXPECT_GT(n_killed, 4);
  std::ignore = expect_the_next_run_finishes();
}

// Layers that were finished before the signal are named as well, each once.
TEST_F(CliCalibrationInterrupt, TheReportOfAResumedRunNamesWhatWasDoneToEveryLayer) {
  const auto smooth_to = [&](const fs::path& destination) {
    Command command = quantize_to(destination, folder_ / "stats.json");
    command.argv.resize(command.argv.size() - 2);  // no --save-stats, which looks at all layers
    command.argv.insert(command.argv.end(), {"-anti_method", "m4"});
    return command;
  };
  const auto transformations = [](const fs::path& folder) {
    return report_of(folder).at("calibration").at("transformations");
  };
  const fs::path plain = folder_ / "plain";
  const auto begin = Clock::now();
  ASSERT_EQ(run_command(smooth_to(plain)).exit_code, 0);
  const std::chrono::duration<double> usual = Clock::now() - begin;
  ASSERT_FALSE(transformations(plain).empty());

  // The first moment nearly always finds some layers finished; the others are for a busy machine.
  bool is_resumed = false;
  for (const double share : {0.6, 0.8, 0.4, 0.9, 0.2}) {
    if (is_resumed) break;
    SCOPED_TRACE(share);
    RunningCommand command(smooth_to(work_ / "out"));
    std::this_thread::sleep_for(share * usual);
    command.send_signal(SIGINT);
    std::ignore = command.wait();
    if (!fs::exists(work_ / "out")) {
      const CommandResult again = run_command(smooth_to(work_ / "out"));
      ASSERT_EQ(again.exit_code, 0) << again.summary();
      is_resumed = again.err.find("going on where") != std::string::npos;
    }
    EXPECT_EQ(transformations(work_ / "out"), transformations(plain));
    EXPECT_TRUE(result_files(work_ / "out") == result_files(plain));
    fs::remove_all(work_ / "out");
  }
  EXPECT_TRUE(is_resumed);
}

// What was written with other texts must not be mixed with what these give.
TEST_F(CliCalibrationInterrupt, OtherTextsStartAnew) {
  const CommandResult interrupted = interrupt(0.8, SIGINT);
  if (interrupted.exit_code == 0) GTEST_SKIP() << "the run ended before the signal";
  Command other = quantize_to(work_ / "out", folder_ / "stats.json");
  other.argv.insert(other.argv.end(), {"--calib-length", "40"});
  const CommandResult result = run_command(other);
  EXPECT_EQ(result.exit_code, 0) << result.summary();
  EXPECT_THAT(result.err, testing::Not(HasSubstr("going on where")));
  other = quantize_to(folder_ / "fresh", folder_ / "fresh.json");
  other.argv.insert(other.argv.end(), {"--calib-length", "40"});
  EXPECT_EQ(run_command(other).exit_code, 0);
  EXPECT_TRUE(result_files(work_ / "out") == result_files(folder_ / "fresh"));
  EXPECT_TRUE(read_file(folder_ / "stats.json") == read_file(folder_ / "fresh.json"));
}

// What the float32 kernels gave must not be mixed with what --fast-calibration gives, nor the other
// way round.
TEST_F(CliCalibrationInterrupt, OtherArithmeticStartsAnew) {
  const CommandResult interrupted = interrupt(0.8, SIGINT);
  if (interrupted.exit_code == 0) GTEST_SKIP() << "the run ended before the signal";
  Command fast = quantize_to(work_ / "out", folder_ / "stats.json");
  fast.argv.emplace_back("--fast-calibration");
  const CommandResult result = run_command(fast);
  EXPECT_EQ(result.exit_code, 0) << result.summary();
  EXPECT_THAT(result.err, testing::Not(HasSubstr("going on where")));
  fast = quantize_to(folder_ / "fresh", folder_ / "fresh.json");
  fast.argv.emplace_back("--fast-calibration");
  EXPECT_EQ(run_command(fast).exit_code, 0);
  EXPECT_TRUE(result_files(work_ / "out") == result_files(folder_ / "fresh"));
  EXPECT_TRUE(read_file(folder_ / "stats.json") == read_file(folder_ / "fresh.json"));
  EXPECT_FALSE(read_file(folder_ / "stats.json") == read_file(reference_stats_));
}

}  // namespace
}  // namespace llmq::test
