#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <string>
#include <vector>

#include "runtime/evaluate/text_score.h"
#include "tests/runtime/evaluate/evaluate_testing.h"
#include "tests/runtime/model/model_testing.h"

namespace llmq::runtime {
namespace {

using formats::Json;
using ::testing::HasSubstr;

std::unique_ptr<Model> golden_model(const std::string& name, const ModelOptions& options = {}) {
  return Model::load(testing::golden_root() / name, options);
}

std::vector<int32_t> token_ids(size_t n, int vocab, unsigned seed) {
  std::vector<int32_t> ids(n);
  for (int32_t& id : ids) {
    seed = seed * 1664525U + 1013904223U;
    id = static_cast<int32_t>((seed >> 8U) % static_cast<unsigned>(vocab));
  }
  return ids;
}

// ln softmax of each row of logits [n, vocab] in extended precision.
std::vector<std::vector<long double>> log_probabilities(const std::vector<float>& logits,
                                                        size_t vocab) {
  std::vector<std::vector<long double>> rows;
  for (size_t begin = 0; begin < logits.size(); begin += vocab) {
    std::vector<long double> row(logits.begin() + static_cast<std::ptrdiff_t>(begin),
                                 logits.begin() + static_cast<std::ptrdiff_t>(begin + vocab));
    long double sum = 0.0L;
    for (const long double value : row) sum += std::exp(value);
    for (long double& value : row) value -= std::log(sum);
    rows.push_back(row);
  }
  return rows;
}

// Residual stream of every layer and token: [layer][token·hidden].
std::vector<std::vector<float>> layer_states(Model& model, std::span<const int32_t> ids) {
  std::vector<std::vector<float>> states(static_cast<size_t>(model.config().n_layers + 2));
  Sequence sequence = model.new_sequence();
  const BatchItem item{&sequence, ids};
  model.forward({&item, 1}, {}, [&](int64_t stage, const quant::ConstMatrixF32& hidden, auto) {
    auto& state = states[static_cast<size_t>(stage)];
    state.insert(state.end(), hidden.data, hidden.data + hidden.n_rows * hidden.n_cols);
  });
  return {states.begin() + 1, states.end() - 1};
}

void expect_same_bits(const TextScore& a, const TextScore& b) {
  EXPECT_EQ(a.n_tokens, b.n_tokens);
  EXPECT_EQ(a.mean_nll, b.mean_nll);
  ASSERT_EQ(a.reference.has_value(), b.reference.has_value());
  if (!a.reference) return;
  EXPECT_EQ(a.reference->mean_nll, b.reference->mean_nll);
  EXPECT_EQ(a.reference->kl, b.reference->kl);
  EXPECT_EQ(a.reference->kl_p99, b.reference->kl_p99);
  EXPECT_EQ(a.reference->top1_agreement, b.reference->top1_agreement);
  ASSERT_EQ(a.reference->layers.size(), b.reference->layers.size());
  for (size_t i = 0; i < a.reference->layers.size(); ++i)
    EXPECT_EQ(a.reference->layers[i].relative_rms, b.reference->layers[i].relative_rms);
}

TEST(GoldenTextScore, mean_nll_of_every_golden_prompt_is_the_reference_s) {
  int n_prompts = 0;
  for (const auto& entry : std::filesystem::directory_iterator(testing::golden_root())) {
    if (!std::filesystem::exists(entry.path() / "golden.json")) continue;
    SCOPED_TRACE(entry.path().filename().string());
    const Json golden = formats::read_json_file(entry.path() / "golden.json");
    const auto model = Model::load(entry.path());
    for (const Json& prompt : golden["prompts"]) {
      TextScorer scorer(*model);
      scorer.add(prompt["ids"].get<std::vector<int32_t>>());
      EXPECT_NEAR(scorer.score().mean_nll, prompt["mean_nll"].get<double>(),
                  golden["tolerance"]["nll"].get<double>());
      EXPECT_EQ(scorer.score().n_tokens, static_cast<int64_t>(prompt["ids"].size()) - 1);
      ++n_prompts;
    }
  }
  EXPECT_GE(n_prompts, 20);
}

// Two models of one shape with nothing else in common, so that KL is large and no term small.
class GoldenReference : public ::testing::Test {
 protected:
  std::unique_ptr<Model> model_ = golden_model("qwen2-linear");
  std::unique_ptr<Model> reference_ = golden_model("qwen3-head-dim");
  std::vector<std::vector<int32_t>> pieces_{token_ids(50, 128, 1), token_ids(2, 128, 2),
                                            token_ids(83, 128, 3)};

