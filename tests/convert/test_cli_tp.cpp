#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>

#include "tests/convert/calibrated_fixture.h"

namespace llmq::test {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

constexpr int kBadUsage = 2;
constexpr int kBadInput = 3;

/// Folders of every kind, cut for ranks and evaluated by them.
class CliTp : public CalibratedFixture {
 protected:
  /// Makes the source a random model of this golden model's configuration.
  void take(const std::string& golden, const OrderedJson& changes = OrderedJson::object()) {
    config_ = OrderedJson::parse(
        read_file(fs::path(LLMQ_TEST_SOURCE_DIR) / "golden" / golden / "config.json"));
    config_["vocab_size"] = 464;
    config_.update(changes);
    write_file(folder_ / "config.json", config_.dump());
    fs::remove_all(source_);
    Command make;
    make.argv = {LLMQ_MAKE_CHECKPOINT, "--config", folder_ / "config.json", "--out", source_};
    ASSERT_EQ(run_command(make).exit_code, 0);
    fs::copy_file(golden_tokenizer(), source_ / "tokenizer.json");
  }

  [[nodiscard]] fs::path shard(const fs::path& from, int tp) const {
    fs::path to = folder_ / (from.filename().string() + "-tp" + std::to_string(tp));
    fs::remove_all(to);
    const CommandResult result = run_llmq({"shard", "--tp", std::to_string(tp), from, to});
    EXPECT_EQ(result.exit_code, 0) << result.summary();
    return to;
  }

  [[nodiscard]] Command eval_command(const fs::path& folder,
                                     const std::vector<std::string>& options = {}) const {
    Command command = llmq_command({"eval", "--model_path", folder, "--text", text_, "--context",
                                    "48", "--threads", "2", "--json"});
    command.argv.insert(command.argv.end(), options.begin(), options.end());
    return command;
  }

  [[nodiscard]] double nll(const fs::path& folder,
                           const std::vector<std::string>& options = {}) const {
    const CommandResult result = run_command(eval_command(folder, options));
    EXPECT_EQ(result.exit_code, 0) << result.summary();
    return result.exit_code == 0 ? json_output(result)["mean_nll"].get<double>() : 0;
  }

  /// Ranks differ from the whole model by the order of float additions alone: each of them rounds
  /// with 2^-24 relative, and a token's loss gathers some tens of them over a few layers.
  void expect_like_whole(const fs::path& folder, const std::vector<int>& sizes) const {
    const double whole = nll(folder);
    for (const int tp : sizes) {
      SCOPED_TRACE(folder.filename().string() + " over " + std::to_string(tp));
      EXPECT_NEAR(nll(shard(folder, tp), {"--tp", std::to_string(tp)}), whole, 1e-5 * whole);
    }
  }

  void SetUp() override {
    CalibratedFixture::SetUp();
    write_file(text_,
               "Numbers that ranks add up must not depend on how many ranks there are. "
               "Some words more, so that several pieces of text are scored in a row.");
  }

