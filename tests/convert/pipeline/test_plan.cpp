#include "convert/pipeline/plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "tests/convert/checkpoint_writer.h"
#include "tests/tools/test_files.h"

namespace llmq::convert {
namespace {

using formats::Scheme;
using test::OrderedJson;
using testing::ElementsAre;

class PlanTest : public testing::Test {
 protected:
  [[nodiscard]] FolderPlan make() {
    std::filesystem::remove_all(job_.source);
    test::write_hollow_checkpoint(job_.source, config_, test::tensors_of_config(config_, "BF16"));
    return make_folder_plan(job_);
  }
  [[nodiscard]] std::vector<int64_t> legal_tp() { return legal_tp_sizes(make()); }

  test::TemporaryFolder folder_;
  OrderedJson config_ = test::tiny_qwen2_config();
  FolderJob job_ = [this] {
    FolderJob job;
    job.source = folder_ / "source";
    job.recipe = builtin_recipe("w8a16");
    return job;
  }();
};

TEST_F(PlanTest, FilesAreNamedAfterTheSchemeOrModelWhereFloat) {
  job_.part_size_bytes = 12345;
  EXPECT_EQ(make().naming.stem, "quant_model_weight_w8a16");
  EXPECT_EQ(make().naming.part_size_bytes, 12345U);
  job_.recipe->rules.push_back({"*.none", Scheme::kW8A8Dynamic});
  EXPECT_EQ(make().naming.stem, "quant_model_weight_w8a8_dynamic");
  job_.recipe.reset();
  EXPECT_EQ(make().naming.stem, "model");
}

TEST_F(PlanTest, TensorParallelSizesDivideHeadsMlpAndVocabulary) {
  // 4 heads, 2 KV heads (replicated at 4), 128 and 96 rows.
  EXPECT_THAT(legal_tp(), ElementsAre(1, 2, 4));
  config_["vocab_size"] = 98;
  EXPECT_THAT(legal_tp(), ElementsAre(1, 2));
  config_["vocab_size"] = 96;
  config_["intermediate_size"] = 127;
  EXPECT_THAT(legal_tp(), ElementsAre(1));
}

TEST_F(PlanTest, KvHeadsAreReplicatedOnlyInWholeNumbers) {
  config_["num_attention_heads"] = 12;
  config_["num_key_value_heads"] = 3;
  config_["head_dim"] = 8;
  config_["intermediate_size"] = 144;
  // 2 and 4 divide the 12 heads, but 3 KV heads neither split nor repeat over them.
  EXPECT_THAT(legal_tp(), ElementsAre(1, 3, 6, 12));
}

TEST_F(PlanTest, QueryHeadsArePaddedWhereTheyDoNotDivide) {
  config_["num_attention_heads"] = 6;
  config_["num_key_value_heads"] = 2;
  config_["head_dim"] = 8;
  config_["intermediate_size"] = 144;
  // 4 ranks have two of three heads each, or one and padding.
  EXPECT_THAT(legal_tp(), ElementsAre(1, 2, 4, 6));
}

TEST_F(PlanTest, GroupsOfRowParallelLinearsStayWhole) {
  job_.recipe->rules = {{"*", Scheme::kW8A16, true, 64}};
  EXPECT_THAT(legal_tp(), ElementsAre(1));  // o_proj has 64 columns: one group
  job_.recipe->rules = {{"*", Scheme::kW8A16, true, 32}};
  EXPECT_THAT(legal_tp(), ElementsAre(1, 2));
}

TEST_F(PlanTest, GroupsOfExpertsStayWholeToo) {
  config_["model_type"] = "qwen3_moe";
  config_["num_experts"] = 2;
  config_["num_experts_per_tok"] = 1;
  config_["moe_intermediate_size"] = 64;
  job_.recipe->rules = {{"*.experts.*", Scheme::kW8A16, true, 32}};
  EXPECT_THAT(legal_tp(), ElementsAre(1, 2));
  job_.recipe->rules = {{"*.experts.*", Scheme::kW8A16}};
  EXPECT_THAT(legal_tp(), ElementsAre(1, 2, 4));
}

TEST_F(PlanTest, PeakMemoryGrowsWithThreadsAndNotWithTheModel) {
  const FolderPlan small = make();
  EXPECT_GT(expected_peak_memory_bytes(small, 8), expected_peak_memory_bytes(small, 1));
  config_["num_hidden_layers"] = 20;
  const FolderPlan deep = make();
  EXPECT_LT(expected_peak_memory_bytes(deep, 1),
            expected_peak_memory_bytes(small, 1) + (uint64_t{1} << 21));
}

TEST_F(PlanTest, PeakMemoryCountsFloatCopiesOfALayerThatIsSmoothedOrRotated) {
  job_.recipe = builtin_recipe("w8a8");
  const uint64_t plain = expected_peak_memory_bytes(make(), 1);
  // q, o [64, 64], k, v [32, 64], gate, up, down [128, 64] of one layer, not of both.
  constexpr uint64_t kLayer = 4 * (2 * 64 * 64 + 2 * 32 * 64 + 3 * 128 * 64);
  job_.recipe->smooth = SmoothRecipe{"m4", std::nullopt, std::nullopt, {}};
  const uint64_t smoothed = expected_peak_memory_bytes(make(), 1);
  EXPECT_GE(smoothed, plain + kLayer);
  EXPECT_LT(smoothed, plain + 2 * kLayer + 4 * 64 * 24'000);
  job_.recipe->rotate = true;
  EXPECT_EQ(expected_peak_memory_bytes(make(), 1), smoothed + 4 * 128 * 64);
}

TEST_F(PlanTest, PeakMemoryCountsSecondMomentsOfEveryGroupThatGptqLooksAt) {
  job_.recipe = builtin_recipe("w8a8_dynamic");
  job_.recipe->rules[0].method.kind = quant::WeightMethod::Kind::kGptq;
  job_.recipe->keep_float = {"lm_head", "*.mlp.*"};
  const uint64_t attention = expected_peak_memory_bytes(make(), 1);
  job_.recipe->keep_float = {"lm_head"};
  const uint64_t all = expected_peak_memory_bytes(make(), 1);
  // gate and up read 64 channels, down 128: float64 matrices, twice while they are handed over.
  constexpr uint64_t kMoments = 2 * 8 * (64 * 64 + 128 * 128);
  EXPECT_GE(all, attention + kMoments);
  EXPECT_LT(all, attention + kMoments + 2 * 4 * 512 * (64 + 128) + 1024);
  job_.recipe->rules[0].method.kind = quant::WeightMethod::Kind::kRound;
  EXPECT_LT(expected_peak_memory_bytes(make(), 1), attention);
}

TEST_F(PlanTest, LedgerJsonSaysWhatBecomesOfEachTensor) {
  const FolderPlan plan = make();
  const formats::Json list = ledger_json(plan.ledger);
  ASSERT_EQ(list.size(), plan.source.tensors().size());
  uint64_t output_bytes = 0;
  for (const formats::Json& item : list) output_bytes += item["output_bytes"].get<uint64_t>();
  EXPECT_EQ(output_bytes, plan.ledger.output_bytes());
  const auto& q = list[2];
  EXPECT_EQ(q["name"], "model.layers.0.self_attn.q_proj.weight");
  EXPECT_EQ(q["fate"], "quantized");
  EXPECT_EQ(q["scheme"], "W8A16");
  EXPECT_EQ(q["dtype"], "BF16");
  EXPECT_EQ(q["shape"], (std::vector<int64_t>{64, 64}));
  EXPECT_EQ(q["size_bytes"], 8192);
  EXPECT_EQ(q["output_bytes"], 4096 + 2 * 4 * 64);
  EXPECT_EQ(q["outputs"][1]["name"], "model.layers.0.self_attn.q_proj.weight_scale");
  EXPECT_FALSE(q.contains("reason"));
  EXPECT_EQ(list[0]["fate"], "copied");
  EXPECT_EQ(list[0]["scheme"], "FLOAT");
}

}  // namespace
}  // namespace llmq::convert