  TextScore score(const ModelOptions& options) const {
    const auto model = golden_model("qwen2-linear", options);
    const auto reference = golden_model("qwen3-head-dim", options);
    TextScorer scorer(*model, reference.get());
    for (const auto& piece : pieces_) scorer.add(piece);
    return scorer.score();
  }
};

TEST_F(GoldenReference, kl_and_agreement_are_those_of_the_dumped_logits) {
  long double kl_sum = 0.0L;
  long double nll_sum = 0.0L;
  long double reference_nll_sum = 0.0L;
  int64_t n_same = 0;
  std::vector<long double> kls;
  for (const auto& ids : pieces_) {
    const auto q = log_probabilities(testing::all_logits(*model_, ids), 128);
    const auto p = log_probabilities(testing::all_logits(*reference_, ids), 128);
    for (size_t t = 0; t + 1 < ids.size(); ++t) {
      long double kl = 0.0L;
      for (size_t i = 0; i < 128; ++i) kl += std::exp(p[t][i]) * (p[t][i] - q[t][i]);
      kls.push_back(kl);
      kl_sum += kl;
      nll_sum -= q[t][static_cast<size_t>(ids[t + 1])];
      reference_nll_sum -= p[t][static_cast<size_t>(ids[t + 1])];
      n_same += std::max_element(p[t].begin(), p[t].end()) - p[t].begin() ==
                        std::max_element(q[t].begin(), q[t].end()) - q[t].begin()
                    ? 1
                    : 0;
    }
  }
  const auto n = static_cast<long double>(kls.size());
  std::sort(kls.begin(), kls.end());
  const TextScore got = score({});
  ASSERT_TRUE(got.reference.has_value());
  EXPECT_EQ(got.n_tokens, 49 + 1 + 82);
  EXPECT_EQ(got.n_pieces, 3);
  // Float64 against extended precision: a few hundred roundings of terms near one.
  EXPECT_NEAR(got.reference->kl, static_cast<double>(kl_sum / n), 1e-12);
  EXPECT_NEAR(got.mean_nll, static_cast<double>(nll_sum / n), 1e-12);
  EXPECT_NEAR(got.reference->mean_nll, static_cast<double>(reference_nll_sum / n), 1e-12);
  EXPECT_NEAR(got.reference->kl_p99, static_cast<double>(kls[130]), 1e-12);  // ⌈0.99·132⌉ = 131
  EXPECT_EQ(got.reference->top1_agreement,
            static_cast<double>(n_same) / static_cast<double>(kls.size()));
  EXPECT_GT(got.reference->kl, 0.1);
}

TEST_F(GoldenReference, error_of_each_layer_is_that_of_the_dumped_hidden_states) {
  std::vector<long double> sums(2);
  int64_t n_tokens = 0;
  for (const auto& ids : pieces_) {
    const std::span<const int32_t> fed(ids.data(), ids.size() - 1);
    const auto ours = layer_states(*model_, fed);
    const auto theirs = layer_states(*reference_, fed);
    n_tokens += static_cast<int64_t>(fed.size());
    for (size_t layer = 0; layer < 2; ++layer) {
      for (size_t t = 0; t < fed.size(); ++t) {
        long double difference = 0.0L;
        long double norm = 0.0L;
        for (size_t i = t * 32; i < (t + 1) * 32; ++i) {
          const auto r = static_cast<long double>(theirs[layer][i]);
          difference += (static_cast<long double>(ours[layer][i]) - r) *
                        (static_cast<long double>(ours[layer][i]) - r);
          norm += r * r;
        }
        sums[layer] += difference / norm;
      }
    }
  }
  const TextScore got = score({});
  ASSERT_EQ(got.reference->layers.size(), 2U);
  for (size_t layer = 0; layer < 2; ++layer) {
    EXPECT_EQ(got.reference->layers[layer].layer, static_cast<int64_t>(layer));
    const auto want =
        static_cast<double>(std::sqrt(sums[layer] / static_cast<long double>(n_tokens)));
    EXPECT_NEAR(got.reference->layers[layer].relative_rms, want, want * 1e-12);
  }
}

TEST_F(GoldenReference, bits_depend_on_neither_chunk_nor_threads_nor_pages) {
  const TextScore want = score({.n_threads = 1, .page_size = 128, .prefill_chunk = 512});
  for (const int64_t chunk : {1, 7, 40}) {
    for (const int n_threads : {1, 2, 3}) {
      SCOPED_TRACE(chunk);
      expect_same_bits(score({.n_threads = n_threads, .page_size = 5, .prefill_chunk = chunk}),
                       want);
    }
  }
}

TEST_F(GoldenReference, a_model_against_itself_has_no_distance_at_all) {
  const auto same = golden_model("qwen2-linear");
  TextScorer scorer(*model_, same.get());
  for (const auto& piece : pieces_) scorer.add(piece);
  const TextScore score = scorer.score();
  EXPECT_EQ(score.reference->kl, 0.0);
  EXPECT_EQ(score.reference->kl_p99, 0.0);
  EXPECT_EQ(score.reference->top1_agreement, 1.0);
  EXPECT_EQ(score.reference->mean_nll, score.mean_nll);
  for (const LayerError& error : score.reference->layers) EXPECT_EQ(error.relative_rms, 0.0);
}

TEST_F(GoldenReference, models_of_other_depth_are_compared_without_layers) {
  const auto deeper = golden_model("qwen2-tied");
  TextScorer scorer(*model_, deeper.get());
  scorer.add(pieces_[0]);
  EXPECT_GT(scorer.score().reference->kl, 0.0);
  EXPECT_TRUE(scorer.score().reference->layers.empty());
}

TEST_F(GoldenReference, another_vocabulary_is_refused_with_both_sizes) {
  const auto other = golden_model("mistral");
  const std::string message = error_of([&] { TextScorer scorer(*model_, other.get()); });
  EXPECT_THAT(message, HasSubstr("128"));
  EXPECT_THAT(message, HasSubstr("100"));
}

TEST(TextScore, pieces_without_a_second_token_score_nothing) {
  const auto model = golden_model("qwen2-linear");
  TextScorer scorer(*model);
  scorer.add({});
  scorer.add(std::vector<int32_t>{5});
  EXPECT_EQ(scorer.score().n_tokens, 0);
  EXPECT_EQ(scorer.score().n_pieces, 0);
}

TEST(TextScore, ids_outside_the_vocabulary_are_refused_also_where_they_are_only_predicted) {
  const auto model = golden_model("qwen2-linear");
  TextScorer scorer(*model);
  EXPECT_THAT(error_of([&] { scorer.add(std::vector<int32_t>{1, 128}); }), HasSubstr("128"));
}

TEST(TextScore, damaged_weights_are_reported_not_averaged) {
  testing::TemporaryFolder folder;
  const auto source = testing::golden_root() / "llama-biases";
  testing::NewTensors tensors = testing::read_tensors(source);
  testing::NewTensor& weight = tensors.at("model.layers.0.mlp.up_proj.weight");
  ASSERT_EQ(weight.dtype, formats::DType::kF32);
  const float nan = std::numeric_limits<float>::quiet_NaN();
  std::memcpy(weight.bytes.data(), &nan, sizeof(nan));
  testing::write_model(folder.path(), formats::read_json_file(source / "config.json"), tensors);
  const auto model = Model::load(folder.path());
  TextScorer scorer(*model);
  EXPECT_THAT(error_of([&] {
                scorer.add(std::vector<int32_t>{1, 2, 3});
              }),
              HasSubstr("not finite"));
}

TEST(TextScore, a_long_piece_can_be_given_up_between_chunks) {
  const auto model = golden_model("qwen2-linear", {.prefill_chunk = 4});
  int n_ticks = 0;
  TextScorer scorer(*model, nullptr, [&] {
    if (++n_ticks == 3) throw formats::Error(formats::ErrorCode::kInterrupted, "enough");
  });
  error_of([&] { scorer.add(token_ids(60, 128, 9)); }, formats::ErrorCode::kInterrupted);
  EXPECT_EQ(n_ticks, 3);
}

}  // namespace
}  // namespace llmq::runtime
