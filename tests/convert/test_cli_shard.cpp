#include "tests/convert/shard_fixture.h"

namespace llmq::test {
namespace {

namespace fs = std::filesystem;

using testing::AllOf;
using testing::Each;
using testing::ElementsAre;
using testing::HasSubstr;

class CliShard : public ShardFixture {};

TEST_F(CliShard, EveryTypeComesTogetherAgainAtEveryTpSize) {
  take("qwen3-head-dim");
  expect_identity(source_);
  expect_identity(quantize("w8a8", {"-type", "w8a8", "-calib", texts_}));
  expect_identity(quantize("w8a8_mix", {"-type", "w8a8_mix", "-calib", texts_}));
  expect_identity(quantize("w8a8c8", {"-type", "w8a8c8", "-calib", texts_}));
  expect_identity(quantize("fa3", {"-type", "w8a8", "-calib", texts_, "-use_fa_quant", "True"}));
  expect_identity(quantize("w8a8_dynamic", {"-type", "w8a8_dynamic", "-calib", texts_}));
  expect_identity(quantize("w8a16", {"-type", "w8a16"}));
  expect_identity(quantize("w8a16-groups", {"-type", "w8a16", "-group_size", "2"}));
  expect_identity(quantize("w4a16", {"-type", "w4a16", "-group_size", "0"}));
  expect_identity(quantize("w4a16-groups", {"-type", "w4a16", "-group_size", "2"}));
  expect_identity(quantize("w8a8s", {"-type", "w8a8s", "-calib", texts_, "--dtype", "float16"}));
}

TEST_F(CliShard, EveryFamilyComesTogetherAgain) {
  for (const char* golden : {"llama-llama3-rope", "mistral", "qwen2-moe", "qwen2-tied",
                             "qwen2-embedding", "qwen3-moe", "qwen2-untied"}) {
    SCOPED_TRACE(golden);
    take(golden, {{"mlp_bias", std::string(golden).starts_with("llama")}});
    expect_identity(source_);
    const fs::path out = quantize("out", {"-type", "w8a8_dynamic", "-calib", texts_});
    expect_identity(out);
    fs::remove_all(out);
  }
  take("qwen", {{"num_attention_heads", 4}});
  expect_identity(source_);
}

TEST_F(CliShard, TheSplitIntoFilesIsRestored) {
  const fs::path out = quantize("out", {"-type", "w8a16", "-part_file_size", "0.00005"});
  const fs::path shards = shard(out, 2);
  const auto files = [](const fs::path& folder) {
    std::vector<std::string> names = folder_entries(folder);
    std::erase_if(names, [](const std::string& name) { return !name.ends_with(".safetensors"); });
    return names;
  };
  EXPECT_GT(files(out).size(), 2U);
  EXPECT_EQ(files(shards / "rank-1"), files(out));
  expect_merge(shards, out);
}

TEST_F(CliShard, RanksHoldWhatEnginesSlice) {
  take("qwen2-untied");  // 5 heads of 8, one key head
  const fs::path out = quantize("out", {"-type", "w8a8", "-calib", texts_, "-disable_names", ""});
  const fs::path shards = shard(out, 2);
  const std::string layer = "model.layers.1.";
  for (const std::string name : {"self_attn.q_proj.weight", "self_attn.q_proj.quant_bias"}) {
    const std::string whole = tensor_of(out, layer + name).bytes;
    const std::string first = tensor_of(shards / "rank-0", layer + name).bytes;
    const std::string second = tensor_of(shards / "rank-1", layer + name).bytes;
    const size_t head = whole.size() / 5;
    EXPECT_TRUE(first == whole.substr(0, 3 * head)) << name;
    EXPECT_TRUE(second == whole.substr(3 * head) + std::string(head, '\0')) << name;
  }
  const std::string down = layer + "mlp.down_proj.";
  const RawTensor bias = tensor_of(out, down + "quant_bias");
  EXPECT_EQ(tensor_of(shards / "rank-0", down + "quant_bias"), bias);
  EXPECT_THAT(tensor_of(shards / "rank-1", down + "quant_bias").bytes, Each('\0'));
  EXPECT_EQ(tensor_of(shards / "rank-1", down + "deq_scale"), tensor_of(out, down + "deq_scale"));
  EXPECT_THAT(tensor_of(shards / "rank-1", down + "weight").shape, ElementsAre(40, 36));
  EXPECT_EQ(tensor_of(shards / "rank-1", layer + "self_attn.k_proj.weight"),
            tensor_of(out, layer + "self_attn.k_proj.weight"))
      << "one key head for two ranks";
}

TEST_F(CliShard, WhatCannotBeCutIsRefusedBeforeAnyWeightIsRead) {
  take("qwen3-head-dim");
  const fs::path out = quantize("out", {"-type", "w4a16", "-group_size", "8"});
  const auto before = folder_entries(folder_.path());
  const CommandResult result = try_shard(out, folder_ / "refused", 4);
  EXPECT_EQ(result.exit_code, kBadInput) << result.summary();
  EXPECT_THAT(result.err, HasSubstr("of its 56 inputs each of 4 ranks has 14, no whole number of "
                                    "groups of 8; legal TP sizes are 1;"));
  EXPECT_EQ(try_shard(out, folder_ / "refused", 3).exit_code, kBadInput);
  EXPECT_EQ(try_shard(out, folder_ / "refused", 0).exit_code, kBadUsage);
  EXPECT_EQ(folder_entries(folder_.path()), before) << "no destination, no staging folder";
  const fs::path padded = shard(out, 4, {"--pad"});
  EXPECT_THAT(tensor_of(padded / "rank-3", "model.layers.0.mlp.up_proj.weight").shape,
              ElementsAre(8, 32))
      << "56 outputs padded to 64, packed in pairs";
  expect_merge(padded, out);
}

TEST_F(CliShard, PaddedHeadsNeedWeightsWithoutAnOffset) {
  take("qwen2-untied");  // 5 heads, which 2 ranks can only have with padding
  const fs::path out = quantize("out", {"-type", "w8a16", "-w_sym", "False"});
  const CommandResult result = try_shard(out, folder_ / "refused", 2);
  EXPECT_EQ(result.exit_code, kBadInput) << result.summary();
  EXPECT_THAT(result.err, HasSubstr("o_proj.weight_offset: heads must be padded at TP 2"));
  EXPECT_FALSE(fs::exists(folder_ / "refused"));
  expect_merge(shard(out, 1), out);
  expect_merge(shard(quantize("symmetric", {"-type", "w8a16"}), 2), folder_ / "symmetric");
}

TEST_F(CliShard, ShardsThatDoNotBelongTogetherAreRefused) {
  const fs::path shards = shard(source_, 2);
  const auto refusal = [&](const fs::path& folder) {
    const CommandResult result = run_llmq({"merge", folder, folder_ / "refused"});
    EXPECT_EQ(result.exit_code, kBadInput) << result.summary();
    EXPECT_FALSE(fs::exists(folder_ / "refused"));
    return result.err;
  };
  EXPECT_THAT(refusal(source_), HasSubstr("has no llmq_shards.json"));
  const fs::path broken = folder_ / "broken";
  const auto copy = [&] {
    fs::remove_all(broken);
    fs::copy(shards, broken, fs::copy_options::recursive);
  };
  copy();
  fs::remove_all(broken / "rank-1");
  EXPECT_THAT(refusal(broken), HasSubstr("the folder of rank 1 is missing"));
  copy();
  fs::remove_all(broken / "rank-1");
  fs::copy(shards / "rank-0", broken / "rank-1", fs::copy_options::recursive);
  EXPECT_THAT(refusal(broken), HasSubstr("its rank is 0, but the manifest asks for 1"));
  copy();
  set_source("model.norm.weight", 3, 7.0F);
  rewrite_source();
  fs::remove_all(broken / "rank-1");
  fs::rename(shards, folder_ / "first");
  fs::rename(shard(source_, 2) / "rank-1", broken / "rank-1");
  EXPECT_THAT(refusal(broken), HasSubstr("its fingerprint is"));
}

TEST_F(CliShard, ADamagedShardIsFoundAndNamed) {
  const fs::path shards = shard(source_, 2);
  const auto damage = [&](const std::string& name) {
    const fs::path broken = folder_ / "broken";
    fs::remove_all(broken);
    fs::copy(shards, broken, fs::copy_options::recursive);
    const fs::path file = broken / "rank-1" / "model.safetensors";
    std::vector<RawTensor> tensors = read_safetensors(file);
    tensor_named(tensors, name).bytes[10] ^= 1;
    write_file(file, safetensors_file(tensors));
    const CommandResult result = run_llmq({"merge", broken, folder_ / "refused"});
    EXPECT_EQ(result.exit_code, kBadInput) << result.summary();
    EXPECT_THAT(result.err, HasSubstr(name));
    EXPECT_FALSE(fs::exists(folder_ / "refused"));
    return result.err;
  };
  EXPECT_THAT(damage("model.layers.0.mlp.up_proj.weight"), HasSubstr("is not the original"));
  EXPECT_THAT(damage("model.layers.1.input_layernorm.weight"),
              AllOf(HasSubstr("input_layernorm.weight: the copies of rank 0 and rank 1 differ; "
                              "damaged is that of"),
                    HasSubstr("rank-1, copy it again")));
}

TEST_F(CliShard, ThreadsDoNotChangeTheShards) {
  const auto one = folder_contents(shard(source_, 2, {"--threads", "1"}));
  const auto three = folder_contents(shard(source_, 2, {"--threads", "3", "--force"}));
  EXPECT_TRUE(one == three);
}

}  // namespace
}  // namespace llmq::test
