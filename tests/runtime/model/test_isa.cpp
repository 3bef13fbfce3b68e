// The forward pass on every instruction set of this machine. The set is chosen once per process, so
// each is a process of its own: this binary again, running one test that then only writes logits.

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <string>
#include <vector>

#include "formats/json.h"
#include "quant/kernels/cpu.h"
#include "quant/kernels/gemm_f16/gemm_f16.h"
#include "runtime/model/model.h"
#include "tests/runtime/model/model_testing.h"
#include "tests/runtime/model/quantized_model.h"

namespace llmq::runtime {
namespace {

constexpr const char* kOutput = "LLMQ_TEST_ISA_OUTPUT";
constexpr const char* kModel = "LLMQ_TEST_ISA_MODEL";

/// What a process forced to one set does.
void write_logits(const char* output) {
  const auto model = Model::load(std::getenv(kModel), {.n_threads = 2, .prefill_chunk = 20});
  std::vector<int32_t> tokens;
  for (int32_t i = 0; i < 50; ++i) tokens.push_back(i * 29 % 96);
  const std::vector<float> logits = testing::all_logits(*model, tokens);
  std::string text(quant::isa_name(quant::active_isa()));
  text += '\n';
  text.append(reinterpret_cast<const char*>(logits.data()), logits.size() * sizeof(float));
  formats::write_text_file(output, text);
}

/// Name of the instruction set and the bytes of the logits, of a process forced to `isa`.
std::string logits_with(quant::Isa isa, const std::filesystem::path& model) {
  const testing::TemporaryFolder place;
  const std::filesystem::path output = place.path() / "logits";
  const std::filesystem::path self = std::filesystem::read_symlink("/proc/self/exe");
  const pid_t child = fork();
  if (child == 0) {
    setenv("LLMQ_ISA", std::string(quant::isa_name(isa)).c_str(), 1);
    setenv(kOutput, output.c_str(), 1);
    setenv(kModel, model.c_str(), 1);
    execl(self.c_str(), self.c_str(), "--gtest_brief=1",
          "--gtest_filter=IsaModel.logits_have_the_same_bits_on_every_instruction_set",
          static_cast<char*>(nullptr));
    _exit(127);
  }
  int status = 0;
  waitpid(child, &status, 0);
  EXPECT_EQ(status, 0);
  return formats::read_text_file(output);
}

void expect_same_bits(const std::filesystem::path& model) {
  std::string reference;
  for (const quant::Isa isa : quant::supported_isas()) {
    const std::string text = logits_with(isa, model);
    const size_t end = text.find('\n');
    ASSERT_NE(end, std::string::npos);
    EXPECT_EQ(text.substr(0, end), quant::isa_name(isa));
    const std::string logits = text.substr(end + 1);
    ASSERT_FALSE(logits.empty());
    if (reference.empty()) reference = logits;
    EXPECT_TRUE(logits == reference) << quant::isa_name(isa);
  }
}

TEST(IsaModel, logits_have_the_same_bits_on_every_instruction_set) {
  if (const char* output = std::getenv(kOutput)) {
    write_logits(output);
    return;
  }
  for (const char* name : {"qwen3-yarn-rope-parameters", "llama-odd-sizes", "llama-llama3-rope"})
    expect_same_bits(testing::golden_root() / name);
}

TEST(IsaModel, w8a16_logits_have_the_same_bits_on_every_instruction_set) {
  const std::filesystem::path source = testing::golden_root() / "llama-odd-sizes";
  testing::NewTensors tensors = testing::read_tensors(source);
  const testing::QuantizedW8A16 quantized = testing::quantize_w8a16(tensors);
  const testing::TemporaryFolder folder;
  testing::write_model(folder.path(), formats::read_json_file(source / "config.json"), tensors);
  formats::write_text_file(folder.path() / "quant_model_description.json",
                           quantized.description.dump());
  expect_same_bits(folder.path());
}

}  // namespace
}  // namespace llmq::runtime
