#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <set>
#include <string>
#include <vector>

#include "runtime/evaluate/continuation.h"
#include "runtime/evaluate/random_text.h"
#include "runtime/evaluate/retrieval.h"
#include "runtime/model/generate.h"
#include "tests/runtime/evaluate/evaluate_testing.h"
#include "tests/runtime/model/model_testing.h"

namespace llmq::runtime {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::StartsWith;

constexpr RetrievalKind kPasskey = RetrievalKind::kPasskey;
constexpr RetrievalKind kKeyValue = RetrievalKind::kKeyValue;

// The tokenizers at hand: our own, and those of real models where they are there.
std::vector<Tokenizer> tokenizers() {
  std::vector<Tokenizer> list{ascii_tokenizer(true), ascii_tokenizer(false)};
  for (const char* folder : {"models/stories260k", "tokenizers/qwen2.5"}) {
    if (std::filesystem::exists(testing::data_root() / folder))
      list.push_back(Tokenizer::load(testing::data_root() / folder));
  }
  return list;
}

std::string haystack_of(const RetrievalCase& text) {
  return text.prompt.substr(text.haystack_begin, text.haystack_end - text.haystack_begin);
}

int64_t n_tokens(const RetrievalCase& text) {
  return static_cast<int64_t>(text.tokens.ids.size());
}

// Tokens of the longest sentence or pair of a haystack.
int64_t largest_unit(const Tokenizer& tokenizer, const RetrievalCase& text, RetrievalKind kind) {
  const std::string haystack = haystack_of(text);
  const std::string end = kind == kPasskey ? ". " : ",\n";
  size_t largest = 0;
  for (size_t begin = 0; begin < haystack.size();) {
    const size_t stop = std::min(haystack.find(end, begin), haystack.size() - 1) + 1;
    largest = std::max(largest, tokenizer.encode(haystack.substr(begin, stop - begin), {}).size());
    begin = stop;
  }
  return static_cast<int64_t>(largest);
}

TEST(RandomText, is_a_function_of_its_seeds_on_every_machine) {
  SeededNumbers numbers(7, 11);
  const std::vector<uint64_t> first{numbers.next(), numbers.next()};
  SeededNumbers again(7, 11);
  EXPECT_EQ(again.next(), first[0]);
  EXPECT_EQ(again.next(), first[1]);
  EXPECT_NE(SeededNumbers(7, 12).next(), first[0]);
  EXPECT_NE(SeededNumbers(8, 11).next(), first[0]);
}

TEST(RandomText, numbers_below_a_bound_reach_all_of_them_about_equally) {
  std::vector<int> counts(10);
  SeededNumbers numbers(1, 2);
  for (int i = 0; i < 10000; ++i) ++counts[static_cast<size_t>(numbers.below(10))];
  // Five standard deviations of a binomial with n = 10000, p = 0.1.
  for (const int count : counts) EXPECT_NEAR(count, 1000, 150);
}

TEST(RandomText, uuids_are_version_4_and_differ) {
  const std::string form("[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}");
  std::set<std::string> seen;
  for (uint64_t stream = 0; stream < 1000; ++stream) {
    SeededNumbers numbers(3, stream);
    const std::string uuid = random_uuid(numbers);
    EXPECT_THAT(uuid, ::testing::MatchesRegex(form));
    seen.insert(uuid);
  }
  EXPECT_EQ(seen.size(), 1000U);
}

TEST(RandomText, filler_has_no_digits_that_could_be_taken_for_a_key) {
  for (uint64_t stream = 0; stream < 500; ++stream) {
    SeededNumbers numbers(0, stream);
    const std::string sentence = filler_sentence(numbers);
    EXPECT_EQ(sentence.find_first_of("0123456789"), std::string::npos) << sentence;
    EXPECT_TRUE(sentence.ends_with(". ")) << sentence;
  }
}

TEST(Retrieval, texts_have_the_asked_length_in_the_model_s_own_tokens_within_a_unit) {
  for (const Tokenizer& tokenizer : tokenizers()) {
    for (const RetrievalKind kind : {kPasskey, kKeyValue}) {
      for (const int64_t length : {700, 1024, 5000}) {
        for (const double depth : {0.0, 0.4, 1.0}) {
          const RetrievalCase text = make_retrieval_case(tokenizer, {kind, length, depth, 5});
          EXPECT_LE(n_tokens(text), length);
          // Twice: the next unit may be longer than those that are in.
          EXPECT_GT(n_tokens(text), length - 2 * largest_unit(tokenizer, text, kind))
              << retrieval_name(kind) << " " << length;
        }
      }
    }
  }
}

TEST(Retrieval, tokens_are_those_of_prompt_and_answer_as_one_text) {
  for (const Tokenizer& tokenizer : tokenizers()) {
    for (const RetrievalKind kind : {kPasskey, kKeyValue}) {
      const RetrievalCase text = make_retrieval_case(tokenizer, {kind, 800, 0.5, 1});
      const std::vector<int32_t> all = tokenizer.encode(
          text.prompt + text.answer, {.parse_special = false, .add_bos = tokenizer.adds_bos()});
      EXPECT_EQ(text.tokens.ids, all);
      const std::span<const int32_t> answer =
          std::span(all).subspan(static_cast<size_t>(text.tokens.answer_begin));
      EXPECT_TRUE(tokenizer.decode(answer).ends_with(text.answer.substr(2)));
      EXPECT_LE(answer.size(), text.answer.size() + 1);
    }
  }
}

TEST(Retrieval, a_seed_gives_the_same_text_and_another_seed_another) {
  const Tokenizer tokenizer = ascii_tokenizer();
  for (const RetrievalKind kind : {kPasskey, kKeyValue}) {
    const RetrievalCase text = make_retrieval_case(tokenizer, {kind, 900, 0.5, 3});
    EXPECT_EQ(make_retrieval_case(tokenizer, {kind, 900, 0.5, 3}).prompt, text.prompt);
    const RetrievalCase other = make_retrieval_case(tokenizer, {kind, 900, 0.5, 4});
    EXPECT_NE(other.answer, text.answer);
    EXPECT_NE(haystack_of(other), haystack_of(text));
  }
}

TEST(Retrieval, passkey_stands_at_the_asked_depth_and_nowhere_else) {
  const Tokenizer tokenizer = ascii_tokenizer();
  for (uint64_t seed = 0; seed < 20; ++seed) {
    for (const double depth : {0.0, 0.25, 0.5, 0.9, 1.0}) {
      const RetrievalCase text = make_retrieval_case(tokenizer, {kPasskey, 2000, depth, seed});
      const std::string needle = "The pass key is" + text.answer + ". ";
      EXPECT_THAT(text.prompt.substr(text.needle_begin), StartsWith(needle));
      const size_t needle_end = text.prompt.find("is the pass key. ", text.needle_begin) +
                                std::string("is the pass key. ").size();
      const auto before = static_cast<double>(text.needle_begin - text.haystack_begin);
      const auto filler = before + static_cast<double>(text.haystack_end - needle_end);
      // Half of the longest sentence that the words allow: 51 bytes.
      EXPECT_NEAR(before, depth * filler, 26.0) << depth;
      EXPECT_EQ(text.prompt.find(text.answer),
                text.needle_begin + std::string("The pass key is").size());
      EXPECT_EQ(text.prompt.find(text.answer, needle_end), std::string::npos);
    }
  }
}

TEST(Retrieval, asked_pair_stands_at_the_asked_depth_with_its_own_value) {
  const Tokenizer tokenizer = ascii_tokenizer();
  for (const double depth : {0.0, 0.3, 0.5, 1.0}) {
    const RetrievalCase text = make_retrieval_case(tokenizer, {kKeyValue, 4000, depth, 2});
    const formats::Json pairs = formats::parse_json("{" + haystack_of(text) + "}", "the haystack");
    ASSERT_EQ(static_cast<int64_t>(pairs.size()), text.n_units);
    ASSERT_GT(text.n_units, 5);
    const auto asked =
        static_cast<size_t>(std::llround(depth * static_cast<double>(text.n_units - 1)));
    const auto item = std::next(pairs.begin(), static_cast<std::ptrdiff_t>(asked));
    EXPECT_EQ(item.value().get<std::string>(), text.answer);
    EXPECT_THAT(text.prompt.substr(text.needle_begin), StartsWith("\"" + item.key() + "\""));
    EXPECT_TRUE(text.prompt.ends_with("\"" + item.key() + "\": \""));
  }
}

TEST(Retrieval, depths_of_a_seed_share_their_haystack_so_that_it_is_fed_once) {
  const Tokenizer tokenizer = ascii_tokenizer();
  const RetrievalCase first = make_retrieval_case(tokenizer, {kKeyValue, 3000, 0.0, 2});
  const RetrievalCase last = make_retrieval_case(tokenizer, {kKeyValue, 3000, 1.0, 2});
  EXPECT_EQ(first.prompt.substr(0, first.haystack_end), last.prompt.substr(0, last.haystack_end));
}

TEST(Retrieval, a_length_without_room_says_how_many_tokens_are_needed) {
  const Tokenizer tokenizer = ascii_tokenizer();
  for (const RetrievalKind kind : {kPasskey, kKeyValue}) {
    const std::string message = error_of([&] {
      make_retrieval_case(tokenizer, {kind, 20, 0.0, 0});
    });
    EXPECT_THAT(message, HasSubstr("20 tokens is too short"));
    const std::string before_number = "at least ";
    ASSERT_THAT(message, HasSubstr(before_number));
    const int64_t needed =
        std::stoll(message.substr(message.find(before_number) + before_number.size()));
    EXPECT_EQ(n_tokens(make_retrieval_case(tokenizer, {kind, needed, 0.0, 0})), needed);
    EXPECT_THAT(error_of([&] {
                  make_retrieval_case(tokenizer, {kind, needed - 1, 0.0, 0});
                }),
                HasSubstr("at least"));
  }
}

class GoldenRetrieval : public ::testing::Test {
 protected:
  // 128 positions in the file; the texts here are longer.
  std::unique_ptr<Model> model_ = Model::load(testing::golden_root() / "qwen2-linear",
                                              {.prefill_chunk = 64, .allow_extrapolation = true});
  Tokenizer tokenizer_ = ascii_tokenizer();
};

TEST_F(GoldenRetrieval, greedy_match_is_what_generation_gives) {
  const std::vector<int32_t> prompt = tokenizer_.encode("The quiet baker waits", {.add_bos = true});
  GenerateRequest request;
  request.prompt = prompt;
  request.max_new_tokens = 12;
  request.stop_ids.emplace();
  const std::vector<int32_t> answer = generate(*model_, {&request, 1}).front().ids;
  ASSERT_EQ(answer.size(), 12U);
  ContinuationScorer scorer(*model_);
  Continuation continuation{prompt, static_cast<int64_t>(prompt.size())};
  continuation.ids.insert(continuation.ids.end(), answer.begin(), answer.end());
  EXPECT_TRUE(scorer.score(continuation).is_greedy);
  for (size_t i = 0; i < answer.size(); ++i) {
    Continuation wrong = continuation;
    int32_t& id = wrong.ids[prompt.size() + i];
    id = (id + 1) % 128;
    EXPECT_FALSE(scorer.score(wrong).is_greedy) << i;
  }
}

TEST_F(GoldenRetrieval, log_likelihood_is_that_of_the_dumped_logits_in_any_order) {
  const Continuation first = encode_continuation(tokenizer_, "A text with an end", " yes");
  const Continuation second = encode_continuation(tokenizer_, "A text with an end", " no indeed");
  const Continuation third = encode_continuation(tokenizer_, "Another", " answer");
  ContinuationScorer scorer(*model_);
  for (const Continuation* item : {&first, &second, &first, &third, &third, &second}) {
    const std::vector<float> logits = testing::all_logits(*model_, item->ids);
    long double want = 0.0L;
    for (auto t = static_cast<size_t>(item->answer_begin); t < item->ids.size(); ++t) {
      const std::span<const float> row(logits.data() + (t - 1) * 128, 128);
      long double sum = 0.0L;
      for (const float logit : row) sum += std::exp(static_cast<long double>(logit));
      want += static_cast<long double>(row[static_cast<size_t>(item->ids[t])]) - std::log(sum);
    }
    EXPECT_NEAR(scorer.score(*item).log_likelihood, static_cast<double>(want), 1e-11);
  }
}

TEST_F(GoldenRetrieval, a_grid_has_a_cell_for_each_length_and_depth) {
  RetrievalGrid grid;
  grid.lengths = {420, 300};
  grid.n_depths = 3;
  grid.n_seeds = 2;
  int64_t n_right = 0;
  int64_t n_cases = 0;
  const auto cells = run_retrieval(*model_, tokenizer_, grid,
                                   {[&](const RetrievalStep& step) {
                                      n_right += step.is_right ? 1 : 0;
                                      EXPECT_EQ(step.n_done, ++n_cases);
                                      EXPECT_EQ(step.n_total, 12);
                                    },
                                    {}});
  ASSERT_EQ(cells.size(), 6U);
  double right = 0.0;
  for (size_t i = 0; i < cells.size(); ++i) {
    EXPECT_EQ(cells[i].length, i < 3 ? 420 : 300);
    EXPECT_EQ(cells[i].depth, 0.5 * static_cast<double>(i % 3));
    EXPECT_EQ(cells[i].n, 2);
    right += 2.0 * cells[i].accuracy;
  }
  EXPECT_EQ(n_cases, 12);
  EXPECT_EQ(right, static_cast<double>(n_right));
}

TEST_F(GoldenRetrieval, lengths_beyond_the_model_or_too_short_are_refused_before_anything_runs) {
  const auto bounded = Model::load(testing::golden_root() / "qwen2-linear");
  const auto refuse = [&](std::vector<int64_t> lengths) {
    RetrievalGrid grid;
    grid.lengths = std::move(lengths);
    return error_of([&] {
      run_retrieval(*bounded, tokenizer_, grid,
                    {[](const RetrievalStep&) { ADD_FAILURE() << "a text was run"; }, {}});
    });
  };
  EXPECT_THAT(refuse({100000}), HasSubstr("positions"));
  EXPECT_THAT(refuse({8}), HasSubstr("too short"));
}

TEST_F(GoldenRetrieval, a_single_depth_is_the_middle) {
  RetrievalGrid grid;
  grid.lengths = {300};
  grid.n_depths = 1;
  const auto cells = run_retrieval(*model_, tokenizer_, grid);
  ASSERT_EQ(cells.size(), 1U);
  EXPECT_EQ(cells[0].depth, 0.5);
}

}  // namespace
}  // namespace llmq::runtime
