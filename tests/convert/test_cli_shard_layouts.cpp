#include "tests/convert/shard_fixture.h"

namespace llmq::test {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::Each;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsSupersetOf;
using Rows = std::vector<std::string>;

// What engines load, by the rules of their documentation, a row at a time: 14 query heads over two
// key heads on four ranks.
constexpr int kRanks = 4;
constexpr int kHeads = 14;
constexpr int kKvHeads = 2;
constexpr int kHeadDim = 8;
constexpr int kHidden = 32;
constexpr int kIntermediate = 56;

Rows rows_of(const RawTensor& tensor) {
  const size_t n = tensor.shape.empty() ? 1 : static_cast<size_t>(tensor.shape[0]);
  Rows rows;
  for (size_t i = 0; i < n; ++i)
    rows.push_back(tensor.bytes.substr(i * (tensor.bytes.size() / n), tensor.bytes.size() / n));
  return rows;
}

std::string joined(const Rows& rows) {
  std::string bytes;
  for (const std::string& row : rows) bytes += row;
  return bytes;
}

/// Rows of the query heads of a rank: those of its key head in equal shares, the last one filled up
/// with zeros.
Rows query_rows(const Rows& whole, int rank) {
  const int ranks_per_head = kRanks / kKvHeads;
  const int group = kHeads / kKvHeads;
  const int share = (group + ranks_per_head - 1) / ranks_per_head;
  Rows rows;
  for (int i = 0; i < share; ++i) {
    const int in_group = rank % ranks_per_head * share + i;
    const int head = rank / ranks_per_head * group + in_group;
    for (int row = 0; row < kHeadDim; ++row) {
      rows.push_back(in_group < group ? whole.at(static_cast<size_t>(head * kHeadDim + row))
                                      : std::string(whole.at(0).size(), '\0'));
    }
  }
  return rows;
}

Rows key_rows(const Rows& whole, int rank) {
  const int head = rank * kKvHeads / kRanks;
  return {whole.begin() + head * kHeadDim, whole.begin() + (head + 1) * kHeadDim};
}

Rows even_rows(const Rows& whole, int rank, int n_ranks = kRanks) {
  const auto block = static_cast<int64_t>(whole.size()) / n_ranks;
  return {whole.begin() + rank * block, whole.begin() + (rank + 1) * block};
}

Rows columns_of(const Rows& whole, size_t begin, size_t n) {
  Rows rows;
  for (const std::string& row : whole) rows.push_back(row.substr(begin, n));
  return rows;
}

Rows operator+(Rows first, const Rows& second) {
  first.insert(first.end(), second.begin(), second.end());
  return first;
}

class CliShardLayouts : public ShardFixture {
 protected:
  void take_padded_heads() {
    take("qwen3-head-dim", {{"num_attention_heads", kHeads},
                            {"num_key_value_heads", kKvHeads},
                            {"head_dim", kHeadDim},
                            {"attention_bias", true}});
  }

  static Rows whole(const fs::path& folder, const std::string& name) {
    return rows_of(tensor_of(folder, name));
  }

  static std::set<std::string> names_in(const std::vector<RawTensor>& tensors) {
    std::set<std::string> names;
    for (const RawTensor& tensor : tensors) names.insert(tensor.name);
    return names;
  }

  /// Keys of a description that are names of tensors.
  static std::set<std::string> described_in(const fs::path& folder) {
    std::set<std::string> names;
    const OrderedJson document = written_json(folder, "quant_model_description.json");
    for (const auto& [key, tag] : document.items()) {
      if (key.find('.') != std::string::npos) names.insert(key);
    }
    return names;
  }

  /// Replaces one tensor's bytes in a folder with one weight file.
  static void set_bytes(const fs::path& file, const std::string& name, size_t at, char value) {
    std::vector<RawTensor> tensors = read_safetensors(file);
    tensor_named(tensors, name).bytes.at(at) = value;
    write_file(file, safetensors_file(tensors));
  }

