#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "tests/convert/checkpoint_writer.h"
#include "tests/convert/cli_runner.h"

namespace llmq::test {
namespace {

namespace fs = std::filesystem;
using testing::Contains;
using testing::HasSubstr;
using testing::Not;

// Which of the written files hold the result; the report also holds times and paths.
std::map<std::string, std::string> result_files(const fs::path& folder) {
  auto files = folder_contents(folder);
  std::erase_if(files, [](const auto& file) { return file.first.starts_with("llmq_report"); });
  return files;
}

class CliQuant : public testing::Test {
 protected:
  void SetUp() override { write_checkpoint(source_, config_, tensors_); }

  void rewrite_source() {
    fs::remove_all(source_);
    write_checkpoint(source_, config_, tensors_);
  }

  // Quantizes into a new folder of that name and expects success.
  fs::path quantize(const std::string& name, const std::string& type = "w8a16",
                    const std::vector<std::string>& more = {},
                    const std::map<std::string, std::string>& environment = {}) {
    const fs::path destination = folder_ / name;
    Command command = llmq_command({"quant", "-src", source_, "-dst", destination, "-type", type});
    command.argv.insert(command.argv.end(), more.begin(), more.end());
    command.environment = environment;
    const CommandResult result = run_command(command);
    EXPECT_EQ(result.exit_code, 0) << result.summary();
    return destination;
  }

  static OrderedJson written_json(const fs::path& folder, const std::string& name) {
    return OrderedJson::parse(read_file(folder / name));
  }

