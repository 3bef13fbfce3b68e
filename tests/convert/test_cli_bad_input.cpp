#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mount.h>
#include <unistd.h>

#include "tests/convert/broken_checkpoints.h"
#include "tests/convert/checkpoint_writer.h"
#include "tests/convert/cli_runner.h"

namespace llmq::test {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;
using testing::HasSubstr;

constexpr int kBadInput = 3;
constexpr int kIo = 4;

std::vector<BrokenCheckpoint> all_broken() {
  std::vector<BrokenCheckpoint> cases = broken_files();
  cases.insert(cases.end(), broken_tensors().begin(), broken_tensors().end());
  cases.insert(cases.end(), broken_configs().begin(), broken_configs().end());
  return cases;
}

std::vector<std::string> quant_arguments(const fs::path& source, const fs::path& destination) {
  return {"quant", "-src", source, "-dst", destination, "-type", "w8a16"};
}

// The message of {"error": {"code", "message"}} on standard output.
std::string json_error_message(const CommandResult& result, const std::string& code) {
  const auto document = json_output(result);
  if (!document.is_object() || !document.contains("error")) {
    ADD_FAILURE() << "no error object\n" << result.summary();
    return {};
  }
  EXPECT_EQ(document.at("error").value("code", ""), code);
  return document.at("error").value("message", "");
}

// One sentence that names what it must, the same on both streams.
void expect_refusal(const CommandResult& result, int exit_code, const std::string& code,
                    const std::vector<std::string>& words) {
  EXPECT_EQ(result.exit_code, exit_code) << result.summary();
  const std::string message = json_error_message(result, code);
  for (const std::string& word : words) {
    EXPECT_THAT(message, HasSubstr(word));
  }
  EXPECT_THAT(message, testing::Not(HasSubstr("\n"))) << "more than one sentence";
  EXPECT_THAT(result.err, HasSubstr(message));
}

class CliBadInput : public testing::TestWithParam<BrokenCheckpoint> {
 protected:
  void SetUp() override { GetParam().make(source_); }

  TemporaryFolder folder_;
  fs::path source_ = folder_ / "source";
  fs::path destination_ = folder_ / "destination";
};

TEST_P(CliBadInput, QuantRefusesInOneSentenceAndWritesNothing) {
  const auto before = folder_contents(source_);
  auto arguments = quant_arguments(source_, destination_);
  arguments.emplace_back("--json");
  expect_refusal(run_llmq(arguments), kBadInput, "bad_input", GetParam().words);
  EXPECT_THAT(folder_entries(folder_.path()), ElementsAre("source"));
  EXPECT_EQ(folder_contents(source_), before);
}

TEST_P(CliBadInput, ForceDoesNotHelp) {
  auto arguments = quant_arguments(source_, destination_);
  arguments.emplace_back("--force");
  const CommandResult result = run_llmq(arguments);
  EXPECT_EQ(result.exit_code, kBadInput) << result.summary();
  EXPECT_EQ(result.out, "") << "the sentence belongs on standard error";
  for (const std::string& word : GetParam().words) {
    EXPECT_THAT(result.err, HasSubstr(word));
  }
  EXPECT_FALSE(fs::exists(destination_));
}

TEST_P(CliBadInput, PlanSeesWhatHeadersShow) {
  const CommandResult result = run_llmq({"plan", "-src", source_, "-type", "w8a16", "--json"});
  if (GetParam().seen_in_headers) {
    expect_refusal(result, kBadInput, "bad_input", GetParam().words);
  } else {
    EXPECT_EQ(result.exit_code, 0) << result.summary();
  }
}

TEST_P(CliBadInput, OtherReadersEndByThemselves) {
  for (const std::string command : {"inspect", "verify"}) {
    const CommandResult result = run_llmq({command, source_});
    EXPECT_EQ(result.signal, 0) << command << ": " << result.summary();
    EXPECT_THAT(result.exit_code, testing::AnyOf(0, 3, 6)) << command << ": " << result.summary();
  }
}

INSTANTIATE_TEST_SUITE_P(Cli, CliBadInput, testing::ValuesIn(all_broken()),
                         [](const auto& instance) { return instance.param.name; });

// --- places
// -----------------------------------------------------------------------------------------

class CliBadPlace : public testing::Test {
 protected:
  void SetUp() override {
    write_checkpoint(source_, tiny_qwen2_config(), tiny_qwen2_tensors());
    before_ = folder_contents(source_);
  }
  void TearDown() override { EXPECT_EQ(folder_contents(source_), before_) << "source changed"; }

  [[nodiscard]] CommandResult quantize_to(const fs::path& destination) const {
    auto arguments = quant_arguments(source_, destination);
    arguments.emplace_back("--json");
    return run_llmq(arguments);
  }

