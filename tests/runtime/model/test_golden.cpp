// The forward pass against tests/golden: an independent float64 decoder on tiny random models.

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "runtime/model/generate.h"
#include "runtime/model/model.h"
#include "tests/runtime/model/model_testing.h"

namespace llmq::runtime {
namespace {

using formats::Json;
using quant::ConstMatrixF32;

std::vector<std::string> golden_names() {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(testing::golden_root())) {
    if (std::filesystem::exists(entry.path() / "golden.json"))
      names.push_back(entry.path().filename().string());
  }
  std::sort(names.begin(), names.end());
  return names;
}

class GoldenModel : public ::testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    folder_ = testing::golden_root() / GetParam();
    golden_ = formats::read_json_file(folder_ / "golden.json");
    model_ = Model::load(folder_);
  }

  [[nodiscard]] double tolerance(const char* of) const { return golden_["tolerance"][of]; }

  std::filesystem::path folder_;
  Json golden_;
  std::unique_ptr<Model> model_;
};

double worst_difference(const float* got, const std::vector<double>& want) {
  double worst = 0.0;
  for (size_t i = 0; i < want.size(); ++i) {
    const double difference = std::abs(static_cast<double>(got[i]) - want[i]);
    worst = std::isnan(difference) ? difference : std::max(worst, difference);
  }
  return worst;
}

TEST_P(GoldenModel, logits_are_within_the_stored_tolerance_at_every_stored_position) {
  for (const Json& prompt : golden_["prompts"]) {
    const std::vector<int32_t> ids = prompt["ids"];
    const std::vector<float> logits = testing::all_logits(*model_, ids);
    const std::vector<size_t> positions = prompt["logit_positions"];
    ASSERT_FALSE(positions.empty());
    for (size_t i = 0; i < positions.size(); ++i) {
      const std::vector<double> want = prompt["logits"][i];
      const auto vocab = static_cast<size_t>(model_->config().vocab_size);
      ASSERT_EQ(want.size(), vocab);
      ASSERT_LE((positions[i] + 1) * vocab, logits.size());
      EXPECT_LE(worst_difference(logits.data() + positions[i] * vocab, want), tolerance("logits"))
          << "position " << positions[i] << " of " << ids.size() << " tokens";
    }
  }
}

TEST_P(GoldenModel, hidden_state_of_every_layer_is_within_the_stored_tolerance) {
  for (const Json& prompt : golden_["prompts"]) {
    const std::vector<int32_t> ids = prompt["ids"];
    const Json& stages = prompt["last_hidden"];
    std::vector<bool> seen(stages.size());
    Sequence sequence = model_->new_sequence();
    const BatchItem item{&sequence, ids};
    model_->forward(
        {&item, 1}, {},
        [&](int64_t stage, const ConstMatrixF32& hidden, std::span<const RowOrigin> rows) {
          ASSERT_LT(static_cast<size_t>(stage), stages.size());
          if (rows.back().token + 1 != static_cast<int64_t>(ids.size())) return;
          seen[static_cast<size_t>(stage)] = true;
          const float* last = hidden.data + (hidden.n_rows - 1) * hidden.row_stride;
          EXPECT_LE(worst_difference(last, stages[static_cast<size_t>(stage)]), tolerance("hidden"))
              << "stage " << stage << " of " << ids.size() << " tokens";
        });
    EXPECT_TRUE(std::all_of(seen.begin(), seen.end(), [](bool s) { return s; }));
  }
}

TEST_P(GoldenModel, mean_negative_log_likelihood_is_within_the_stored_tolerance) {
  for (const Json& prompt : golden_["prompts"]) {
    const std::vector<int32_t> ids = prompt["ids"];
    const std::vector<float> logits = testing::all_logits(*model_, ids);
    const auto vocab = static_cast<size_t>(model_->config().vocab_size);
    double total = 0.0;
    for (size_t i = 0; i + 1 < ids.size(); ++i) {
      const std::span<const float> row(logits.data() + i * vocab, vocab);
      const double largest = *std::max_element(row.begin(), row.end());
      double sum = 0.0;
      for (const float logit : row) sum += std::exp(logit - largest);
      total += largest + std::log(sum) - row[static_cast<size_t>(ids[i + 1])];
    }
    EXPECT_NEAR(total / static_cast<double>(ids.size() - 1), prompt["mean_nll"].get<double>(),
                tolerance("nll"));
  }
}

TEST_P(GoldenModel, greedy_continuation_is_the_reference_s) {
  std::vector<GenerateRequest> requests;
  for (const Json& prompt : golden_["prompts"]) {
    GenerateRequest request;
    request.prompt = prompt["ids"].get<std::vector<int32_t>>();
    request.max_new_tokens = static_cast<int64_t>(prompt["greedy_ids"].size());
    requests.push_back(request);
  }
  const std::vector<GenerateResult> results = generate(*model_, requests);
  ASSERT_EQ(results.size(), requests.size());
  for (size_t i = 0; i < results.size(); ++i) {
    EXPECT_EQ(results[i].ids, golden_["prompts"][i]["greedy_ids"].get<std::vector<int32_t>>());
    EXPECT_EQ(results[i].finish_reason, FinishReason::kLength);
  }
}

INSTANTIATE_TEST_SUITE_P(, GoldenModel, ::testing::ValuesIn(golden_names()), [](const auto& test) {
  std::string name = test.param;
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
});

}  // namespace
}  // namespace llmq::runtime
