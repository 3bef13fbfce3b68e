#include "formats/slicing.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>
#include <string>
#include <vector>

#include "formats/attention_tensors.h"
#include "formats/error.h"
#include "tests/tools/test_files.h"

namespace llmq::formats {
namespace {

using test::error_message;
using testing::ElementsAre;
using testing::EndsWith;
using testing::HasSubstr;

constexpr int64_t kZeros = SliceRun::kZeros;

struct Heads {
  int64_t n_heads;
  int64_t n_kv_heads;
  int64_t head_dim;
};

ModelConfig config_of(const std::string& model_type, const Heads& heads,
                      const Json& changes = Json::object()) {
  Json document{{"model_type", model_type},
                {"hidden_size", 32},
                {"intermediate_size", 64},
                {"num_hidden_layers", 2},
                {"num_attention_heads", heads.n_heads},
                {"num_key_value_heads", heads.n_kv_heads},
                {"head_dim", heads.head_dim},
                {"vocab_size", 96}};
  document.update(changes);
  return parse_model_config(document, "config.json");
}

std::vector<std::byte> random_bytes(const Shape& shape, size_t element_bytes) {
  static std::mt19937 generator(7);
  std::vector<std::byte> bytes(static_cast<size_t>(shape_elements(shape)) * element_bytes);
  for (std::byte& value : bytes) value = static_cast<std::byte>(generator() & 0xff);
  return bytes;
}

std::vector<std::byte> part_bytes(const Shape& shape, size_t element_bytes,
                                  const std::vector<std::byte>& bytes, const TensorSlice& slice) {
  const auto [rows, columns] = matrix_extents(slice.shape);
  const auto row_bytes = static_cast<size_t>(columns) * element_bytes;
  std::vector<std::byte> part(static_cast<size_t>(rows) * row_bytes);
  // In two pieces, as a caller that streams does it.
  const int64_t half = rows / 2;
  const WholeTensor whole{matrix_extents(shape), element_bytes, bytes};
  const size_t split = static_cast<size_t>(half) * row_bytes;
  copy_slice_rows(whole, slice, {0, half}, std::span(part).first(split));
  copy_slice_rows(whole, slice, {half, rows - half}, std::span(part).subspan(split));
  return part;
}

// Cuts random bytes for every rank and puts them together again.
void expect_identity(const std::string& name, const Shape& shape, const TensorCut& cut,
                     const Partition& partition) {
  SCOPED_TRACE(name + " at tp " + std::to_string(partition.tp()));
  constexpr size_t kElementBytes = 2;
  const std::vector<std::byte> bytes = random_bytes(shape, kElementBytes);
  std::vector<std::vector<std::byte>> stored;
  std::vector<TensorSlice> slices;
  for (int64_t rank = 0; rank < partition.tp(); ++rank) {
    slices.push_back(slice_of(shape, cut, partition, rank));
    stored.push_back(part_bytes(shape, kElementBytes, bytes, slices.back()));
    EXPECT_EQ(slices.back().shape, slices.front().shape) << "all ranks run the same shapes";
  }
  std::vector<RankPart> parts;
  for (size_t rank = 0; rank < stored.size(); ++rank) {
    parts.push_back({slices[rank], stored[rank]});
    EXPECT_TRUE(is_padding_zero(parts.back(), kElementBytes));
  }
  const MergeTarget target{matrix_extents(shape), kElementBytes};
  std::vector<std::byte> merged(bytes.size());
  EXPECT_EQ(merge_rows(target, parts, {0, target.extents.rows}, merged), std::nullopt);
  EXPECT_TRUE(merged == bytes);
}

Shape shape_for(const TensorRule& rule, const ModuleRow& row, const ModelConfig& config,
                int64_t group_size) {
  return resolve_shape(rule.shape,
                       {extent_of(row.n_out, config), extent_of(row.n_in, config), group_size});
}

// Every tensor that a scheme stores for a linear of this configuration.
void expect_scheme_identity(Scheme scheme, int64_t group_size, const ModelConfig& config,
                            int64_t tp) {
  const Partition partition(config, tp);
  for (const ModuleRow& row : architecture_of(config).modules) {
    if (row.group == FusedGroup::kNone) continue;
    for (const TensorRule& rule : scheme_row(scheme).tensors) {
      const Shape shape = shape_for(rule, row, config, group_size);
      const TensorCut cut = tensor_cut(row, rule, shape, {config});
      ASSERT_TRUE(cut.axis == CutAxis::kWhole || cut.axis == CutAxis::kRankZero ||
                  partition.fits(cut.extent, cut.unit));
      expect_identity(std::string(row.path) + std::string(rule.suffix), shape, cut, partition);
    }
  }
}

TEST(Slicing, EverySchemeOfEveryFamilyComesTogetherAgain) {
  const Json experts{{"num_experts", 2},
                     {"num_experts_per_tok", 1},
                     {"moe_intermediate_size", 32},
                     {"shared_expert_intermediate_size", 64}};
  for (const Architecture& architecture : architectures()) {
    const std::string type(architecture.model_types.front());
    Json changes = experts;
    if (type == "qwen") changes["seq_length"] = 64;
    const int64_t n_kv_heads = type == "qwen" ? 4 : 2;
    const ModelConfig config = config_of(type, {4, n_kv_heads, 8}, changes);
    for (const int64_t tp : {1, 2, 4}) {
      for (const SchemeRow& row : schemes()) {
        if (!row.is_linear || row.scheme == Scheme::kW8A8SC) continue;
        expect_scheme_identity(row.scheme, 0, config, tp);
      }
      expect_scheme_identity(Scheme::kW8A16, 8, config, tp);
      expect_scheme_identity(Scheme::kW4A16, 8, config, tp);
    }
  }
}

TEST(Slicing, ScalesOfAttentionFollowTheirHeads) {
  const ModelConfig config = config_of("qwen2", {14, 2, 8});
  const CutFinder finder(config, EmbeddingCut::kVocabulary);
  for (const int64_t tp : {1, 2, 4, 8}) {
    const Partition partition(config, tp);
    for (const Scheme scheme : {Scheme::kC8, Scheme::kFaQuant}) {
      for (const AttentionTensor& tensor : attention_tensors(config, scheme, 1, DType::kBF16)) {
        expect_identity(tensor.name, tensor.shape, finder.find(tensor.name, tensor.shape, {}),
                        partition);
      }
    }
  }
  // A padded head's scale is one to divide by, never zero.
  const TensorCut cut = finder.find("model.layers.0.self_attn.fa_q.scale", {14, 1}, {});
  EXPECT_THAT(slice_of({14, 1}, cut, Partition(config, 4), 1).runs,
              ElementsAre(SliceRun{4, 3}, SliceRun{0, 1}));
}

TEST(Slicing, QueryHeadsThatDoNotDivideArePaddedWithinTheirGroup) {
  // Qwen2.5-0.5B: 14 heads, two key heads; a pair of ranks shares each.
  const Partition partition(config_of("qwen2", {14, 2, 8}), 4);
  EXPECT_THAT(partition.runs(Extent::kQuery, 0), ElementsAre(SliceRun{0, 32}));
  EXPECT_THAT(partition.runs(Extent::kQuery, 1),
              ElementsAre(SliceRun{32, 24}, SliceRun{kZeros, 8}));
  EXPECT_THAT(partition.runs(Extent::kQuery, 2), ElementsAre(SliceRun{56, 32}));
  EXPECT_THAT(partition.runs(Extent::kQuery, 3),
              ElementsAre(SliceRun{88, 24}, SliceRun{kZeros, 8}));
  EXPECT_THAT(partition.runs(Extent::kKeyValue, 1), ElementsAre(SliceRun{0, 8}));
  EXPECT_THAT(partition.runs(Extent::kKeyValue, 2), ElementsAre(SliceRun{8, 8}));
  // 12 heads of the 1.5B at tp 8: six a group over four ranks, the last of which has none.
  const Partition wide(config_of("qwen2", {12, 2, 8}), 8);
  EXPECT_THAT(wide.runs(Extent::kQuery, 2), ElementsAre(SliceRun{32, 16}));
  EXPECT_THAT(wide.runs(Extent::kQuery, 3), ElementsAre(SliceRun{kZeros, 16}));
  // 28 heads of the 7B at tp 4 divide.
  const Partition even(config_of("qwen2", {28, 4, 8}), 4);
  EXPECT_THAT(even.runs(Extent::kQuery, 3), ElementsAre(SliceRun{168, 56}));
}

TEST(Slicing, KeyHeadsAreDividedOrReplicated) {
  const ModelConfig config = config_of("llama", {8, 4, 8});
  EXPECT_THAT(Partition(config, 2).runs(Extent::kKeyValue, 1), ElementsAre(SliceRun{16, 16}));
  for (int64_t rank = 0; rank < 8; ++rank) {
    EXPECT_THAT(Partition(config, 8).runs(Extent::kKeyValue, rank),
                ElementsAre(SliceRun{rank / 2 * 8, 8}));
  }
  EXPECT_FALSE(Partition(config, 3).fits(Extent::kKeyValue, 1));
  EXPECT_FALSE(Partition(config, 6).fits(Extent::kKeyValue, 1));
  EXPECT_FALSE(Partition(config, 16).fits(Extent::kQuery, 1)) << "a rank without a head";
}

TEST(Slicing, AFusedMatrixIsCutAsItsThreeParts) {
  const ModelConfig config = config_of("qwen", {4, 4, 8}, {{"seq_length", 64}});
  EXPECT_THAT(Partition(config, 2).runs(Extent::kFusedQkv, 1),
              ElementsAre(SliceRun{16, 16}, SliceRun{48, 16}, SliceRun{80, 16}));
}

TEST(Slicing, WhatIsAddedOnceStaysOnRankZero) {
  const ModelConfig config = config_of("qwen2", {4, 2, 8});
  const CutFinder finder(config, EmbeddingCut::kVocabulary);
  const Partition partition(config, 2);
  for (const char* name :
       {"model.layers.0.mlp.down_proj.quant_bias", "model.layers.1.self_attn.o_proj.bias"}) {
    const TensorCut cut = finder.find(name, {32}, {Scheme::kW8A8, 0});
    EXPECT_THAT(slice_of({32}, cut, partition, 0).runs, ElementsAre(SliceRun{0, 32}));
    EXPECT_THAT(slice_of({32}, cut, partition, 1).runs, ElementsAre(SliceRun{kZeros, 32}));
  }
  const TensorCut rows =
      finder.find("model.layers.0.mlp.up_proj.quant_bias", {64}, {Scheme::kW8A8, 0});
  EXPECT_THAT(slice_of({64}, rows, partition, 1).runs, ElementsAre(SliceRun{32, 32}));
  for (const char* name : {"model.layers.0.mlp.down_proj.input_scale",
                           "model.layers.0.self_attn.q_proj.input_offset"}) {
    EXPECT_EQ(finder.find(name, {1}, {Scheme::kW8A8, 0}).axis, CutAxis::kWhole);
  }
}

TEST(Slicing, PackedPairsAndGroupsStayWhole) {
  const ModelConfig config = config_of("llama", {4, 2, 8});
  const CutFinder finder(config, EmbeddingCut::kVocabulary);
  const Partition partition(config, 2);
  const auto slice = [&](const std::string& name, const Shape& shape) {
    return slice_of(shape, finder.find("model.layers.0." + name, shape, {Scheme::kW4A16, 0}),
                    partition, 1);
  };
  // Pairs of outputs: rows of a column-parallel linear, all rows of a row-parallel one.
  EXPECT_THAT(slice("mlp.up_proj.weight", {32, 32}).runs, ElementsAre(SliceRun{16, 16}));
  EXPECT_EQ(slice("mlp.down_proj.weight", {16, 64}).shape, (Shape{16, 32}));
  EXPECT_THAT(slice("mlp.down_proj.weight_scale", {32, 8}).runs, ElementsAre(SliceRun{4, 4}));
  // The only group of a matrix cannot be divided.
  EXPECT_FALSE(partition.fits(
      Extent::kIntermediate,
      finder.find("model.layers.0.mlp.down_proj.weight_scale", {32, 1}, {Scheme::kW4A16, 64})
          .unit));
  // Pairs of inputs, and one scale for all of them.
  EXPECT_THAT(slice("mlp.down_proj.weight", {32, 32}).runs, ElementsAre(SliceRun{16, 16}));
  EXPECT_THAT(slice("mlp.down_proj.weight_scale", {32, 1}).runs, ElementsAre(SliceRun{0, 32}));
}

TEST(Slicing, AGroupThatWouldBeTornIsRefusedWithTheSizesThatAreNot) {
  // Qwen2.5-72B's 29568 inputs of down_proj: 8 ranks have 3696 each, 28 groups of 128 and 7/8.
  const ModelConfig config =
      config_of("qwen2", {64, 8, 8}, {{"intermediate_size", 29568}, {"vocab_size", 152064}});
  const CutFinder finder(config, EmbeddingCut::kVocabulary);
  const Shape scales{32, 231};
  const std::vector<NamedCut> cuts{
      {"gate",
       finder.find("model.layers.0.mlp.gate_proj.weight", {14784, 32}, {Scheme::kW4A16, 0})},
      {"k", finder.find("model.layers.0.self_attn.k_proj.weight", {32, 32}, {Scheme::kW4A16, 0})},
      {"down",
       finder.find("model.layers.0.mlp.down_proj.weight_scale", scales, {Scheme::kW4A16, 0})}};
  Partition partition(config, 8);
  const std::string sentence =
      error_message(ErrorCode::kBadInput, [&] { check_fit(partition, cuts); });
  EXPECT_THAT(sentence, HasSubstr("down: of its 29568 inputs each of 8 ranks has 3696, no whole "
                                  "number of groups of 128"));
  EXPECT_THAT(sentence, HasSubstr("legal TP sizes are 1;"));
  EXPECT_THAT(sentence, HasSubstr("group sizes that TP 8 allows are 16; --pad"));
  pad_to_fit(partition, cuts);
  check_fit(partition, cuts);
  EXPECT_EQ(partition.padded().at(Extent::kIntermediate), 29696)
      << "what Qwen's maintainers recommend";
  EXPECT_THAT(partition.runs(Extent::kIntermediate, 7),
              ElementsAre(SliceRun{25984, 3584}, SliceRun{kZeros, 128}));
  expect_identity("gate", {14784, 3}, cuts[0].cut, partition);
  expect_identity("down", scales, cuts[2].cut, partition);
}

TEST(Slicing, KeyHeadsThatDoNotDivideAreRefused) {
  const ModelConfig config = config_of("qwen2", {12, 6, 8});
  const std::vector<NamedCut> cuts{
      {"k", CutFinder(config, EmbeddingCut::kVocabulary)
                .find("model.layers.0.self_attn.k_proj.weight", {48, 32}, {})}};
  const std::string sentence =
      error_message(ErrorCode::kBadInput, [&] { check_fit(Partition(config, 4), cuts); });
  EXPECT_THAT(sentence, HasSubstr("6 key heads can neither be divided among 4 ranks"));
  EXPECT_THAT(sentence, EndsWith("legal TP sizes are 1, 2, 3, 6, 12"));
}

TEST(Slicing, EmbeddingsAreCutByVocabularyOrByHidden) {
  const ModelConfig config = config_of("qwen2", {4, 2, 8});
  const Shape shape{96, 32};
  for (const auto& [cut, wanted] : {std::pair{EmbeddingCut::kVocabulary, Shape{48, 32}},
                                    std::pair{EmbeddingCut::kHidden, Shape{96, 16}}}) {
    const CutFinder finder(config, cut);
    const TensorCut embedding = finder.find("model.embed_tokens.weight", shape, {});
    EXPECT_EQ(slice_of(shape, embedding, Partition(config, 2), 1).shape, wanted);
    const TensorCut head = finder.find("lm_head.weight", shape, {});
    EXPECT_EQ(slice_of(shape, head, Partition(config, 2), 1).shape, (Shape{48, 32}));
    expect_identity("embedding", shape, embedding, Partition(config, 2));
  }
}

TEST(Slicing, ATensorThatNothingSaysHowToCutIsRefused) {
  const ModelConfig config = config_of("qwen2", {4, 2, 8});
  const CutFinder finder(config, EmbeddingCut::kVocabulary);
  const auto refusal = [&](const std::string& name, const Shape& shape, Scheme scheme) {
    return error_message(ErrorCode::kBadInput, [&] {
      (void)finder.find(name, shape, {scheme, 0});
    });
  };
  const std::string linear = "model.layers.0.mlp.up_proj";
  EXPECT_THAT(refusal(linear + ".div.mul_scale", {32}, Scheme::kW8A8),
              HasSubstr(linear + ".div.mul_scale: belongs to " + linear));
  EXPECT_THAT(refusal(linear + ".weight", {64, 31}, Scheme::kFloat), HasSubstr("[64, 31]"));
  EXPECT_THAT(refusal(linear + ".weight", {1000}, Scheme::kW8A8SC), HasSubstr("compressed"));
  // What ranks do not share is held whole, known or not.
  for (const char* name : {"model.layers.0.input_layernorm.module.bias", "model.rotary.inv_freq"})
    EXPECT_EQ(finder.find(name, {32}, {}).axis, CutAxis::kWhole);
}

TEST(Slicing, PartsThatDisagreeAreFound) {
  const ModelConfig config = config_of("llama", {4, 2, 8});
  const Partition partition(config, 4);
  const TensorCut cut{CutAxis::kRows, Extent::kKeyValue, 1, false};
  const Shape shape{16, 3};
  const std::vector<std::byte> bytes = random_bytes(shape, 1);
  std::vector<std::vector<std::byte>> stored;
  for (int64_t rank = 0; rank < 4; ++rank)
    stored.push_back(part_bytes(shape, 1, bytes, slice_of(shape, cut, partition, rank)));
  stored[2][5] ^= std::byte{1};
  std::vector<RankPart> parts;
  for (int64_t rank = 0; rank < 4; ++rank)
    parts.push_back({slice_of(shape, cut, partition, rank), stored[static_cast<size_t>(rank)]});
  std::vector<std::byte> merged(bytes.size());
  EXPECT_EQ(merge_rows({{16, 3}, 1}, parts, {0, 16}, merged), (DifferingRanks{2, 3}));
  const TensorCut once{CutAxis::kRankZero, Extent::kOne, 1, false};
  const RankPart second{slice_of(shape, once, partition, 1), bytes};
  EXPECT_FALSE(is_padding_zero(second, 1));
}

TEST(Slicing, ImpossibleNumbersOfRanksAreRefused) {
  const ModelConfig config = config_of("llama", {4, 2, 8});
  for (const int64_t tp : {int64_t{0}, int64_t{-1}, int64_t{1025}}) {
    EXPECT_THAT(error_message(ErrorCode::kUsage, [&] { (void)Partition(config, tp); }),
                HasSubstr("from 1 to 1024"));
  }
}

}  // namespace
}  // namespace llmq::formats