  TemporaryFolder folder_;
  fs::path source_ = folder_ / "source";
  std::map<std::string, std::string> before_;
};

TEST_F(CliBadPlace, SourceThatDoesNotExistIsNamed) {
  const fs::path missing = folder_ / "missing";
  auto arguments = quant_arguments(missing, folder_ / "destination");
  arguments.emplace_back("--json");
  expect_refusal(run_llmq(arguments), kBadInput, "bad_input", {missing});
}

TEST_F(CliBadPlace, SourceThatIsAFileIsNamed) {
  const fs::path file = source_ / "config.json";
  auto arguments = quant_arguments(file, folder_ / "destination");
  arguments.emplace_back("--json");
  expect_refusal(run_llmq(arguments), kBadInput, "bad_input", {file});
}

TEST_F(CliBadPlace, DestinationWithContentIsKept) {
  const fs::path destination = folder_ / "destination";
  fs::create_directory(destination);
  write_file(destination / "precious.txt", "keep me");
  expect_refusal(quantize_to(destination), kBadInput, "bad_input", {destination, "--force"});
  EXPECT_THAT(folder_entries(destination), ElementsAre("precious.txt"));
  EXPECT_EQ(read_file(destination / "precious.txt"), "keep me");
}

TEST_F(CliBadPlace, DestinationInsideSourceIsRefusedEvenWithForce) {
  auto arguments = quant_arguments(source_, source_ / "sub" / "quantized");
  arguments.insert(arguments.end(), {"--force", "--json"});
  expect_refusal(run_llmq(arguments), kBadInput, "bad_input", {"quantized"});
  EXPECT_FALSE(fs::exists(source_ / "sub"));
}

TEST_F(CliBadPlace, DestinationInsideSourceThroughALinkIsRefused) {
  fs::create_directory_symlink(source_, folder_ / "alias");
  expect_refusal(quantize_to(folder_ / "alias" / "quantized"), kBadInput, "bad_input",
                 {"quantized"});
}

TEST_F(CliBadPlace, DestinationThatIsTheSourceIsRefusedEvenWithForce) {
  auto arguments = quant_arguments(source_, source_ / "." / "");
  arguments.insert(arguments.end(), {"--force", "--json"});
  expect_refusal(run_llmq(arguments), kBadInput, "bad_input", {source_});
}

TEST_F(CliBadPlace, DestinationAboveTheSourceIsRefusedEvenWithForce) {
  auto arguments = quant_arguments(source_, folder_.path());
  arguments.insert(arguments.end(), {"--force", "--json"});
  expect_refusal(run_llmq(arguments), kBadInput, "bad_input", {folder_.path()});
}

TEST_F(CliBadPlace, DestinationThatIsAFileIsRefusedAndKept) {
  const fs::path file = folder_ / "file";
  write_file(file, "keep me");
  expect_refusal(quantize_to(file), kBadInput, "bad_input", {file});
  EXPECT_EQ(read_file(file), "keep me");
}

TEST_F(CliBadPlace, DestinationBelowAFileIsAnIoError) {
  const fs::path file = folder_ / "file";
  write_file(file, "");
  expect_refusal(quantize_to(file / "destination"), kIo, "io", {file});
}

TEST_F(CliBadPlace, DestinationThatNobodyMayCreateIsAnIoError) {
  // Even root cannot make a folder in /proc.
  expect_refusal(quantize_to("/proc/llmq-destination"), kIo, "io", {"/proc"});
}

TEST_F(CliBadPlace, DestinationInReadOnlyFolderIsAnIoError) {
  if (geteuid() == 0) {
    GTEST_SKIP() << "root may write anywhere";
  }
  const fs::path locked = folder_ / "locked";
  fs::create_directory(locked);
  fs::permissions(locked, fs::perms::owner_read | fs::perms::owner_exec);
  expect_refusal(quantize_to(locked / "destination"), kIo, "io", {locked});
  fs::permissions(locked, fs::perms::owner_all);
}

TEST_F(CliBadPlace, FileSizeLimitIsAnIoErrorWithoutDestination) {
  const fs::path destination = folder_ / "destination";
  auto arguments = quant_arguments(source_, destination);
  arguments.emplace_back("--json");
  Command command = llmq_command(arguments);
  command.max_file_bytes = 32 * 1024;
  expect_refusal(run_command(command), kIo, "io", {"safetensors"});
  EXPECT_FALSE(fs::exists(destination));
}

TEST_F(CliBadPlace, FullDiskIsAnIoErrorWithoutDestination) {
  const fs::path small = folder_ / "small";
  fs::create_directory(small);
  if (mount("tmpfs", small.c_str(), "tmpfs", 0, "size=64k") != 0) {
    GTEST_SKIP() << "mounting a small tmpfs needs root";
  }
  const CommandResult result = quantize_to(small / "destination");
  const bool exists = fs::exists(small / "destination");
  umount2(small.c_str(), MNT_DETACH);
  expect_refusal(result, kIo, "io", {small});
  EXPECT_FALSE(exists);
}

}  // namespace
}  // namespace llmq::test
