#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <tuple>

#include "tests/convert/quant_fixture.h"

namespace llmq::test {
namespace {

namespace fs = std::filesystem;

class CliQuant : public QuantFixture {};

TEST_F(CliQuant, EveryTensorWrittenIsDescribedAndNoOther) {
  const fs::path out = quantize("out");
  std::vector<std::string> written;
  for (const RawTensor& tensor : read_all_tensors(out)) {
    written.push_back(tensor.name);
  }
  std::vector<std::string> described;
  const auto description = written_json(out, "quant_model_description.json");
  for (const auto& [key, value] : description.items()) {
    if (key.starts_with("model.") || key.starts_with("lm_head.")) {
      described.push_back(key);
    }
  }
  EXPECT_THAT(described, testing::UnorderedElementsAreArray(written));
  EXPECT_EQ(description.at("version"), "1.0.0");
  EXPECT_EQ(description.at("model_quant_type"), "W8A16");
  EXPECT_TRUE(fs::exists(out / "quant_model_weight_w8a16.safetensors"));
}

TEST_F(CliQuant, FloatTensorsKeepTheirBytes) {
  const fs::path out = quantize("out");
  auto written = read_all_tensors(out);
  const auto description = written_json(out, "quant_model_description.json");
  for (const RawTensor& source : tensors_) {
    if (description.at(source.name) == "FLOAT") {
      const RawTensor& copy = tensor_named(written, source.name);
      EXPECT_EQ(copy.dtype, source.dtype) << source.name;
      EXPECT_EQ(copy.shape, source.shape) << source.name;
      EXPECT_TRUE(copy.bytes == source.bytes) << source.name;
    }
  }
}

// Every weight lies within half a step of what its code stands for, (code - offset) * scale, except
// at the ends of the range: there the scale and the offset, rounded, may have left it out by the
// 2^-8 of a bfloat16 scale over the whole range and the half of a rounded offset.
void expect_nearest_codes(const RawTensor& source, std::vector<RawTensor>& written) {
  const std::string module = source.name.substr(0, source.name.rfind('.'));
  const RawTensor& scale_tensor = tensor_named(written, module + ".weight_scale");
  ASSERT_EQ(scale_tensor.dtype, "F32");
  ASSERT_EQ(scale_tensor.shape, (std::vector<int64_t>{source.shape[0], 1}));
  const auto weights = tensor_values(source);
  const auto codes = tensor_values(tensor_named(written, source.name));
  const auto scales = tensor_values(scale_tensor);
  const auto offsets = tensor_values(tensor_named(written, module + ".weight_offset"));
  ASSERT_EQ(offsets.size(), scales.size());
  const auto n_columns = static_cast<size_t>(source.shape[1]);
  for (size_t row = 0; row < scales.size(); ++row) {
    const auto begin = codes.begin() + static_cast<std::ptrdiff_t>(row * n_columns);
    const auto [low, high] = std::minmax_element(begin, begin + source.shape[1]);
    EXPECT_GE(*high - *low, offsets[row] == 0 ? 126 : 250) << module << " wastes the range";
    EXPECT_EQ(offsets[row], std::round(offsets[row])) << module << " row " << row;
    for (size_t i = row * n_columns; i < (row + 1) * n_columns; ++i) {
      const double represented = (double{codes[i]} - offsets[row]) * scales[row];
      const bool is_at_end = codes[i] == 127 || codes[i] <= -127;
      const double allowed_steps = is_at_end ? 0.5 + 0.5 + 255.0 / 256 : 0.5;
      EXPECT_LE(std::abs(weights[i] - represented), scales[row] * allowed_steps * (1 + 1e-6))
          << source.name << " element " << i;
    }
  }
}

TEST_F(CliQuant, W8A16CodesAreTheNearestGridPoints) {
  for (const std::string symmetric : {"True", "False"}) {
    SCOPED_TRACE("-w_sym " + symmetric);
    auto written =
        read_all_tensors(quantize("out" + symmetric, {"-type", "w8a16", "-w_sym", symmetric}));
    size_t n_quantized = 0;
    size_t n_offsets = 0;
    for (const RawTensor& source : tensors_) {
      if (tensor_named(written, source.name).dtype == "I8") {
        ++n_quantized;
        expect_nearest_codes(source, written);
        const std::string module = source.name.substr(0, source.name.rfind('.'));
        for (const float offset : tensor_values(tensor_named(written, module + ".weight_offset"))) {
          n_offsets += offset != 0 ? 1 : 0;
        }
      }
    }
    EXPECT_EQ(n_quantized, 14U) << "seven linears in each of two layers";
    EXPECT_EQ(n_offsets > 0, symmetric == "False");
  }
}

TEST_F(CliQuant, RowOfZerosGetsZeroCodesAndAUsableScale) {
  const std::string name = "model.layers.0.self_attn.q_proj.weight";
  std::string& bytes = tensor_named(tensors_, name).bytes;
  std::fill_n(bytes.begin() + 3 * 64 * 2, 64 * 2, '\0');
  rewrite_source();
  auto written = read_all_tensors(quantize("out"));
  const auto codes = tensor_values(tensor_named(written, name));
  EXPECT_TRUE(std::all_of(codes.begin() + 3 * 64, codes.begin() + 4 * 64,
                          [](float code) { return code == 0; }));
  const float scale =
      tensor_values(tensor_named(written, "model.layers.0.self_attn.q_proj.weight_scale"))[3];
  EXPECT_TRUE(std::isfinite(scale) && scale > 0) << scale;
}

TEST_F(CliQuant, PrintedRecipeGivesTheSameBytesWhenReadBack) {
  const auto reference = result_files(quantize("reference", {"-type", "qwen_w8a16"}));
  const CommandResult printed =
      run_llmq({"plan", "-src", source_, "-type", "qwen_w8a16", "--print-recipe"});
  ASSERT_EQ(printed.exit_code, 0) << printed.summary();
  write_file(folder_ / "recipe.json", printed.out);
  EXPECT_TRUE(result_files(quantize("out", {"--recipe", folder_ / "recipe.json"})) == reference);
}

// A pattern that names one linear of a fused group takes the others along: engines load the group
// as one matrix.
TEST_F(CliQuant, DisableNamesReplacesTheListAndPlusAddsToIt) {
  const auto scheme_of = [&](const fs::path& out, const std::string& module) -> std::string {
    return written_json(out, "quant_model_description.json")
        .at("model.layers.1." + module + ".weight");
  };
  const fs::path replaced =
      quantize("replaced", {"-type", "qwen_w8a16", "-disable_names", "*.q_proj"});
  EXPECT_EQ(scheme_of(replaced, "self_attn.q_proj"), "FLOAT");
  EXPECT_EQ(scheme_of(replaced, "self_attn.k_proj"), "FLOAT");
  EXPECT_EQ(scheme_of(replaced, "mlp.down_proj"), "W8A16");
  const fs::path added = quantize("added", {"-type", "qwen_w8a16", "-disable_names", "+*.q_proj"});
  EXPECT_EQ(scheme_of(added, "self_attn.q_proj"), "FLOAT");
  EXPECT_EQ(scheme_of(added, "self_attn.v_proj"), "FLOAT");
  EXPECT_EQ(scheme_of(added, "mlp.down_proj"), "FLOAT");
  EXPECT_EQ(scheme_of(added, "self_attn.o_proj"), "W8A16");
}

TEST_F(CliQuant, EmptyDestinationFolderIsUsed) {
  fs::create_directory(folder_ / "out");
  EXPECT_TRUE(fs::exists(quantize("out") / "quant_model_weight_w8a16.safetensors"));
}

TEST_F(CliQuant, ForceReplacesTheDestination) {
  const auto first = result_files(quantize("out"));
  write_file(folder_ / "out" / "stale.safetensors", "stale");
  const auto second = result_files(quantize("out", {"-type", "w8a16", "--force"}));
  EXPECT_TRUE(first == second) << "nothing of the old content stays";
}

TEST_F(CliQuant, NothingIsLeftBesideTheDestination) {
  std::ignore = quantize("out");
  EXPECT_THAT(folder_entries(folder_.path()), testing::ElementsAre("out", "source"));
}

TEST_F(CliQuant, DryRunWritesNothing) {
  std::ignore = quantize("out", {"-type", "w8a16", "--dry-run"});
  EXPECT_THAT(folder_entries(folder_.path()), testing::ElementsAre("source"));
}

TEST_F(CliQuant, JsonOutputIsOneDocument) {
  const CommandResult result =
      run_llmq({"quant", "-src", source_, "-dst", folder_ / "out", "-type", "w8a16", "--json"});
  EXPECT_EQ(result.exit_code, 0) << result.summary();
  EXPECT_TRUE(json_output(result).is_object());
}

TEST_F(CliQuant, EverySpellingOfOptionsGivesTheSameBytes) {
  const auto reference = result_files(quantize("reference"));
  const std::vector<std::vector<std::string>> spellings = {
      {"--src", source_, "--dst", folder_ / "a", "--type", "w8a16"},
      {"--model_path", source_, "--save_path", folder_ / "b", "--quant_type", "w8a16",
       "--model_type", "Another-7B", "--device", "npu", "--trust_remote_code", "True"},
      {"-model-path", source_, "-save-path", folder_ / "c", "-quant-type", "w8a16"},
      {"-src=" + source_.string(), "-dst=" + (folder_ / "d").string(), "-type=w8a16"},
      {"-src", source_, "-dst", folder_ / "e", "-type", "w8a16", "-device_type", "cpu",
       "-use_devices", "0,1", "-trust_remote_code"},
  };
  const std::vector<std::string> names = {"a", "b", "c", "d", "e"};
  for (size_t i = 0; i < names.size(); ++i) {
    std::vector<std::string> arguments = spellings[i];
    arguments.insert(arguments.begin(), "quant");
    const CommandResult result = run_llmq(arguments);
    EXPECT_EQ(result.exit_code, 0) << names[i] << ": " << result.summary();
    EXPECT_TRUE(result_files(folder_ / names[i]) == reference) << names[i];
  }
}

}  // namespace
}  // namespace llmq::test
