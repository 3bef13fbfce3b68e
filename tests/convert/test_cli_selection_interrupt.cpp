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
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

class CliSelectionInterrupt : public LongCalibrationFixture {
 protected:
  [[nodiscard]] Command selecting(const std::string& bits) const {
    return llmq_command({"quant", "-src", source_, "-dst", work_ / "out", "-type", "w8a8",
                         "--calib-samples", "8", "--threads", "1", "--target-bits", bits});
  }
};

TEST_F(CliSelectionInterrupt, InterruptedRunGoesOnToTheSameBytes) {
  const auto begin = Clock::now();
  RunningCommand undisturbed(selecting("12"));
  wait_for_staging(undisturbed);
  const std::chrono::duration<double> deciding = Clock::now() - begin;
  const CommandResult result = undisturbed.wait();
  const std::chrono::duration<double> writing = Clock::now() - begin - deciding;
  ASSERT_EQ(result.exit_code, 0) << result.summary();
  const auto reference = result_files(work_ / "out");
  const OrderedJson chosen = report_of(work_ / "out").at("sensitivity");
  fs::remove_all(work_ / "out");

  {
    RunningCommand early(selecting("12"));
    std::this_thread::sleep_for(deciding / 4);
    early.send_signal(SIGINT);
    const CommandResult interrupted = early.wait();
    EXPECT_EQ(interrupted.exit_code, 130) << interrupted.summary();
    EXPECT_THAT(folder_entries(work_), IsEmpty()) << "nothing is begun before it is decided";
  }
  RunningCommand late(selecting("12"));
  wait_for_staging(late);
  std::this_thread::sleep_for(writing / 2);
  late.send_signal(SIGINT);
  if (late.wait().exit_code == 0) fs::remove_all(work_ / "out");
  const CommandResult again = run_command(selecting("12"));
  EXPECT_EQ(again.exit_code, 0) << again.summary();
  EXPECT_TRUE(result_files(work_ / "out") == reference);
  EXPECT_EQ(report_of(work_ / "out").at("sensitivity"), chosen);
}

// What another choice of layers has written must not be mixed with this one's.
TEST_F(CliSelectionInterrupt, AnotherChoiceStartsAnew) {
  RunningCommand first(selecting("12"));
  wait_for_staging(first);
  first.send_signal(SIGINT);
  if (first.wait().exit_code == 0) GTEST_SKIP() << "the run ended before the signal";
  const CommandResult other = run_command(selecting("15"));
  EXPECT_EQ(other.exit_code, 0) << other.summary();
  EXPECT_THAT(other.err, Not(HasSubstr("going on where")));
  const auto files = result_files(work_ / "out");
  fs::remove_all(work_);
  fs::create_directory(work_);
  EXPECT_EQ(run_command(selecting("15")).exit_code, 0);
  EXPECT_TRUE(result_files(work_ / "out") == files);
}

}  // namespace
}  // namespace llmq::test