  TemporaryFolder folder_;
  fs::path source_ = folder_ / "source";
  OrderedJson config_ = tiny_qwen2_config();
  std::vector<RawTensor> tensors_ = tiny_qwen2_tensors();
};

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

// The distance of a weight from its grid point is at most half a step, unless the code is at the
// end of the range because the scale was rounded down to bfloat16 (by less than 2^-8).
TEST_F(CliQuant, W8A16CodesAreTheNearestGridPoints) {
  auto written = read_all_tensors(quantize("out"));
  size_t n_quantized = 0;
  for (const RawTensor& source : tensors_) {
    if (tensor_named(written, source.name).dtype != "I8") {
      continue;
    }
    ++n_quantized;
    const std::string module = source.name.substr(0, source.name.rfind('.'));
    const RawTensor& scale_tensor = tensor_named(written, module + ".weight_scale");
    const auto n_rows = static_cast<size_t>(source.shape[0]);
    const auto n_columns = static_cast<size_t>(source.shape[1]);
    ASSERT_EQ(scale_tensor.dtype, "F32");
    ASSERT_EQ(scale_tensor.shape, (std::vector<int64_t>{source.shape[0], 1}));
    const auto weights = tensor_values(source);
    const auto codes = tensor_values(tensor_named(written, source.name));
    const auto scales = tensor_values(scale_tensor);
    for (const float offset : tensor_values(tensor_named(written, module + ".weight_offset"))) {
      EXPECT_EQ(offset, 0.0F) << module;
    }
    for (size_t row = 0; row < n_rows; ++row) {
      double max_code = 0;
      for (size_t i = row * n_columns; i < (row + 1) * n_columns; ++i) {
        const double error = std::abs(weights[i] - double{codes[i]} * scales[row]);
        const double allowed = std::abs(codes[i]) == 127 ? 0.5 + 127.0 / 256 : 0.5;
        EXPECT_LE(error, scales[row] * allowed * (1 + 1e-6)) << source.name << " element " << i;
        max_code = std::max(max_code, std::abs(double{codes[i]}));
      }
      EXPECT_GE(max_code, 126) << source.name << " row " << row << " wastes the range";
      EXPECT_LE(max_code, 127) << source.name << " row " << row;
    }
  }
  EXPECT_GE(n_quantized, 8U) << "two layers with at least four linears each";
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

TEST_F(CliQuant, BytesDoNotDependOnThreads) {
  for (const std::string type : {"w8a16", "w4a16", "w8a8_dynamic"}) {
    const auto one = result_files(quantize(type + "-1", type, {"--threads", "1"}));
    const auto two = result_files(quantize(type + "-2", type, {"--threads", "2"}));
    EXPECT_FALSE(one.empty());
    EXPECT_TRUE(one == two) << type;
  }
}

TEST_F(CliQuant, BytesDoNotDependOnInstructionSet) {
  const auto scalar = result_files(quantize("scalar", "w8a16", {}, {{"LLMQ_ISA", "scalar"}}));
  for (const std::string isa : {"avx2", "avxvnni", "avx512vnni", "amx"}) {
    Command command =
        llmq_command({"quant", "-src", source_, "-dst", folder_ / isa, "-type", "w8a16"});
    command.environment = {{"LLMQ_ISA", isa}};
    const CommandResult result = run_command(command);
    if (result.exit_code != 0) {
      EXPECT_NE(result.exit_code, 70) << result.summary();
      EXPECT_THAT(result.err, HasSubstr(isa)) << "a refusal names the instruction set";
      EXPECT_FALSE(isa == "avx2" && __builtin_cpu_supports("avx2")) << result.summary();
      continue;
    }
    EXPECT_TRUE(result_files(folder_ / isa) == scalar) << isa;
  }
}

TEST_F(CliQuant, UnknownInstructionSetIsRefused) {
  Command command =
      llmq_command({"quant", "-src", source_, "-dst", folder_ / "out", "-type", "w8a16"});
  command.environment = {{"LLMQ_ISA", "mmx"}};
  const CommandResult result = run_command(command);
  EXPECT_EQ(result.exit_code, 2) << result.summary();
  EXPECT_THAT(result.err, HasSubstr("mmx"));
  EXPECT_FALSE(fs::exists(folder_ / "out"));
}

TEST_F(CliQuant, ShardedSourceGivesTheSameBytes) {
  const auto single = result_files(quantize("single"));
  fs::remove_all(source_);
  write_sharded_checkpoint(source_, config_, tensors_, 10);
  const auto sharded = result_files(quantize("sharded"));
  EXPECT_TRUE(single == sharded);
  EXPECT_FALSE(sharded.contains("model.safetensors.index.json")) << "the float index is no use";
}

TEST_F(CliQuant, OrderOfTensorsInTheSourceDoesNotMatter) {
  const auto forward = result_files(quantize("forward"));
  std::reverse(tensors_.begin(), tensors_.end());
  rewrite_source();
  EXPECT_TRUE(forward == result_files(quantize("backward")));
}

TEST_F(CliQuant, SplitOutputHoldsTheSameTensorsAndARightIndex) {
  const auto whole = read_all_tensors(quantize("whole"));
  const fs::path split = quantize("split", "w8a16", {"-part_file_size", "0.00005"});
  const auto parts = read_all_tensors(split);
  const auto index = written_json(split, "quant_model_weight_w8a16.safetensors.index.json");
  ASSERT_EQ(parts.size(), whole.size());
  uint64_t total_size = 0;
  for (size_t i = 0; i < parts.size(); ++i) {
    EXPECT_EQ(parts[i].name, whole[i].name);
    EXPECT_TRUE(parts[i].bytes == whole[i].bytes) << parts[i].name;
    total_size += parts[i].bytes.size();
    const std::string file = index.at("weight_map").at(parts[i].name);
    auto stored = read_safetensors(split / file);
    EXPECT_NO_THROW(tensor_named(stored, parts[i].name));
  }
  EXPECT_EQ(index.at("metadata").at("total_size"), total_size);
  EXPECT_EQ(index.at("weight_map").size(), parts.size());
  EXPECT_TRUE(std::any_of(
      index.at("weight_map").begin(), index.at("weight_map").end(), [](const auto& file) {
        return file.template get<std::string>().starts_with("quant_model_weight_w8a16-00002-of-");
      }));
}

// --- tied heads
// -------------------------------------------------------------------------------------

TEST_F(CliQuant, TiedHeadComesOutTheSameUnderWhicheverNameItIsStored) {
  const std::string embedding = "model.embed_tokens.weight";
  config_["tie_word_embeddings"] = true;
  tensor_named(tensors_, "lm_head.weight").bytes = tensor_named(tensors_, embedding).bytes;
  const auto both = tensors_;
  const auto without = [&](const std::string& name) {
    auto tensors = both;
    std::erase_if(tensors, [&](const RawTensor& tensor) { return tensor.name == name; });
    return tensors;
  };
  std::vector<std::map<std::string, std::string>> results;
  for (const auto& tensors : {both, without("lm_head.weight"), without(embedding)}) {
    tensors_ = tensors;
    rewrite_source();
    const fs::path out = quantize("out" + std::to_string(results.size()));
    auto written = read_all_tensors(out);
    EXPECT_TRUE(tensor_named(written, "lm_head.weight").bytes ==
                tensor_named(written, embedding).bytes);
    results.push_back(result_files(out));
  }
  EXPECT_TRUE(results[0] == results[1]) << "stored as the embedding only";
  EXPECT_TRUE(results[0] == results[2]) << "stored as the head only";
}

TEST_F(CliQuant, KeepTiedDoesNotCloneTheHead) {
  config_["tie_word_embeddings"] = true;
  std::erase_if(tensors_, [](const RawTensor& tensor) { return tensor.name == "lm_head.weight"; });
  rewrite_source();
  for (const RawTensor& tensor : read_all_tensors(quantize("out", "w8a16", {"--keep-tied"}))) {
    EXPECT_NE(tensor.name, "lm_head.weight");
  }
}

// --- config.json
// ------------------------------------------------------------------------------------

TEST_F(CliQuant, ConfigKeepsUnknownKeysAndTheirOrder) {
  OrderedJson config = {{"zeta_extra", {{"b", 1}, {"a", {1.5, "x", nullptr}}}}};
  config.update(config_);
  config["alpha_extra"] = "ünïcode";
  config["hidden_extra"] = false;
  config_ = config;
  rewrite_source();
  const auto written = written_json(quantize("out"), "config.json");
  std::vector<std::string> source_keys;
  std::vector<std::string> kept_keys;
  for (const auto& [key, value] : config_.items()) {
    source_keys.push_back(key);
  }
  for (const auto& [key, value] : written.items()) {
    if (config_.contains(key)) {
      kept_keys.push_back(key);
      EXPECT_EQ(value.dump(), config_.at(key).dump()) << key;
    }
  }
  EXPECT_EQ(kept_keys, source_keys);
  EXPECT_EQ(written.at("quantize"), "w8a16");
  EXPECT_EQ(written.at("torch_dtype"), "bfloat16");
  EXPECT_TRUE(written.contains("quantization_config"));
}

TEST_F(CliQuant, HeadDimMayBeMissing) {
  const auto missing = quantize("missing");
  config_["head_dim"] = 16;
  rewrite_source();
  const auto given = quantize("given");
  EXPECT_TRUE(read_all_tensors(missing).size() == read_all_tensors(given).size());
  EXPECT_TRUE(read_file(missing / "quant_model_weight_w8a16.safetensors") ==
              read_file(given / "quant_model_weight_w8a16.safetensors"));
}

TEST_F(CliQuant, RopeScalingIsKeptInEitherSpelling) {
  for (const std::string key : {"type", "rope_type"}) {
    config_["rope_scaling"] = {
        {key, "yarn"}, {"factor", 4.0}, {"original_max_position_embeddings", 64}};
    rewrite_source();
    const auto written = written_json(quantize("out-" + key), "config.json");
    EXPECT_EQ(written.at("rope_scaling").dump(), config_.at("rope_scaling").dump());
  }
}

TEST_F(CliQuant, DtypeKeyWorksAloneAndBesideTorchDtype) {
  const auto reference = read_file(quantize("torch") / "quant_model_weight_w8a16.safetensors");
  config_["dtype"] = "bfloat16";
  rewrite_source();
  const fs::path both = quantize("both");
  config_.erase("torch_dtype");
  rewrite_source();
  const fs::path alone = quantize("alone");
  for (const fs::path& out : {both, alone}) {
    EXPECT_TRUE(read_file(out / "quant_model_weight_w8a16.safetensors") == reference);
    EXPECT_EQ(written_json(out, "config.json").at("torch_dtype"), "bfloat16");
  }
}

TEST_F(CliQuant, TokenizerFilesComeAlong) {
  const std::vector<std::string> names = {
      "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.json",
      "merges.txt",     "generation_config.json"};
  for (const std::string& name : names) {
    write_file(source_ / name, "{\"name\": \"" + name + "\"}");
  }
  const auto files = folder_contents(quantize("out"));
  for (const std::string& name : names) {
    ASSERT_TRUE(files.contains(name)) << name;
    EXPECT_EQ(files.at(name), "{\"name\": \"" + name + "\"}");
  }
}

// --- destination and output
// -------------------------------------------------------------------------

TEST_F(CliQuant, EmptyDestinationFolderIsUsed) {
  fs::create_directory(folder_ / "out");
  EXPECT_TRUE(fs::exists(quantize("out") / "quant_model_weight_w8a16.safetensors"));
}

TEST_F(CliQuant, ForceReplacesTheDestination) {
  const auto first = result_files(quantize("out"));
  write_file(folder_ / "out" / "stale.safetensors", "stale");
  const auto second = result_files(quantize("out", "w8a16", {"--force"}));
  EXPECT_TRUE(first == second) << "nothing of the old content stays";
}

TEST_F(CliQuant, NothingIsLeftBesideTheDestination) {
  quantize("out");
  EXPECT_THAT(folder_entries(folder_.path()), testing::ElementsAre("out", "source"));
}

TEST_F(CliQuant, DryRunWritesNothing) {
  quantize("out", "w8a16", {"--dry-run"});
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
       "--model_type", "Qwen2.5-7B", "--device", "npu", "--trust_remote_code", "True"},
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

// --- verify
// -----------------------------------------------------------------------------------------

TEST_F(CliQuant, VerifyAcceptsWhatQuantWrote) {
  for (const std::string type : {"w8a16", "w4a16", "w8a8_dynamic"}) {
    const fs::path out = quantize(type, type);
    const CommandResult result = run_llmq({"verify", out, "--source", source_, "--json"});
    EXPECT_EQ(result.exit_code, 0) << type << ": " << result.summary();
    for (const auto& rule : json_output(result).at("rules")) {
      EXPECT_TRUE(rule.at("ok").get<bool>()) << type << ": " << rule.dump();
    }
  }
}

TEST_F(CliQuant, VerifyNamesWhatIsWrong) {
  const fs::path out = quantize("out");
  const fs::path path = out / "quant_model_description.json";
  auto description = OrderedJson::parse(read_file(path));
  description.erase("model.layers.1.self_attn.k_proj.weight_scale");
  fs::permissions(path, fs::perms::owner_write, fs::perm_options::add);
  write_file(path, description.dump());
  const CommandResult result = run_llmq({"verify", out});
  EXPECT_EQ(result.exit_code, 6) << result.summary();
  EXPECT_THAT(result.out + result.err, HasSubstr("model.layers.1.self_attn.k_proj.weight_scale"));
}

}  // namespace
}  // namespace llmq::test
