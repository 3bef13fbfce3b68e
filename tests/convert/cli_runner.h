#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "tests/tools/test_files.h"

namespace llmq::test {

/// A program to start: argv[0] is its path; `environment` is added to the caller's.
struct Command {
  std::vector<std::string> argv;
  std::map<std::string, std::string> environment;
  std::chrono::seconds timeout{120};
  /// RLIMIT_FSIZE with SIGXFSZ ignored: writing beyond it fails with EFBIG, as on a full disk.
  std::optional<uint64_t> max_file_bytes;
};

/// How a program ended and what it wrote.
struct CommandResult {
  int exit_code = -1;  ///< -1 when a signal ended it
  int signal = 0;      ///< 0 when it exited by itself
  bool timed_out = false;
  std::string out;
  std::string err;

  /// For assertion messages: how it ended and both streams.
  [[nodiscard]] std::string summary() const;
};

/// A program that runs. The destructor kills it if it still does.
class RunningCommand {
 public:
  explicit RunningCommand(const Command& command);
  ~RunningCommand();
  RunningCommand(const RunningCommand&) = delete;
  RunningCommand& operator=(const RunningCommand&) = delete;

  void send_signal(int signal) const;
  /// True while it has not ended; does not wait.
  [[nodiscard]] bool is_running() const;
  /// Reads both streams to their ends and waits; kills the program at its timeout.
  CommandResult wait();

 private:
  pid_t pid_ = -1;
  int out_fd_ = -1;
  int err_fd_ = -1;
  std::chrono::steady_clock::time_point deadline_;
};

CommandResult run_command(const Command& command);

/// The program under test with these arguments.
Command llmq_command(std::vector<std::string> arguments);
inline CommandResult run_llmq(std::vector<std::string> arguments) {
  return run_command(llmq_command(std::move(arguments)));
}

/// Standard output of `result` as one JSON document; a test failure, and null, when it is none.
nlohmann::ordered_json json_output(const CommandResult& result);

/// Relative path → content of every regular file under `folder`; empty when there is none.
std::map<std::string, std::string> folder_contents(const std::filesystem::path& folder);

/// Names of the entries of `folder`, sorted.
std::vector<std::string> folder_entries(const std::filesystem::path& folder);

}  // namespace llmq::test