  fs::path text_ = folder_ / "text.txt";
};

TEST_F(CliTp, EveryTypeOverRanksIsTheWholeModel) {
  take("qwen3-head-dim");
  expect_like_whole(source_, {1, 2, 4});
  for (const std::string type :
       {"w8a16", "w4a16", "w8a8", "w8a8s", "w8a8_dynamic", "w8a8_mix", "w8a8c8"}) {
    expect_like_whole(quantize(type, {"-type", type, "-calib", texts_}), {2, 4});
  }
  expect_like_whole(quantize("fa3", {"-type", "w8a8", "-calib", texts_, "-use_fa_quant", "True"}),
                    {2, 4});
}

// Only int8 linears between float ones would hide a wrong bit; here every row-parallel linear adds
// up integers, so hidden states and losses have the same bits for any number of ranks.
TEST_F(CliTp, IntegersAddUpToTheBitsOfTheWholeModel) {
  take("qwen3-head-dim");
  for (const std::string type : {"w8a8", "w8a8s", "w8a8_dynamic", "w8a8_mix"}) {
    SCOPED_TRACE(type);
    const fs::path folder =
        quantize(type, {"-type", type, "-calib", texts_, "-disable_names", "lm_head"});
    const double whole = nll(folder);
    const fs::path shards = shard(folder, 2);
    EXPECT_EQ(nll(shards), whole);
    EXPECT_EQ(nll(shard(folder, 4)), whole);
    EXPECT_NE(nll(shards, {"--reduce", "float32"}), whole);
    EXPECT_NEAR(nll(shards, {"--reduce", "float32"}), whole, 0.02 * whole);
  }
}

TEST_F(CliTp, HeadsAreReplicatedAndPaddedAsEnginesDo) {
  // 2 key heads on 4 ranks; 14 query heads in 2 groups of 7 on 4 ranks.
  take("qwen2-tied",
       {{"num_attention_heads", 4}, {"num_key_value_heads", 2}, {"tie_word_embeddings", false}});
  expect_like_whole(source_, {4});
  take("qwen2-tied", {{"num_attention_heads", 14},
                      {"num_key_value_heads", 2},
                      {"hidden_size", 112},
                      {"tie_word_embeddings", false}});
  expect_like_whole(source_, {2, 4});
  const fs::path dynamic =
      quantize("dynamic", {"-type", "w8a8_dynamic", "-disable_names", "lm_head"});
  EXPECT_EQ(nll(shard(dynamic, 4)), nll(dynamic));
}

TEST_F(CliTp, EveryLayoutRunsWithTheBitsOfTheOthers) {
  take("qwen3-head-dim", {{"tie_word_embeddings", false}});
  const fs::path w8a8s = quantize("w8a8s", {"-type", "w8a8s", "-calib", texts_});
  const fs::path w4a16 = quantize("w4a16", {"-type", "w4a16"});
  for (const fs::path& folder : {source_, w8a8s, w4a16}) {
    const double wanted = nll(shard(folder, 2));
    for (const std::string layout : {"mindie", "vllm"}) {
      SCOPED_TRACE(folder.filename().string() + " as " + layout);
      const fs::path shards = folder_ / layout;
      fs::remove_all(shards);
      ASSERT_EQ(run_llmq({"shard", "--tp", "2", "--layout", layout, folder, shards}).exit_code, 0);
      EXPECT_EQ(nll(shards), wanted);
    }
  }
  for (const std::string layout : {"mindie", "hf"}) {
    const fs::path compressed = folder_ / ("compressed-" + layout);
    ASSERT_EQ(run_llmq({"sparse-compress", "--tp", "2", "--layout", layout, "--model_path", w8a8s,
                        "--save_directory", compressed})
                  .exit_code,
              0);
    EXPECT_EQ(nll(compressed), nll(shard(w8a8s, 2))) << layout;
  }
}

TEST_F(CliTp, TiedEmbeddingsCutByHiddenAreTheHead) {
  take("qwen2-tied");
  const fs::path shards = folder_ / "mindie";
  ASSERT_EQ(run_llmq({"shard", "--tp", "2", "--layout", "mindie", source_, shards}).exit_code, 0);
  const double whole = nll(source_);
  EXPECT_NEAR(nll(shards), whole, 1e-5 * whole);
}

TEST_F(CliTp, PaddedVocabularyAndMlpAreNotSeen) {
  take("qwen3-head-dim", {{"vocab_size", 463}, {"intermediate_size", 190}});
  const fs::path shards = folder_ / "padded";
  ASSERT_EQ(run_llmq({"shard", "--tp", "4", "--pad", source_, shards}).exit_code, 0);
  const double whole = nll(source_);
  EXPECT_NEAR(nll(shards), whole, 1e-5 * whole);
}

TEST_F(CliTp, ExpertsAndTiedEmbeddingsRunOverRanks) {
  take("qwen2-moe");
  expect_like_whole(source_, {2});
  take("qwen2-tied");
  expect_like_whole(source_, {2});
  take("qwen", {{"num_attention_heads", 4}, {"hidden_size", 64}, {"kv_channels", 16}});
  expect_like_whole(source_, {2});
}

TEST_F(CliTp, GeneratedTextIsThatOfTheWholeModel) {
  take("qwen3-head-dim");
  const fs::path folder =
      quantize("w8a8s", {"-type", "w8a8s", "-calib", texts_, "-disable_names", "lm_head"});
  const auto ids = [&](const fs::path& model) {
    const CommandResult result = run_llmq({"run", "--model_path", model, "--input_ids", "5,6,7",
                                           "--max_output_length", "12", "--json"});
    EXPECT_EQ(result.exit_code, 0) << result.summary();
    return json_output(result)["ids"];
  };
  EXPECT_EQ(ids(shard(folder, 2)), ids(folder));
  const CommandResult bench = run_llmq({"bench", "--tp", "2", "--model_path", folder_ / "w8a8s-tp2",
                                        "--case_pair", "[[8,2]]", "--skip-limits", "--json"});
  EXPECT_EQ(bench.exit_code, 0) << bench.summary();
}

TEST_F(CliTp, WhatDoesNotBelongTogetherIsRefusedInOneSentence) {
  take("qwen3-head-dim");
  const fs::path shards = shard(source_, 2);
  const auto expect_error = [&](const Command& command, int exit_code, const std::string& words) {
    const CommandResult result = run_command(command);
    EXPECT_EQ(result.exit_code, exit_code) << result.summary();
    EXPECT_THAT(result.err, HasSubstr(words));
  };
  expect_error(eval_command(shards, {"--tp", "4"}), kBadInput, "was cut for 2 ranks, not 4");
  expect_error(eval_command(source_, {"--tp", "2"}), kBadInput, "llmq shard --tp 2");
  expect_error(eval_command(shards, {"--reduce", "int4"}), kBadUsage, "int4");
  Command launched = eval_command(shards);
  launched.environment["OMPI_COMM_WORLD_SIZE"] = "3";
  expect_error(launched, kBadUsage, "mpirun -n 2");

  const fs::path others = shard(quantize("w8a16", {"-type", "w8a16"}), 2);
  fs::rename(shards / "rank-1", folder_ / "kept");
  expect_error(eval_command(shards), kBadInput, "rank 1");
  fs::copy(others / "rank-1", shards / "rank-1", fs::copy_options::recursive);
  expect_error(eval_command(shards), kBadInput, "not of one run");
  fs::remove_all(shards / "rank-1");
  fs::rename(folder_ / "kept", shards / "rank-1");
  EXPECT_GT(nll(shards), 0);
}

/// Processes of an MPI launcher instead of threads.
class CliTpMpi : public CliTp {
 protected:
  void SetUp() override {
    if (std::system("command -v mpirun >/dev/null 2>&1") != 0)
      GTEST_SKIP() << "mpirun (openmpi-bin) is not installed";
    CliTp::SetUp();
  }

