#include "tests/runtime/model/isa_process.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>

#include "formats/file.h"
#include "quant/kernels/cpu.h"
#include "tests/runtime/model/model_testing.h"

namespace llmq::testing {
namespace {

constexpr const char* kOutput = "LLMQ_TEST_ISA_OUTPUT";

}  // namespace

const char* isa_child_output() {
  return std::getenv(kOutput);
}

void write_isa_result(const std::string& result) {
  formats::write_text_file(isa_child_output(),
                           std::string(quant::isa_name(quant::active_isa())) + '\n' + result);
}

std::string isa_child_result(quant::Isa isa, const std::string& test,
                             const std::map<std::string, std::string>& environment) {
  const TemporaryFolder place;
  const std::filesystem::path output = place.path() / "result";
  const std::filesystem::path self = std::filesystem::read_symlink("/proc/self/exe");
  const std::string filter = "--gtest_filter=" + test;
  const std::string name(quant::isa_name(isa));
  const pid_t child = fork();
  if (child == 0) {
    setenv("LLMQ_ISA", name.c_str(), 1);
    setenv(kOutput, output.c_str(), 1);
    for (const auto& [key, value] : environment) setenv(key.c_str(), value.c_str(), 1);
    execl(self.c_str(), self.c_str(), "--gtest_brief=1", filter.c_str(),
          static_cast<char*>(nullptr));
    _exit(127);
  }
  int status = 0;
  waitpid(child, &status, 0);
  EXPECT_EQ(status, 0) << name;
  if (!std::filesystem::exists(output)) {
    ADD_FAILURE() << test << " wrote nothing with " << name;
    return "";
  }
  const std::string text = formats::read_text_file(output);
  const size_t end = text.find('\n');
  EXPECT_EQ(text.substr(0, end), name);
  return end == std::string::npos ? "" : text.substr(end + 1);
}

void expect_same_result_on_every_isa(const std::string& test,
                                     const std::map<std::string, std::string>& environment) {
  std::string reference;
  for (const quant::Isa isa : quant::supported_isas()) {
    const std::string result = isa_child_result(isa, test, environment);
    ASSERT_FALSE(result.empty()) << quant::isa_name(isa);
    if (reference.empty()) reference = result;
    EXPECT_TRUE(result == reference) << quant::isa_name(isa);
  }
}

}  // namespace llmq::testing
