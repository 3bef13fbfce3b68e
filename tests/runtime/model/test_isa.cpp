// The forward pass on every instruction set of this machine.

#include <gtest/gtest.h>

#include <cstdlib>
#include <string>
#include <vector>

#include "formats/json.h"
#include "quant/kernels/cpu.h"
#include "runtime/model/model.h"
#include "tests/runtime/model/isa_process.h"
#include "tests/runtime/model/model_testing.h"
#include "tests/runtime/model/quantized_model.h"

namespace llmq::runtime {
namespace {

constexpr const char* kModel = "LLMQ_TEST_ISA_MODEL";

/// What a process forced to one set does.
void write_logits() {
  const auto model = Model::load(std::getenv(kModel), {.n_threads = 2, .prefill_chunk = 20});
  std::vector<int32_t> tokens;
  for (int32_t i = 0; i < 50; ++i) tokens.push_back(i * 29 % 96);
  const std::vector<float> logits = testing::all_logits(*model, tokens);
  testing::write_isa_result(
      {reinterpret_cast<const char*>(logits.data()), logits.size() * sizeof(float)});
}

void expect_same_bits(const std::filesystem::path& model) {
  testing::expect_same_result_on_every_isa(
      "IsaModel.logits_have_the_same_bits_on_every_instruction_set", {{kModel, model.string()}});
}

TEST(IsaModel, logits_have_the_same_bits_on_every_instruction_set) {
  if (testing::isa_child_output() != nullptr) {
    write_logits();
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

TEST(IsaModel, w8a8_logits_have_the_same_bits_on_every_instruction_set) {
  for (const char* name : {"llama-odd-sizes", "mistral"}) {
    const testing::W8A8Folder folder = testing::w8a8_folder(name);
    const testing::TemporaryFolder place;
    folder.write(place.path());
    expect_same_bits(place.path());
  }
}

}  // namespace
}  // namespace llmq::runtime