  std::string refusal(const std::vector<std::string>& arguments) const {
    const auto before = folder_entries(folder_.path());
    const CommandResult result = run_llmq(arguments);
    EXPECT_EQ(result.exit_code, kBadInput) << result.summary();
    EXPECT_EQ(folder_entries(folder_.path()), before) << "no destination, no staging folder";
    return result.err;
  }
};

TEST_F(CliShardLayouts, MindiePartsAreWhatItsLoaderMakes) {
  take_padded_heads();
  const fs::path out =
      quantize("out", {"-type", "qwen_w8a8s", "-calib", texts_, "--dtype", "float16"});
  const fs::path shards = shard(out, kRanks, {"--layout", "mindie"});
  const std::string layer = "model.layers.1.";
  const auto q = layer + "self_attn.q_proj.";
  const auto k = layer + "self_attn.k_proj.";
  const auto v = layer + "self_attn.v_proj.";
  for (int rank = 0; rank < kRanks; ++rank) {
    SCOPED_TRACE(rank);
    const fs::path part = shards / ("part" + std::to_string(rank) + "-of-4");
    std::vector<RawTensor> stored = read_safetensors(part / "quant_model_weight_w8a8s.safetensors");
    const auto bytes = [&](const std::string& name) {
      return tensor_named(stored, "transformer." + name).bytes;
    };
    for (const std::string suffix : {"weight", "quant_bias", "deq_scale"}) {
      EXPECT_TRUE(bytes("h.1.attn.c_attn." + suffix) ==
                  joined(query_rows(whole(out, q + suffix), rank) +
                         key_rows(whole(out, k + suffix), rank) +
                         key_rows(whole(out, v + suffix), rank)))
          << suffix;
      EXPECT_TRUE(bytes("h.1.mlp.w2_w1." + suffix) ==
                  joined(even_rows(whole(out, layer + "mlp.gate_proj." + suffix), rank) +
                         even_rows(whole(out, layer + "mlp.up_proj." + suffix), rank)))
          << suffix;
    }
    for (const std::string suffix : {"input_scale", "input_offset"})
      EXPECT_EQ(bytes("h.1.attn.c_attn." + suffix), tensor_of(out, q + suffix).bytes);
    // Row parallel: the columns of the same query heads, a bias on rank 0 alone.
    const Rows output = whole(out, layer + "self_attn.o_proj.weight");
    Rows columns;
    for (const std::string& row : output)
      columns.push_back(joined(query_rows(rows_of({"", "I8", {kHeads * kHeadDim}, row}), rank)));
    EXPECT_TRUE(bytes("h.1.attn.c_proj.weight") == joined(columns));
    const std::string bias = tensor_of(out, layer + "self_attn.o_proj.quant_bias").bytes;
    EXPECT_EQ(bytes("h.1.attn.c_proj.quant_bias"),
              rank == 0 ? bias : std::string(bias.size(), '\0'));
    const size_t block = kIntermediate / kRanks * 2;
    EXPECT_TRUE(bytes("h.1.mlp.c_proj.weight") ==
                joined(columns_of(whole(out, layer + "mlp.down_proj.weight"),
                                  static_cast<size_t>(rank) * block, block)));
    // The embedding by hidden with a row of zeros, the head by vocabulary.
    const size_t hidden = kHidden / kRanks * 2;
    EXPECT_TRUE(bytes("wte.weight") ==
                joined(columns_of(whole(out, "model.embed_tokens.weight"),
                                  static_cast<size_t>(rank) * hidden, hidden)) +
                    std::string(hidden, '\0'));
    EXPECT_TRUE(tensor_named(stored, "lm_head.weight").bytes ==
                joined(even_rows(whole(out, "lm_head.weight"), rank)));
    EXPECT_EQ(bytes("h.1.ln_2.weight"),
              tensor_of(out, layer + "post_attention_layernorm.weight").bytes);
    EXPECT_EQ(bytes("h.1.ln_1.bias"), std::string(kHidden * 2, '\0'));
    EXPECT_EQ(bytes("ln_f.weight"), tensor_of(out, "model.norm.weight").bytes);
    EXPECT_EQ(bytes("h.1.attn.q_norm.weight"),
              tensor_of(out, layer + "self_attn.q_norm.weight").bytes);
    EXPECT_EQ(described_in(part), names_in(stored));
    EXPECT_FALSE(fs::exists(part / "config.json"));
  }
  EXPECT_THAT(folder_entries(shards),
              ElementsAre("config.json", "llmq_report.json", "llmq_shards.json", "part0-of-4",
                          "part1-of-4", "part2-of-4", "part3-of-4", "tokenizer.json"));
  EXPECT_EQ(written_json(shards, "config.json")["quantize"], "w8a8s");
  expect_merge(shards, out);
}

TEST_F(CliShardLayouts, VllmRanksAreInOneFolder) {
  take_padded_heads();
  const fs::path out = quantize("out", {"-type", "w8a8", "-calib", texts_});
  const fs::path shards = shard(out, kRanks, {"--layout", "vllm"});
  const std::string layer = "model.layers.0.";
  for (int rank = 0; rank < kRanks; ++rank) {
    std::vector<RawTensor> stored =
        read_safetensors(shards / ("model-rank-" + std::to_string(rank) + "-part-0.safetensors"));
    EXPECT_TRUE(tensor_named(stored, layer + "self_attn.qkv_proj.weight").bytes ==
                joined(query_rows(whole(out, layer + "self_attn.q_proj.weight"), rank) +
                       key_rows(whole(out, layer + "self_attn.k_proj.weight"), rank) +
                       key_rows(whole(out, layer + "self_attn.v_proj.weight"), rank)));
    EXPECT_TRUE(tensor_named(stored, layer + "mlp.gate_up_proj.weight").bytes ==
                joined(even_rows(whole(out, layer + "mlp.gate_proj.weight"), rank) +
                       even_rows(whole(out, layer + "mlp.up_proj.weight"), rank)));
    // A vocabulary of 464 becomes 512, a multiple of 64.
    Rows embedding = whole(out, "model.embed_tokens.weight");
    embedding.resize(512, std::string(kHidden * 2, '\0'));
    EXPECT_TRUE(tensor_named(stored, "model.embed_tokens.weight").bytes ==
                joined(even_rows(embedding, rank)));
    EXPECT_THAT(described_in(shards), IsSupersetOf(names_in(stored)));
  }
  EXPECT_THAT(described_in(shards), IsSupersetOf(described_in(out))) << "by which vLLM looks";
  EXPECT_EQ(written_json(shards, "config.json"), written_json(out, "config.json"));
  EXPECT_TRUE(fs::exists(shards / "tokenizer.json"));
  expect_merge(shards, out);
}

TEST_F(CliShardLayouts, VllmStacksExperts) {
  take("qwen3-moe");  // 8 experts of 16 in layers 1 and 3
  const fs::path out = quantize("out", {"-type", "w8a8_dynamic", "-calib", texts_});
  const fs::path shards = shard(out, 2, {"--layout", "vllm"});
  const auto stored = [&](const std::string& name) {
    std::vector<RawTensor> tensors = read_safetensors(shards / "model-rank-1-part-0.safetensors");
    return tensor_named(tensors, "model.layers.1.mlp.experts." + name);
  };
  for (const std::string suffix : {"weight", "weight_scale"}) {
    Rows gate_up;
    Rows down;
    for (int expert = 0; expert < 8; ++expert) {
      const std::string path = "model.layers.1.mlp.experts." + std::to_string(expert) + ".";
      gate_up = gate_up + even_rows(whole(out, path + "gate_proj." + suffix), 1, 2) +
                even_rows(whole(out, path + "up_proj." + suffix), 1, 2);
      const Rows rows = whole(out, path + "down_proj." + suffix);
      down = down + (suffix == "weight" ? columns_of(rows, 8, 8) : rows);
    }
    EXPECT_TRUE(stored("w13_" + suffix).bytes == joined(gate_up)) << suffix;
    EXPECT_TRUE(stored("w2_" + suffix).bytes == joined(down)) << suffix;
  }
  EXPECT_THAT(stored("w13_weight").shape, ElementsAre(8, 16, 32));
  EXPECT_THAT(stored("w2_weight").shape, ElementsAre(8, 32, 8));
}

TEST_F(CliShardLayouts, KeyHeadsOnSeveralRanksComeTogetherAgain) {
  take("qwen3-head-dim", {{"num_attention_heads", 16}, {"num_key_value_heads", 4}});
  expect_identity(quantize("out", {"-type", "w8a8", "-calib", texts_}), {8});
  take_padded_heads();
  fs::remove_all(folder_ / "out");
  expect_identity(quantize("out", {"-type", "w8a8c8", "-calib", texts_}), {4});
}

TEST_F(CliShardLayouts, LinearsThatDifferAreStoredApartOrRefused) {
  take("qwen3-head-dim");
  const fs::path out = quantize("out", {"-type", "w8a8", "-calib", texts_});
  const fs::path file = out / "quant_model_weight_w8a8.safetensors";
  const std::string scale = "model.layers.0.self_attn.k_proj.input_scale";
  set_bytes(file, scale, 0, static_cast<char>(tensor_of(out, scale).bytes.at(0) ^ 1));
  for (const char* layout : {"mindie", "vllm"}) {
    const std::string sentence =
        refusal({"shard", "--tp", "2", "--layout", layout, out, folder_ / "refused"});
    EXPECT_THAT(sentence, AllOf(HasSubstr("q_proj.input_scale and"),
                                HasSubstr("k_proj.input_scale differ"), HasSubstr("--layout hf")));
  }
  expect_merge(shard(out, 2), out);
  // A key projection without bias, where query and value have theirs.
  config_["attention_bias"] = true;
  take("qwen3-head-dim", {{"attention_bias", true}});
  std::vector<RawTensor> tensors = read_safetensors(source_ / "model.safetensors");
  for (RawTensor& tensor : tensors) {
    if (tensor.name == "model.layers.0.self_attn.k_proj.bias") tensor.dtype = "F16";
  }
  write_file(source_ / "model.safetensors", safetensors_file(tensors));
  EXPECT_THAT(refusal({"shard", "--tp", "2", "--layout", "vllm", source_, folder_ / "refused"}),
              HasSubstr("as part of model.layers.0.self_attn.qkv_proj"));
  const fs::path shards = shard(source_, 2, {"--layout", "mindie"});
  const std::set<std::string> names = names_in(read_all_tensors(shards / "part1-of-2"));
  EXPECT_THAT(
      names, IsSupersetOf({"transformer.h.0.attn.q_proj.weight", "transformer.h.0.attn.k_proj.bias",
                           "transformer.h.1.attn.c_attn.weight"}));
  EXPECT_FALSE(names.contains("transformer.h.0.attn.c_attn.weight"));
  expect_merge(shards, source_);
}

TEST_F(CliShardLayouts, WrappedNormsAreCalledAsTheEngineCallsThem) {
  std::vector<RawTensor> tensors = read_safetensors(source_ / "model.safetensors");
  const std::string norm = "model.layers.0.input_layernorm.";
  for (const std::string suffix : {"module.weight", "module.bias"}) {
    RawTensor tensor = tensor_named(tensors, norm + "weight");
    tensor.name = norm + suffix;
    tensors.push_back(tensor);
  }
  write_file(source_ / "model.safetensors", safetensors_file(tensors));
  const fs::path shards = shard(source_, 2, {"--layout", "mindie"});
  const std::set<std::string> names = names_in(read_all_tensors(shards / "part0-of-2"));
  const std::string stored = "transformer.h.0.ln_1.";
  EXPECT_THAT(names,
              IsSupersetOf({stored + "ori.weight", stored + "anti.weight", stored + "anti.bias"}));
  EXPECT_FALSE(names.contains(stored + "weight"));
  expect_merge(shards, source_);
}

TEST_F(CliShardLayouts, AFullDiskLeavesNothing) {
  const fs::path shards = shard(source_, 2, {"--layout", "vllm"});
  const auto before = folder_entries(folder_.path());
  for (const std::vector<std::string>& arguments :
       {std::vector<std::string>{"shard", "--tp", "2", "--layout", "mindie", source_,
                                 folder_ / "refused"},
        std::vector<std::string>{"merge", shards, folder_ / "refused"}}) {
    Command command = llmq_command(arguments);
    command.max_file_bytes = 20'000;
    EXPECT_NE(run_command(command).exit_code, 0) << arguments.front();
    EXPECT_EQ(folder_entries(folder_.path()), before) << arguments.front();
  }
}

TEST_F(CliShardLayouts, EnginesReadThePaddedSizes) {
  take("qwen3-head-dim");
  const fs::path out = quantize("out", {"-type", "w4a16", "-group_size", "8"});
  for (const std::string layout : {"hf", "mindie", "vllm"}) {
    EXPECT_THAT(refusal({"shard", "--tp", "4", "--layout", layout, out, folder_ / "refused"}),
                AllOf(HasSubstr("legal TP sizes are 1;"), HasSubstr("no whole number of groups")));
    const fs::path shards = shard(out, 4, {"--layout", layout, "--pad", "--force"});
    const fs::path read_by_engine = layout == "hf" ? shards / "rank-2" : shards;
    EXPECT_EQ(written_json(read_by_engine, "config.json")["intermediate_size"], 64);
    EXPECT_EQ(written_json(shards, "llmq_shards.json")["padded"]["intermediate_size"], 64);
    expect_merge(shards, out);
  }
}

TEST_F(CliShardLayouts, QuantizingWritesTheShardsOfTheResult) {
  take("qwen3-head-dim");
  for (const std::string layout : {"hf", "mindie", "vllm"}) {
    const fs::path out = quantize("out", {"-type", "w8a8", "-calib", texts_});
    const fs::path shards = shard(out, 2, {"--layout", layout, "--force"});
    const fs::path direct = quantize(
        "direct", {"-type", "w8a8", "-calib", texts_, "--tp", "2", "--layout", layout, "--force"});
    EXPECT_TRUE(result_files(direct) == result_files(shards)) << layout;
    EXPECT_EQ(report_of(direct)["destination"], direct.string());
    fs::remove_all(out);
  }
  EXPECT_THAT(refusal({"quant", "-src", source_, "-dst", folder_ / "refused", "-type", "w4a16",
                       "-group_size", "8", "--tp", "4"}),
              HasSubstr("legal TP sizes are 1;"));
  EXPECT_EQ(run_llmq({"quant", "-src", source_, "-dst", folder_ / "refused", "-type", "w8a16",
                      "--layout", "mindie"})
                .exit_code,
            kBadUsage);
  EXPECT_THAT(folder_entries(folder_.path()), Not(Contains(HasSubstr("unsharded"))));
}

TEST_F(CliShardLayouts, DamageIsFoundInEveryLayout) {
  take("qwen3-head-dim");
  const fs::path out = quantize("out", {"-type", "w8a8", "-calib", texts_});
  const fs::path mindie = shard(out, 2, {"--layout", "mindie"});
  const fs::path file = mindie / "part1-of-2" / "quant_model_weight_w8a8.safetensors";
  const std::string good = read_file(file);
  const auto damaged = [&](const std::string& name, size_t at) {
    write_file(file, good);
    set_bytes(file, name, at, '\x55');
    return refusal({"merge", mindie, folder_ / "refused"});
  };
  EXPECT_THAT(damaged("transformer.wte.weight", 464 * 32), HasSubstr("padding that is not zero"));
  EXPECT_THAT(damaged("transformer.h.0.ln_1.bias", 3), HasSubstr("padding that is not zero"));
  EXPECT_THAT(damaged("transformer.h.0.mlp.w2_w1.weight", 28 * 32),
              HasSubstr("up_proj.weight put together from its parts is not the original"));
  EXPECT_THAT(damaged("transformer.h.0.attn.c_attn.input_scale", 1),
              AllOf(HasSubstr("q_proj.input_scale: the copies of rank 0 and rank 1 differ"),
                    HasSubstr("part1-of-2, copy it again")));
  const fs::path vllm = shard(out, 2, {"--layout", "vllm", "--force"});
  fs::remove(vllm / "llmq_shard-rank-1.json");
  EXPECT_THAT(refusal({"merge", vllm, folder_ / "refused"}), HasSubstr("llmq_shard-rank-1.json"));
  fs::copy(vllm / "llmq_shard-rank-0.json", vllm / "llmq_shard-rank-1.json");
  EXPECT_THAT(refusal({"merge", vllm, folder_ / "refused"}),
              HasSubstr("its rank is 0, but the manifest asks for 1"));
}

TEST_F(CliShardLayouts, HostileManifestsAreRefused) {
  take("qwen3-head-dim");
  const fs::path shards = shard(source_, 2, {"--layout", "mindie"});
  const OrderedJson good = written_json(shards, "llmq_shards.json");
  const auto with = [&](const std::string& pointer, const OrderedJson& value) {
    OrderedJson document = good;
    document[OrderedJson::json_pointer(pointer)] = value;
    document["fingerprint"] = convert::manifest_fingerprint(document);
    write_file(shards / "llmq_shards.json", document.dump());
    for (int rank = 0; rank < 2; ++rank) {
      write_file(
          shards / convert::rank_folder(formats::ShardLayout::kMindie, rank, 2) / "llmq_shard.json",
          convert::shard_note(document, rank).dump());
    }
    return refusal({"merge", shards, folder_ / "refused"});
  };
  EXPECT_THAT(with("/originals/model.safetensors", "{}"), HasSubstr("which it must not"));
  EXPECT_THAT(with("/originals/quant_model_description_~1..~1x.json", "{}"),
              HasSubstr("outside the folder"));
  EXPECT_THAT(with("/originals", OrderedJson::object()), HasSubstr("no config.json"));
  EXPECT_THAT(with("/originals/config.json", "{"), HasSubstr("config.json"));
  EXPECT_THAT(with("/index_file", "model.safetensors"), HasSubstr("no .index.json file"));
  EXPECT_THAT(with("/padded/intermediate_size", 64), HasSubstr("other padding"));
  EXPECT_THAT(with("/layout", "gguf"), HasSubstr("unknown layout"));
  EXPECT_THAT(with("/layout", "vllm"), HasSubstr("llmq_shard-rank-0.json"));
  EXPECT_THAT(with("/tp", 4096), HasSubstr("not from 1 to 1024"));
  EXPECT_THAT(with("/files/0/tensors/1/name", good["files"][0]["tensors"][0]["name"]),
              HasSubstr("twice"));
  EXPECT_THAT(with("/files/0/tensors/0/shape", {7, 7}), HasSubstr("has shape"));
  EXPECT_THAT(with("/files/0/tensors/0/shape/0", 1LL << 62), HasSubstr("shape"));
  EXPECT_THAT(with("/files/0/name", "../x.safetensors"), HasSubstr("outside the folder"));
}

}  // namespace
}  // namespace llmq::test
