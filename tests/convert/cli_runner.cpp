#include "tests/convert/cli_runner.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <stdexcept>

namespace llmq::test {
namespace {

namespace fs = std::filesystem;

std::vector<char*> c_strings(std::vector<std::string>& strings) {
  std::vector<char*> pointers;
  pointers.reserve(strings.size() + 1);
  for (std::string& string : strings) {
    pointers.push_back(string.data());
  }
  pointers.push_back(nullptr);
  return pointers;
}

std::vector<std::string> merged_environment(const std::map<std::string, std::string>& added) {
  std::vector<std::string> variables;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string variable = *entry;
    if (!added.contains(variable.substr(0, variable.find('=')))) {
      variables.push_back(variable);
    }
  }
  for (const auto& [name, value] : added) {
    variables.push_back(name + "=" + value);
  }
  return variables;
}

// In the child, between fork and exec.
void limit_file_size(uint64_t bytes) {
  const rlimit limit{bytes, bytes};
  setrlimit(RLIMIT_FSIZE, &limit);
  std::signal(SIGXFSZ, SIG_IGN);
}

// Appends what is there to read; closes the stream at its end.
void drain(int& fd, std::string& text) {
  std::array<char, 65536> buffer;
  const ssize_t n_bytes = read(fd, buffer.data(), buffer.size());
  if (n_bytes > 0) {
    text.append(buffer.data(), static_cast<size_t>(n_bytes));
  } else if (n_bytes == 0 || errno != EINTR) {
    close(fd);
    fd = -1;
  }
}

}  // namespace

std::string CommandResult::summary() const {
  const std::string end = timed_out     ? "timed out"
                          : signal != 0 ? std::string("ended by signal ") + strsignal(signal)
                                        : "exit code " + std::to_string(exit_code);
  return end + "\nstdout: " + out.substr(0, 4000) + "\nstderr: " + err.substr(0, 4000);
}

RunningCommand::RunningCommand(const Command& command)
    : deadline_(std::chrono::steady_clock::now() + command.timeout) {
  std::array<int, 2> out_pipe;
  std::array<int, 2> err_pipe;
  if (pipe2(out_pipe.data(), O_CLOEXEC) != 0 || pipe2(err_pipe.data(), O_CLOEXEC) != 0) {
    throw std::runtime_error("pipe2 failed");
  }
  std::vector<std::string> arguments = command.argv;
  std::vector<std::string> variables = merged_environment(command.environment);
  const std::vector<char*> argv = c_strings(arguments);
  const std::vector<char*> envp = c_strings(variables);
  pid_ = fork();
  if (pid_ < 0) {
    throw std::runtime_error("fork failed");
  }
  if (pid_ == 0) {
    const int null_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    dup2(null_fd, STDIN_FILENO);
    dup2(out_pipe[1], STDOUT_FILENO);
    dup2(err_pipe[1], STDERR_FILENO);
    if (command.max_file_bytes) {
      limit_file_size(*command.max_file_bytes);
    }
    execve(argv[0], argv.data(), envp.data());
    _exit(127);
  }
  close(out_pipe[1]);
  close(err_pipe[1]);
  out_fd_ = out_pipe[0];
  err_fd_ = err_pipe[0];
}

RunningCommand::~RunningCommand() {
  if (pid_ > 0) {
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
  }
  for (const int fd : {out_fd_, err_fd_}) {
    if (fd >= 0) {
      close(fd);
    }
  }
}

void RunningCommand::send_signal(int signal) const {
  kill(pid_, signal);
}

bool RunningCommand::is_running() const {
  siginfo_t info{};
  return waitid(P_PID, static_cast<id_t>(pid_), &info, WEXITED | WNOHANG | WNOWAIT) == 0 &&
         info.si_pid == 0;
}

CommandResult RunningCommand::wait() {
  CommandResult result;
  while (out_fd_ >= 0 || err_fd_ >= 0) {
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(
        deadline_ - std::chrono::steady_clock::now());
    std::array<pollfd, 2> polled{{{out_fd_, POLLIN, 0}, {err_fd_, POLLIN, 0}}};
    const int n_ready =
        left.count() > 0 ? poll(polled.data(), polled.size(), static_cast<int>(left.count())) : 0;
    if (n_ready == 0) {
      result.timed_out = true;
      kill(pid_, SIGKILL);
      break;
    }
    if (polled[0].revents != 0) {
      drain(out_fd_, result.out);
    }
    if (polled[1].revents != 0) {
      drain(err_fd_, result.err);
    }
  }
  int status = 0;
  waitpid(pid_, &status, 0);
  pid_ = -1;
  if (WIFEXITED(status)) {
    result.exit_code = WEXITSTATUS(status);
  } else if (WIFSIGNALED(status)) {
    result.signal = WTERMSIG(status);
  }
  return result;
}

CommandResult run_command(const Command& command) {
  return RunningCommand(command).wait();
}

Command llmq_command(std::vector<std::string> arguments) {
  Command command;
  command.argv = std::move(arguments);
  command.argv.insert(command.argv.begin(), LLMQ_BINARY);
  return command;
}

nlohmann::ordered_json json_output(const CommandResult& result) {
  auto document = nlohmann::ordered_json::parse(result.out, nullptr, false);
  if (document.is_discarded()) {
    ADD_FAILURE() << "standard output is not one JSON document\n" << result.summary();
    return nullptr;
  }
  return document;
}

std::map<std::string, std::string> folder_contents(const fs::path& folder) {
  std::map<std::string, std::string> contents;
  if (!fs::exists(folder)) {
    return contents;
  }
  for (const auto& entry : fs::recursive_directory_iterator(folder)) {
    if (entry.is_regular_file()) {
      contents[fs::relative(entry.path(), folder).string()] = read_file(entry.path());
    }
  }
  return contents;
}

std::vector<std::string> folder_entries(const fs::path& folder) {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(folder)) {
    names.push_back(entry.path().filename().string());
  }
  std::sort(names.begin(), names.end());
  return names;
}

}  // namespace llmq::test
