#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "quant/kernels/cpu.h"
#include "tests/convert/sparse_fixture.h"

namespace llmq::test {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

constexpr int kBadUsage = 2;
constexpr int kBadInput = 3;
constexpr int kIo = 4;

class CliSparseCompress : public SparseFixture {
 protected:
  /// Whether `merge` of the split folder is the W8A8S folder: every tensor in its file.
  void expect_merge(const fs::path& split) const {
    const fs::path merged = folder_ / "merged";
    const CommandResult result = run_llmq({"merge", split, merged});
    ASSERT_EQ(result.exit_code, 0) << result.summary();
    EXPECT_TRUE(read_all_tensors(merged) == read_all_tensors(sparse_));
    fs::remove_all(merged);
  }

  void expect_refusal(const CommandResult& result, int exit_code, const std::string& words) const {
    EXPECT_EQ(result.exit_code, exit_code) << result.summary();
    EXPECT_THAT(result.err, HasSubstr(words));
    EXPECT_FALSE(fs::exists(folder_ / "refused"));
    EXPECT_FALSE(fs::exists(folder_ / ".refused.llmq-partial"));
  }

  CommandResult try_compress(const fs::path& from, int tp,
                             const std::vector<std::string>& options = {}) const {
    return run_command(compress_command(from, folder_ / "refused", tp, options));
  }
};

TEST_F(CliSparseCompress, DecompressionGivesTheSplitFolderAndMergeTheOriginal) {
  for (const std::string codec : {"rans", "deflate"}) {
    for (const int tp : {1, 2, 4}) {
      SCOPED_TRACE(codec + " tp " + std::to_string(tp));
      const fs::path split = folder_ / "split";
      const fs::path compressed =
          compress("compressed", tp, {"--codec", codec, "--save_split_w8a8s_dir", split});
      const fs::path restored = folder_ / "restored";
      const CommandResult result = decompress(compressed, restored);
      ASSERT_EQ(result.exit_code, 0) << result.summary();
      EXPECT_TRUE(folder_contents(restored) == folder_contents(split));
      expect_merge(restored);
      for (const fs::path& folder : {split, compressed, restored}) fs::remove_all(folder);
    }
  }
}

TEST_F(CliSparseCompress, PartsOfMindIeAreCompressedUnlessAnotherLayoutIsAskedFor) {
  const fs::path compressed = folder_ / "mindie";
  const CommandResult result = run_llmq(
      {"sparse-compress", "--tp", "2", "--model_path", sparse_, "--save_directory", compressed});
  ASSERT_EQ(result.exit_code, 0) << result.summary();
  std::vector<RawTensor> tensors = read_all_tensors(compressed / "part1-of-2");
  for (const std::string module : {"attn.c_attn", "attn.c_proj", "mlp.w2_w1", "mlp.c_proj"}) {
    for (const std::string suffix : {".weight", ".index", ".info"})
      EXPECT_EQ(tensor_named(tensors, "transformer.h.0." + module + suffix).shape.size(), 1U);
  }
  EXPECT_EQ(run_llmq({"verify", compressed}).exit_code, 0);
  const fs::path restored = folder_ / "restored";
  ASSERT_EQ(decompress(compressed, restored).exit_code, 0);
  expect_merge(restored);
}

TEST_F(CliSparseCompress, AWeightInSeveralFilesKeepsThem) {
  std::vector<std::string> options = sparse_options_;
  options.insert(options.end(), {"-part_file_size", "0.00005"});
  sparse_ = quantize("in-parts", options);
  const fs::path split = folder_ / "split";
  const fs::path compressed = compress("compressed", 2, {"--save_split_w8a8s_dir", split});
  ASSERT_TRUE(fs::exists(part(compressed, 0) / "quant_model_weight_w8a8sc.safetensors.index.json"));
  const OrderedJson index =
      written_json(part(compressed, 0), "quant_model_weight_w8a8sc.safetensors.index.json");
  for (const RawTensor& tensor : read_all_tensors(part(compressed, 0))) {
    const std::string file = index.at("weight_map").at(tensor.name);
    EXPECT_THAT(file, HasSubstr("w8a8sc-0"));
    EXPECT_TRUE(fs::exists(part(compressed, 0) / file)) << file;
  }
  ASSERT_EQ(decompress(compressed, folder_ / "restored").exit_code, 0);
  EXPECT_TRUE(folder_contents(folder_ / "restored") == folder_contents(split));
}

TEST_F(CliSparseCompress, NothingButTheDestinationIsLeftBehind) {
  const auto source_before = folder_contents(sparse_);
  const auto entries_before = folder_entries(folder_.path());
  const auto kept =
      folder_contents(compress("kept", 2, {"--save_split_w8a8s_dir", folder_ / "split"}));
  const auto alone = folder_contents(compress("alone", 2));
  EXPECT_TRUE(kept == alone) << "whether the split folder is kept does not show in the result";
  EXPECT_TRUE(folder_contents(sparse_) == source_before);
  auto entries = folder_entries(folder_.path());
  for (const std::string name : {"kept", "alone", "split"}) std::erase(entries, name);
  EXPECT_EQ(entries, entries_before);
  for (const auto& [name, bytes] : alone) EXPECT_THAT(name, testing::Not(HasSubstr("journal")));
}

TEST_F(CliSparseCompress, PartsSayWhatTheyAre) {
  const fs::path compressed = compress("compressed", 2);
  const OrderedJson config = written_json(compressed, "config.json");
  EXPECT_EQ(config.at("quantize"), "w8a8sc");
  EXPECT_EQ(config.at("torch_dtype"), "float16");
  EXPECT_EQ(read_file(compressed / "tokenizer.json"), read_file(sparse_ / "tokenizer.json"));
  const OrderedJson before = written_json(sparse_, kDescription);
  for (const int rank : {0, 1}) {
    const OrderedJson description = written_json(part(compressed, rank), kDescription);
    EXPECT_EQ(description.at("model_quant_type"), "W8A8SC");
    EXPECT_EQ(description.at("w8a8sc_codec"), "rans-1");
    EXPECT_EQ(description.at("version"), before.at("version"));
    size_t n_compressed = 0;
    for (const RawTensor& tensor : read_all_tensors(part(compressed, rank))) {
      const std::string tag = description.at(tensor.name);
      const std::string module = tensor.name.substr(0, tensor.name.rfind('.'));
      const std::string suffix = tensor.name.substr(module.size());
      const bool is_compressed = before.at(module + ".weight") == "W8A8S" &&
                                 (suffix == ".weight" || suffix == ".index" || suffix == ".info");
      EXPECT_EQ(tag, is_compressed ? OrderedJson("W8A8SC") : before.at(tensor.name)) << tensor.name;
      n_compressed += is_compressed ? 1 : 0;
    }
    EXPECT_EQ(n_compressed, 3U * (2 * 7 + 1)) << "seven linears in each of two layers, the head";
  }
}

TEST_F(CliSparseCompress, OtherTensorsKeepTheirBytes) {
  const fs::path split = folder_ / "split";
  const fs::path compressed = compress("compressed", 2, {"--save_split_w8a8s_dir", split});
  std::vector<RawTensor> after = read_all_tensors(part(compressed, 1));
  size_t n_kept = 0;
  for (const RawTensor& tensor : read_all_tensors(part(split, 1))) {
    if (tensor.dtype == "I8" && tensor.shape.size() == 2) continue;
    EXPECT_TRUE(tensor_named(after, tensor.name) == tensor) << tensor.name;
    ++n_kept;
  }
  EXPECT_GT(n_kept, 40U);
}

TEST_F(CliSparseCompress, ThreadsAndInstructionSetsDoNotChangeTheBytes) {
  const auto first = folder_contents(compress("one", 2, {"--multiprocess_num", "1"}));
  EXPECT_TRUE(folder_contents(compress("two", 2, {"--multiprocess_num", "2"})) == first);
  EXPECT_TRUE(folder_contents(compress("three", 2, {"--threads", "3"})) == first);
  for (const quant::Isa isa : quant::supported_isas()) {
    const std::string name(quant::isa_name(isa));
    Command command = compress_command(sparse_, folder_ / name, 2);
    command.environment["LLMQ_ISA"] = name;
    const CommandResult result = run_command(command);
    EXPECT_EQ(result.exit_code, 0) << result.summary();
    EXPECT_TRUE(folder_contents(folder_ / name) == first) << name;
  }
}

TEST_F(CliSparseCompress, TheReportCountsBytesAndEntropy) {
  const fs::path split = folder_ / "split";
  const CommandResult result = run_command(
      compress_command(sparse_, folder_ / "compressed", 2, {"--save_split_w8a8s_dir", split}));
  const OrderedJson report = json_output(result);
  uint64_t int8_bytes = 0;
  double information_bits = 0.0;
  uint64_t stored_bytes = 0;
  for (const int rank : {0, 1}) {
    const fs::path shard = part(split, rank);
    for (const RawTensor& tensor : read_all_tensors(shard)) {
      if (tensor.dtype != "I8" || tensor.shape.size() != 2) continue;
      std::array<double, 256> counts{};
      for (const char code : tensor.bytes) counts[static_cast<unsigned char>(code)] += 1.0;
      const auto n = static_cast<double>(tensor.bytes.size());
      for (const double count : counts)
        information_bits -= count > 0.0 ? count * std::log2(count / n) : 0.0;
      int8_bytes += tensor.bytes.size();
      for (const std::string suffix : {".weight", ".index", ".info"}) {
        std::vector<RawTensor> after = read_all_tensors(part(folder_ / "compressed", rank));
        const std::string module = tensor.name.substr(0, tensor.name.rfind('.'));
        stored_bytes += tensor_named(after, module + suffix).bytes.size();
      }
    }
  }
  EXPECT_EQ(report.at("int8_bytes"), int8_bytes);
  EXPECT_EQ(report.at("compressed_bytes"), stored_bytes);
  const auto n_codes = static_cast<double>(int8_bytes);
  // Sums of some hundred terms in another order.
  EXPECT_NEAR(report.at("entropy_bits").get<double>(), information_bits / n_codes, 1e-12 * 8 * 512);
  EXPECT_DOUBLE_EQ(report.at("bits_per_weight").get<double>(),
                   8.0 * static_cast<double>(stored_bytes) / n_codes);
  EXPECT_DOUBLE_EQ(report.at("ratio").get<double>(), static_cast<double>(stored_bytes) / n_codes);
  EXPECT_GT(report.at("coded_bytes_per_second").get<double>(), 0.0);
  EXPECT_EQ(report.at("matrices"), 2 * (2 * 7 + 1));
}

TEST_F(CliSparseCompress, SourcesOfAnotherKindAreRefused) {
  expect_refusal(try_compress(source_, 2), kBadInput, "is no W8A8S folder, it has no quant_model");
  const fs::path other = quantize("other", {"-type", "w8a16"});
  expect_refusal(try_compress(other, 2), kBadInput, "W8A16 and no weight is tagged W8A8S");
  const fs::path compressed = compress("compressed", 2);
  expect_refusal(try_compress(compressed, 2), kBadInput, "is compressed already; --decompress");
  expect_refusal(try_compress(part(compressed, 0), 2), kBadInput, "is compressed already");
  expect_refusal(run_llmq({"merge", compressed, folder_ / "refused"}), kBadInput,
                 "is compressed; restore its shards");
  ASSERT_EQ(decompress(compressed, folder_ / "split").exit_code, 0);
  expect_refusal(try_compress(folder_ / "split", 2), kBadInput, "is cut for ranks already");
  OrderedJson config = written_json(sparse_, "config.json");
  config["torch_dtype"] = "bfloat16";
  write_file(sparse_ / "config.json", config.dump());
  expect_refusal(try_compress(sparse_, 2), kBadInput, "torch_dtype is bfloat16");
  expect_refusal(try_compress(folder_ / "nowhere", 2), kBadInput, "nowhere");
  expect_refusal(decompress(source_, folder_ / "refused"), kBadInput, "has no llmq_w8a8sc.json");
}

TEST_F(CliSparseCompress, TpSizesThatCannotBeAreListedBeforeAnythingIsWritten) {
  expect_refusal(try_compress(sparse_, 3), kBadInput, "legal TP sizes are 1, 2, 4");
  expect_refusal(try_compress(sparse_, 0), kBadUsage, "--tp");
}

TEST_F(CliSparseCompress, PaddingIsOfferedAndComesOffAgain) {
  config_["vocab_size"] = kVocabulary;  // odd
  write_file(folder_ / "config.json", config_.dump());
  make_source(1);
  sparse_ = quantize("odd", sparse_options_);
  expect_refusal(try_compress(sparse_, 2), kBadInput, "--pad");
  const fs::path padded = compress("padded", 2, {"--pad"});
  ASSERT_EQ(decompress(padded, folder_ / "split").exit_code, 0);
  expect_merge(folder_ / "split");
}

TEST_F(CliSparseCompress, OptionsThatMakeNoSenseAreRefused) {
  expect_refusal(try_compress(sparse_, 2, {"--codec", "zip"}), kBadUsage,
                 "the codecs are rans and deflate");
  expect_refusal(try_compress(sparse_, 2, {"--layout", "flat"}), kBadUsage, "--layout: unknown");
  expect_refusal(try_compress(sparse_, 2, {"--multiprocess_num", "0"}), kBadUsage,
                 "--multiprocess-num");
  expect_refusal(run_llmq({"sparse-compress", "--model_path", sparse_, "--save_directory",
                           folder_ / "refused"}),
                 kBadUsage, "--tp is needed");
  expect_refusal(try_compress(sparse_, 2, {"--decompress"}), kBadUsage, "--decompress takes");
  expect_refusal(try_compress(sparse_, 2, {"--save_split_w8a8s_dir", folder_ / "refused/split"}),
                 kBadInput, "contains");
}

TEST_F(CliSparseCompress, AFullDiskEndsWithoutADestination) {
  Command command = compress_command(sparse_, folder_ / "refused", 2);
  command.max_file_bytes = 64 << 10;
  expect_refusal(run_command(command), kIo, "");
}

TEST_F(CliSparseCompress, AnExistingDestinationIsReplacedByForceAlone) {
  const fs::path compressed = compress("compressed", 2);
  const CommandResult refused = run_command(compress_command(sparse_, compressed, 1));
  EXPECT_EQ(refused.exit_code, kBadInput) << refused.summary();
  EXPECT_THAT(refused.err, HasSubstr("is not empty"));
  EXPECT_TRUE(fs::exists(part(compressed, 1)));
  EXPECT_EQ(run_command(compress_command(sparse_, compressed, 1, {"--force"})).exit_code, 0);
  EXPECT_FALSE(fs::exists(part(compressed, 1)));
}

TEST_F(CliSparseCompress, VerifyAndInspectKnowParts) {
  const fs::path compressed = compress("compressed", 2);
  const std::vector<std::string> rules{
      "description-covers-tensors", "scheme-tensors", "codec-marked",
      "compressed-container",       "tile-checksums", "config-coherent",
      "shards-of-one-run"};
  for (const fs::path& folder : {compressed, part(compressed, 1)}) {
    const CommandResult result = run_llmq({"verify", folder, "--json"});
    EXPECT_EQ(result.exit_code, 0) << result.summary();
    std::vector<std::string> names;
    const OrderedJson document = json_output(result);
    for (const OrderedJson& rule : document.at("rules")) {
      EXPECT_TRUE(rule.at("ok")) << rule.dump();
      names.push_back(rule.at("name"));
    }
    EXPECT_EQ(names, rules);
  }
  const std::string name = "model.layers.0.mlp.up_proj.weight";
  const OrderedJson listed = json_output(run_llmq({"inspect", compressed, "--stats", "--json"}));
  std::vector<RawTensor> whole = read_all_tensors(sparse_);
  const std::vector<float> codes = tensor_values(tensor_named(whole, name));
  size_t n_found = 0;
  for (const OrderedJson& tensor : listed.at("tensors")) {
    if (tensor.at("name") != "rank-1/" + name) continue;
    ++n_found;
    EXPECT_EQ(tensor.at("compressed").at("shape"), OrderedJson({160, 64}));
    EXPECT_EQ(tensor.at("compressed").at("codec"), "rans");
    EXPECT_EQ(tensor.at("compressed").at("tiles"), 2);
    const auto second_half = codes.begin() + static_cast<std::ptrdiff_t>(codes.size() / 2);
    EXPECT_EQ(tensor.at("statistics").at("max"), *std::max_element(second_half, codes.end()));
    EXPECT_EQ(tensor.at("statistics").at("min"), *std::min_element(second_half, codes.end()));
  }
  EXPECT_EQ(n_found, 1U);
}

}  // namespace
}  // namespace llmq::test
