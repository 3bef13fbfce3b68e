// Prefill and decode of schemes that differ between them.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <vector>

#include "runtime/model/generate.h"
#include "runtime/model/model.h"
#include "tests/runtime/model/model_testing.h"
#include "tests/runtime/model/scheme_folders.h"

namespace llmq::runtime {
namespace {

using quant::ConstMatrixF32;

constexpr int64_t kVocabulary = 120;

constexpr const char* kDense = "qwen2-untied";
constexpr const char* kMixtures[] = {"qwen2-moe", "qwen3-moe"};

std::unique_ptr<Model> load(const std::string& tag, const ModelOptions& options = {},
                            const char* golden = kDense) {
  const testing::TemporaryFolder place;
  testing::int8_folder(golden, tag).write(place.path());
  return Model::load(place.path(), options);
}

std::vector<int32_t> some_tokens(size_t n, int32_t first) {
  std::vector<int32_t> tokens(n);
  for (size_t i = 0; i < n; ++i) tokens[i] = (first + static_cast<int32_t>(i) * 31) % 97;
  return tokens;
}

struct Text {
  std::vector<int32_t> tokens;
  Phase phase = Phase::kPrefill;
};

/// Logits of every token of texts that are fed together, by text.
std::vector<std::vector<float>> scores(Model& model, const std::vector<Text>& texts) {
  std::vector<Sequence> sequences;
  std::vector<BatchItem> items;
  sequences.reserve(texts.size());
  for (const Text& text : texts) {
    sequences.push_back(model.new_sequence());
    items.push_back({&sequences.back(), text.tokens, 0, text.phase});
  }
  std::vector<std::vector<float>> logits(texts.size());
  model.score(items, [&](const ConstMatrixF32& rows, std::span<const RowOrigin> origins) {
    for (size_t row = 0; row < origins.size(); ++row) {
      const float* from = rows.data + static_cast<int64_t>(row) * rows.row_stride;
      std::vector<float>& to = logits[static_cast<size_t>(origins[row].item)];
      to.insert(to.end(), from, from + rows.n_cols);
    }
  });
  return logits;
}

TEST(Phases, a_batch_of_both_gives_the_bits_of_separate_ones) {
  const std::vector<Text> texts{{some_tokens(5, 3), Phase::kPrefill},
                                {some_tokens(1, 9), Phase::kDecode},
                                {some_tokens(7, 20), Phase::kDecode},
                                {some_tokens(2, 40), Phase::kPrefill},
                                {some_tokens(9, 41), Phase::kPrefill}};
  for (const int64_t chunk : {4, 512}) {
    const auto model = load("W8A8_MIX", {.n_threads = 2, .prefill_chunk = chunk});
    const auto together = scores(*model, texts);
    std::vector<float> last(texts.size() * kVocabulary);
    std::vector<Sequence> sequences;
    std::vector<BatchItem> items;
    sequences.reserve(texts.size());
    for (const Text& text : texts) {
      sequences.push_back(model->new_sequence());
      items.push_back({&sequences.back(), text.tokens, 0, text.phase});
    }
    model->last_logits(items,
                       {last.data(), static_cast<int64_t>(texts.size()), kVocabulary, kVocabulary});
    for (size_t i = 0; i < texts.size(); ++i) {
      const std::vector<float> alone = scores(*model, {texts[i]}).front();
      EXPECT_EQ(together[i], alone) << i;
      EXPECT_EQ(std::vector<float>(last.begin() + static_cast<int64_t>(i) * kVocabulary,
                                   last.begin() + static_cast<int64_t>(i + 1) * kVocabulary),
                std::vector<float>(alone.end() - kVocabulary, alone.end()))
          << i;
    }
  }
}

TEST(Phases, one_that_is_asked_for_is_that_of_every_token) {
  const std::vector<int32_t> tokens = some_tokens(8, 3);
  const auto as_fed = load("W8A8_MIX");
  const auto want = scores(*as_fed, {{tokens, Phase::kPrefill}, {tokens, Phase::kDecode}});
  EXPECT_NE(want[0], want[1]);
  for (const Phase phase : {Phase::kPrefill, Phase::kDecode}) {
    const auto model = load("W8A8_MIX", {.phase = phase});
    for (const auto& got : scores(*model, {{tokens, Phase::kPrefill}, {tokens, Phase::kDecode}}))
      EXPECT_EQ(got, want[static_cast<size_t>(phase)]);
  }
}

TEST(Phases, prefill_runs_as_dynamic_and_decode_as_static) {
  const std::vector<int32_t> tokens = some_tokens(8, 3);
  const auto mixed =
      scores(*load("W8A8_MIX"), {{tokens, Phase::kPrefill}, {tokens, Phase::kDecode}});
  EXPECT_EQ(mixed[0], scores(*load("W8A8_DYNAMIC"), {{tokens}}).front());
  EXPECT_EQ(mixed[1], scores(*load("W8A8"), {{tokens}}).front());
}

TEST(Phases, experts_run_as_dynamic_in_prefill_and_as_static_in_decode) {
  const std::vector<int32_t> tokens{3, 34, 65, 2, 33, 64, 90, 17};
  for (const char* golden : kMixtures) {
    const auto mixed = scores(*load("W8A8_MIX", {}, golden),
                              {{tokens, Phase::kPrefill}, {tokens, Phase::kDecode}});
    EXPECT_EQ(mixed[0], scores(*load("W8A8_DYNAMIC", {}, golden), {{tokens}}).front()) << golden;
    EXPECT_EQ(mixed[1], scores(*load("W8A8", {}, golden), {{tokens}}).front()) << golden;
    EXPECT_NE(mixed[0], mixed[1]) << golden;
  }
}

TEST(Phases, an_expert_takes_each_of_its_tokens_in_the_token_s_phase) {
  const std::vector<Text> texts{{{3, 34, 65}, Phase::kPrefill},
                                {{17, 4, 80, 31}, Phase::kDecode},
                                {{90}, Phase::kPrefill},
                                {{5, 6}, Phase::kDecode}};
  for (const char* golden : kMixtures) {
    const auto model = load("W8A8_MIX", {.n_threads = 2}, golden);
    const auto together = scores(*model, texts);
    for (size_t i = 0; i < texts.size(); ++i)
      EXPECT_EQ(together[i], scores(*model, {texts[i]}).front()) << golden << " " << i;
  }
}

TEST(Phases, they_change_nothing_for_other_schemes) {
  const std::vector<int32_t> tokens = some_tokens(8, 3);
  for (const char* tag : {"W8A8", "W8A8_DYNAMIC", "W8A8S"}) {
    const auto logits = scores(*load(tag), {{tokens, Phase::kPrefill}, {tokens, Phase::kDecode}});
    EXPECT_EQ(logits[0], logits[1]) << tag;
    const auto forced = load(tag, {.phase = Phase::kDecode});
    EXPECT_EQ(scores(*forced, {{tokens}}).front(), logits[0]) << tag;
  }
}

// Feeding the prompt as prefill and each chosen token as decode, one by one.
TEST(Phases, generation_reads_its_own_tokens_as_decode) {
  const auto model = load("W8A8_MIX");
  const std::vector<int32_t> prompt = some_tokens(11, 3);
  const auto greedy = [&](Phase fed_back) {
    Sequence sequence = model->new_sequence();
    std::vector<int32_t> ids;
    std::vector<int32_t> pending = prompt;
    Phase phase = Phase::kPrefill;
    std::vector<float> logits(kVocabulary);
    while (ids.size() < 24) {
      const BatchItem item{&sequence, pending, 0, phase};
      model->last_logits({&item, 1}, {logits.data(), 1, kVocabulary, kVocabulary});
      ids.push_back(
          static_cast<int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin()));
      pending.assign(1, ids.back());
      phase = fed_back;
    }
    return ids;
  };
  GenerateRequest request;
  request.prompt = prompt;
  request.max_new_tokens = 24;
  request.sampling.temperature = 0.0F;
  request.stop_ids.emplace();
  const auto results = generate(*model, {&request, 1});
  EXPECT_EQ(results.front().ids, greedy(Phase::kDecode));
  EXPECT_NE(results.front().ids, greedy(Phase::kPrefill));
}

TEST(Phases, rows_fall_into_runs_of_one_phase) {
  const std::vector<Phase> phases{Phase::kDecode, Phase::kDecode, Phase::kPrefill, Phase::kDecode};
  const std::vector<PhaseRun> runs = phase_runs(phases);
  ASSERT_EQ(runs.size(), 3U);
  EXPECT_EQ(runs[0].n_rows, 2);
  EXPECT_EQ(runs[1].first_row, 2);
  EXPECT_EQ(runs[1].phase, Phase::kPrefill);
  EXPECT_EQ(runs[2].first_row, 3);
  EXPECT_TRUE(phase_runs({}).empty());
  for (const Phase phase : {Phase::kPrefill, Phase::kDecode})
    EXPECT_EQ(parse_phase(phase_name(phase)), phase);
  EXPECT_ANY_THROW(parse_phase("both"));
}

}  // namespace
}  // namespace llmq::runtime
