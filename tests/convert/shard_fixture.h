#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "convert/shard/shard_folder.h"
#include "formats/engine_names.h"
#include "formats/error.h"
#include "tests/convert/calibrated_fixture.h"

namespace llmq::test {

inline constexpr int kBadUsage = 2;
inline constexpr int kBadInput = 3;

/// Folders of every kind, cut for ranks and put together again.
class ShardFixture : public CalibratedFixture {
 protected:
  /// A vocabulary that ranks can divide.
  void SetUp() override {
    CalibratedFixture::SetUp();
    for (const std::string name : {"model.embed_tokens.weight", "lm_head.weight"}) {
      RawTensor& tensor = tensor_named(tensors_, name);
      tensor.bytes += tensor.bytes.substr(0, static_cast<size_t>(464 - kVocabulary) * 64 * 2);
      tensor.shape[0] = 464;
    }
    config_["vocab_size"] = 464;
    write_source();
  }

  /// Makes the source a random model of this golden model's configuration.
  void take(const std::string& golden, const OrderedJson& changes = OrderedJson::object()) {
    config_ = OrderedJson::parse(
        read_file(std::filesystem::path(LLMQ_TEST_SOURCE_DIR) / "golden" / golden / "config.json"));
    config_["vocab_size"] = 464;
    config_.update(changes);
    write_file(folder_ / "config.json", config_.dump());
    std::filesystem::remove_all(source_);
    Command make;
    make.argv = {LLMQ_MAKE_CHECKPOINT, "--config", folder_ / "config.json", "--out", source_};
    ASSERT_EQ(run_command(make).exit_code, 0);
    std::filesystem::copy_file(golden_tokenizer(), source_ / "tokenizer.json");
  }

  [[nodiscard]] static CommandResult try_shard(const std::filesystem::path& from,
                                               const std::filesystem::path& to, int tp,
                                               const std::vector<std::string>& options = {}) {
    Command command = llmq_command({"shard", "--tp", std::to_string(tp), from, to, "--json"});
    command.argv.insert(command.argv.end(), options.begin(), options.end());
    return run_command(command);
  }

  /// Cuts into a folder of its own and expects success.
  [[nodiscard]] std::filesystem::path shard(const std::filesystem::path& from, int tp,
                                            const std::vector<std::string>& options = {}) const {
    std::filesystem::path to = folder_ / (from.filename().string() + "-tp" + std::to_string(tp));
    const CommandResult result = try_shard(from, to, tp, options);
    EXPECT_EQ(result.exit_code, 0) << result.summary();
    return to;
  }

  /// Whether `merge` of the shards is the folder that they were made of: every tensor in its file,
  /// and all other files byte by byte.
  void expect_merge(const std::filesystem::path& shards,
                    const std::filesystem::path& original) const {
    SCOPED_TRACE(shards.filename().string());
    const std::filesystem::path merged = folder_ / (shards.filename().string() + "-merged");
    convert::Console console(true, convert::LogLevel::kQuiet);
    convert::run_merge_job({shards, merged}, console);
    auto wanted = folder_contents(original);
    auto found = folder_contents(merged);
    const auto names_of = [](const std::map<std::string, std::string>& files) {
      std::set<std::string> names;
      for (const auto& [name, bytes] : files) names.insert(name);
      return names;
    };
    EXPECT_EQ(names_of(found), names_of(wanted));
    for (const auto& [name, bytes] : wanted) {
      if (name.ends_with(".safetensors")) {
        EXPECT_TRUE(read_safetensors(merged / name) == read_safetensors(original / name)) << name;
      } else {
        EXPECT_TRUE(found[name] == bytes) << name;
      }
    }
    std::filesystem::remove_all(merged);
  }

  void expect_identity(const std::filesystem::path& folder,
                       const std::vector<int>& tp_sizes = {1, 2, 4}) const {
    for (const int tp : tp_sizes) {
      for (const char* layout : {"hf", "mindie", "vllm"}) {
        SCOPED_TRACE(layout);
        const std::filesystem::path shards = folder_ / (folder.filename().string() + "-" + layout);
        convert::Console console(true, convert::LogLevel::kQuiet);
        const convert::ShardJob job{.source = folder,
                                    .destination = shards,
                                    .tp = tp,
                                    .layout = formats::parse_shard_layout(layout)};
        try {
          convert::run_shard_job(job, console);
        } catch (const formats::Error& error) {
          ADD_FAILURE() << error.what();
          continue;
        }
        expect_merge(shards, folder);
        std::filesystem::remove_all(shards);
      }
    }
  }

  static RawTensor tensor_of(const std::filesystem::path& folder, const std::string& name) {
    std::vector<RawTensor> tensors = read_all_tensors(folder);
    return tensor_named(tensors, name);
  }
};

}  // namespace llmq::test