  [[nodiscard]] static Command launched(int n_ranks, Command command) {
    const std::vector<std::string> mpirun{"/usr/bin/env",    "mpirun", "--allow-run-as-root",
                                          "--oversubscribe", "-n",     std::to_string(n_ranks)};
    command.argv.insert(command.argv.begin(), mpirun.begin(), mpirun.end());
    // What the launcher's library keeps until its end is none of ours.
    command.environment["ASAN_OPTIONS"] = "detect_leaks=0";
    command.environment["OMPI_MCA_btl_vader_single_copy_mechanism"] = "none";
    return command;
  }
};

TEST_F(CliTpMpi, ProcessesGiveTheBitsOfThreads) {
  take("qwen3-head-dim");
  const fs::path folder = quantize("w8a8_dynamic", {"-type", "w8a8_dynamic"});
  for (const fs::path& model : {source_, folder}) {
    const fs::path shards = shard(model, 2);
    const CommandResult result = run_command(launched(2, eval_command(shards, {"--tp", "2"})));
    ASSERT_EQ(result.exit_code, 0) << result.summary();
    EXPECT_EQ(json_output(result)["mean_nll"].get<double>(), nll(shards));
  }
}

TEST_F(CliTpMpi, AProcessThatFailsEndsAll) {
  take("qwen3-head-dim");
  const fs::path shards = shard(source_, 2);
  for (const auto& entry : fs::directory_iterator(shards / "rank-1")) {
    if (entry.path().extension() == ".safetensors") fs::resize_file(entry.path(), 100);
  }
  const CommandResult result = run_command(launched(2, eval_command(shards)));
  EXPECT_FALSE(result.timed_out);
  EXPECT_EQ(result.exit_code, kBadInput) << result.summary();
  EXPECT_THAT(result.err, HasSubstr("rank 1"));
}

}  // namespace
}  // namespace llmq::test
