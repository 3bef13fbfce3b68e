#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <bit>
#include <cstring>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "formats/float16.h"
#include "tests/convert/quant_fixture.h"

namespace llmq::test {

/// Elements of type T of a tensor's bytes.
template <typename T>
std::vector<T> elements_of(const RawTensor& tensor) {
  std::vector<T> values(tensor.bytes.size() / sizeof(T));
  std::memcpy(values.data(), tensor.bytes.data(), values.size() * sizeof(T));
  return values;
}

/// Values of an F32, F16, BF16 or I8 tensor.
inline std::vector<float> float_values(const RawTensor& tensor) {
  if (tensor.dtype != "F16") return tensor_values(tensor);
  std::vector<float> values;
  for (const uint16_t bits : elements_of<uint16_t>(tensor))
    values.push_back(formats::fp16_to_float(bits));
  return values;
}

/// A Qwen2 checkpoint with a tokenizer, small texts to calibrate on, and means to read the result.
class CalibratedFixture : public QuantFixture {
 protected:
  void SetUp() override {
    give_vocabulary();
    write_source();
    write_file(texts_,
               "{\"prompt\": \"What is a number? The model answers in words.\"}\n"
               "{\"inputs_pretokenized\": \"The same text is quantized into the wrong number\"}\n"
               "{\"prompt\": \"Eight weights and 1029 scales; 4090 letters, [0, 2]\"}\n");
  }

  /// As many ids as the tokenizer has.
  void give_vocabulary() {
    config_["vocab_size"] = kVocabulary;
    for (const std::string name : {"model.embed_tokens.weight", "lm_head.weight"}) {
      RawTensor& tensor = tensor_named(tensors_, name);
      const std::string rows = tensor.bytes;
      tensor.shape[0] = kVocabulary;
      const auto size = static_cast<size_t>(kVocabulary) * 64 * 2;
      while (tensor.bytes.size() < size) tensor.bytes += rows;
      tensor.bytes.resize(size);
    }
  }

  /// Writes the source anew, with the tokenizer.
  void write_source() {
    rewrite_source();
    std::filesystem::copy_file(golden_tokenizer(), source_ / "tokenizer.json");
  }

  static std::filesystem::path golden_tokenizer() {
    return std::filesystem::path(LLMQ_TEST_SOURCE_DIR) /
           "runtime/tokenizer/goldens/small_byte_level.json";
  }

  /// Stores every tensor of the source in this dtype ("F16", "F32"); the values are bfloat16's.
  void store_as(const std::string& dtype, const std::string& torch_dtype) {
    for (RawTensor& tensor : tensors_) {
      std::string bytes;
      for (const float value : tensor_values(tensor)) {
        const uint32_t bits =
            dtype == "F16" ? formats::float_to_fp16(value) : std::bit_cast<uint32_t>(value);
        bytes.append(reinterpret_cast<const char*>(&bits), dtype == "F16" ? 2 : 4);
      }
      tensor.dtype = dtype;
      tensor.bytes = std::move(bytes);
    }
    config_["torch_dtype"] = torch_dtype;
    write_source();
  }

  /// Sets one element of a BF16 tensor of the source.
  void set_source(const std::string& name, size_t element, float value) {
    const uint16_t bits = formats::float_to_bf16(value);
    std::memcpy(tensor_named(tensors_, name).bytes.data() + 2 * element, &bits, 2);
  }

  /// `quant -type w8a8` on the small texts, which are quicker than the built-in ones.
  [[nodiscard]] std::filesystem::path calibrate(
      const std::string& name, const std::vector<std::string>& options = {},
      const std::map<std::string, std::string>& environment = {}) const {
    std::vector<std::string> all = {"-type", "w8a8", "-calib", texts_};
    all.insert(all.end(), options.begin(), options.end());
    return quantize(name, all, environment);
  }

  /// The same command, of which anything may come.
  [[nodiscard]] CommandResult try_quant(const std::vector<std::string>& options) const {
    Command command = llmq_command({"quant", "-src", source_, "-dst", folder_ / "refused"});
    command.argv.insert(command.argv.end(), options.begin(), options.end());
    return run_command(command);
  }

  /// Expects that the command is refused with this code and words, and leaves nothing behind.
  void expect_refusal(const std::vector<std::string>& options, int exit_code,
                      const std::string& words) const {
    SCOPED_TRACE(testing::PrintToString(options));
    const auto before = folder_entries(folder_.path());
    const CommandResult result = try_quant(options);
    EXPECT_EQ(result.exit_code, exit_code) << result.summary();
    EXPECT_THAT(result.err, testing::HasSubstr(words));
    EXPECT_EQ(folder_entries(folder_.path()), before) << "no destination, no staging folder";
  }

  static OrderedJson report_of(const std::filesystem::path& folder) {
    return written_json(folder, "llmq_report.json");
  }

  /// What the report says about a tensor of the source.
  static OrderedJson reported(const std::filesystem::path& folder, const std::string& name) {
    const OrderedJson report = report_of(folder);
    for (const OrderedJson& tensor : report.at("tensors")) {
      if (tensor.at("name") == name) return tensor;
    }
    ADD_FAILURE() << "the report has no tensor " << name;
    return nullptr;
  }

  static constexpr int64_t kVocabulary = 459;
  std::filesystem::path texts_ = folder_ / "texts.jsonl";
};

}  // namespace llmq::test
