// Mixtures of experts: routing against its formula, independence of how the work is cut, and what
// calibration sees of each expert.

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <string>
#include <vector>

#include "runtime/calibrate/calibrator.h"
#include "runtime/model/model.h"
#include "runtime/model/moe.h"
#include "tests/runtime/model/model_testing.h"

namespace llmq::runtime {
namespace {

constexpr const char* kModels[] = {"qwen2-moe", "qwen3-moe"};

std::vector<int32_t> some_tokens(size_t n) {
  std::vector<int32_t> ids(n);
  for (size_t i = 0; i < n; ++i) ids[i] = 3 + static_cast<int32_t>(i * 37 + i * i % 13) % 90;
  return ids;
}

TEST(Moe, routing_is_the_softmax_s_largest_probabilities_in_descending_order) {
  const std::vector<float> logits{0.25F, -1.5F, 3.0F, 2.0F, -8.0F, 2.5F, 0.0F, -0.125F};
  double sum = 0.0;
  for (const float logit : logits) sum += std::exp(static_cast<double>(logit));
  for (const bool normalizes : {false, true}) {
    std::vector<ExpertChoice> choices(3);
    route_token(logits, normalizes, choices);
    const std::vector<int64_t> want{2, 5, 3};
    double chosen = 0.0;
    for (const int64_t expert : want)
      chosen += std::exp(static_cast<double>(logits[static_cast<size_t>(expert)])) / sum;
    for (size_t i = 0; i < want.size(); ++i) {
      EXPECT_EQ(choices[i].expert, want[i]);
      const double p = std::exp(static_cast<double>(logits[static_cast<size_t>(want[i])])) / sum;
      const double weight = normalizes ? p / chosen : p;
      // Each exp errs by 1.1 ulp and one rounding of its argument (below 16, so 2^-20 relative);
      // sums of 8 and two divisions add a few roundings.
      EXPECT_NEAR(choices[i].weight, weight, weight * (0x1p-20 + 16 * 0x1p-24));
    }
  }
}

TEST(Moe, of_experts_with_equal_probability_the_first_are_chosen) {
  std::vector<ExpertChoice> choices(2);
  route_token(std::vector<float>{-1.0F, 2.0F, 2.0F, 2.0F}, true, choices);
  EXPECT_EQ(choices[0].expert, 1);
  EXPECT_EQ(choices[1].expert, 2);
  EXPECT_EQ(choices[0].weight, 0.5F);
  EXPECT_EQ(choices[1].weight, 0.5F);
}

TEST(Moe, logits_have_the_same_bits_for_every_chunk_batch_and_thread_count) {
  for (const char* name : kModels) {
    const std::filesystem::path folder = testing::golden_root() / name;
    const std::vector<int32_t> tokens = some_tokens(70);
    const auto reference = Model::load(folder, {.n_threads = 1});
    const std::vector<float> want = testing::all_logits(*reference, tokens);
    for (const ModelOptions& options : {ModelOptions{.n_threads = 1, .prefill_chunk = 1},
                                        ModelOptions{.n_threads = 2, .prefill_chunk = 7},
                                        ModelOptions{.n_threads = 3, .prefill_chunk = 64}}) {
      const auto model = Model::load(folder, options);
      EXPECT_EQ(testing::all_logits(*model, tokens), want) << name << " " << options.prefill_chunk;
    }
    Sequence first = reference->new_sequence();
    Sequence second = reference->new_sequence();
    const std::vector<int32_t> other = some_tokens(33);
    const std::vector<BatchItem> items{{&first, other}, {&second, tokens}};
    const auto n_vocab = static_cast<size_t>(reference->config().vocab_size);
    std::vector<float> last(2 * n_vocab);
    const auto width = static_cast<int64_t>(n_vocab);
    reference->last_logits(items, {last.data(), 2, width, width});
    EXPECT_TRUE(std::equal(want.end() - width, want.end(), last.begin() + width)) << name;
  }
}

TEST(Moe, calibration_counts_the_tokens_of_every_expert) {
  for (const char* name : kModels) {
    const std::filesystem::path folder = testing::golden_root() / name;
    const formats::ModelConfig config = formats::read_model_config(folder);
    const formats::Checkpoint checkpoint = formats::Checkpoint::open(folder);
    quant::ThreadTeam team(2);
    const std::vector<std::vector<int32_t>> samples{some_tokens(60), some_tokens(5)};
    Calibrator calibrator({&checkpoint, &config, nullptr}, samples, {}, team);
    for (int64_t layer = 0; layer < config.n_layers; ++layer) {
      int64_t n_read = 0;
      int64_t n_down = 0;
      for (const auto& [key, seen] : calibrator.advance()) {
        const bool is_expert = key.group == formats::FusedGroup::kExpertGateUp ||
                               key.group == formats::FusedGroup::kExpertDown;
        EXPECT_EQ(key.expert >= 0, is_expert);
        EXPECT_LT(key.expert, config.n_experts);
        if (key.group == formats::FusedGroup::kExpertGateUp) n_read += seen.n;
        if (key.group == formats::FusedGroup::kExpertDown) n_down += seen.n;
        if (key.group == formats::FusedGroup::kSharedDown) {
          EXPECT_EQ(seen.n, 65 * config.shared_expert_intermediate_size);
        }
      }
      const int64_t n_routed = config.is_moe_layer(layer) ? 65 * config.n_experts_per_token : 0;
      EXPECT_EQ(n_read, n_routed * config.hidden_size) << name << " " << layer;
      EXPECT_EQ(n_down, n_routed * config.moe_intermediate_size) << name << " " << layer;
    }
  }
}

}  // namespace
}  // namespace llmq::runtime
