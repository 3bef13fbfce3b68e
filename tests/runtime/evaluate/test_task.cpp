#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

#include "runtime/evaluate/continuation.h"
#include "runtime/evaluate/task.h"
#include "runtime/model/generate.h"
#include "tests/runtime/evaluate/evaluate_testing.h"
#include "tests/runtime/model/model_testing.h"

namespace llmq::runtime {
namespace {

using ::testing::HasSubstr;

TEST(Task, yes_no_lines_become_prompts_with_passage_and_question) {
  const auto items = parse_task(
      R"({"question":"is water wet","passage":"Water is wet.","answer":true,"title":"x"})"
      "\n\n"
      R"({"answer":false,"question":"Is fire cold?","passage":"Fire is hot."})"
      "\r\n",
      "file");
  ASSERT_EQ(items.size(), 2U);
  EXPECT_EQ(items[0].kind, TaskKind::kYesNo);
  EXPECT_EQ(items[0].prompt, "Water is wet.\nQuestion: is water wet?\nAnswer:");
  EXPECT_TRUE(items[0].is_yes);
  EXPECT_EQ(items[1].prompt, "Fire is hot.\nQuestion: Is fire cold?\nAnswer:");
  EXPECT_FALSE(items[1].is_yes);
}

TEST(Task, number_lines_take_what_stands_behind_the_mark) {
  const auto items =
      parse_task(R"({"question":"How many?","answer":"3 and 4 are 7.\n#### 1,007"})", "file");
  ASSERT_EQ(items.size(), 1U);
  EXPECT_EQ(items[0].kind, TaskKind::kNumber);
  EXPECT_EQ(items[0].prompt, "Question: How many?\nAnswer:");
  EXPECT_EQ(items[0].number, "1007");
}

TEST(Task, broken_lines_are_named) {
  const std::string good = R"({"question":"q","passage":"p","answer":true})";
  const std::vector<std::pair<std::string, std::string>> broken{
      {"{\"question\":", "JSON"},
      {"[1]", "not a JSON object"},
      {R"({"passage":"p","answer":true})", "question"},
      {R"({"question":"q","answer":true})", "passage"},
      {R"({"question":"q","passage":"p"})", "answer"},
      {R"({"question":"q","passage":"p","answer":1})", "answer"},
      {R"({"question":"q","answer":"no mark 5"})", "####"},
      {R"({"question":"q","answer":"#### none"})", "####"},
      {R"({"question":7,"passage":"p","answer":true})", "question"}};
  for (const auto& [line, word] : broken) {
    const std::string text = good + "\n" + line;
    const std::string message = error_of([&] { parse_task(text, "some.jsonl"); });
    EXPECT_THAT(message, HasSubstr("some.jsonl line 2"));
    EXPECT_THAT(message, HasSubstr(word));
  }
  EXPECT_THAT(error_of([] { parse_task(" \n\n", "some.jsonl"); }), HasSubstr("no line"));
}

TEST(Task, only_so_many_lines_are_read) {
  const std::string good = R"({"question":"q","passage":"p","answer":true})";
  EXPECT_EQ(parse_task(good + "\n" + good + "\nnot JSON", "file", 2).size(), 2U);
}

TEST(Task, last_number_is_found_in_one_form) {
  const std::vector<std::pair<std::string, std::string>> cases{
      {"18", "18"},
      {"so 3 + 4 = 7 apples.", "7"},
      {"$1,234,567.50.", "1234567.5"},
      {"it is -5", "-5"},
      {"from 3-5", "5"},
      {"-$12", "-12"},
      {"007", "7"},
      {"2.0", "2"},
      {"0.50", "0.5"},
      {"-0.0", "0"},
      {"1,2", "2"},
      {"10,200", "10200"},
      {"5,1234", "1234"},
      {"1, 200", "200"},
      {"3.", "3"},
      {".5", "5"},
      {"100%", "100"},
      {"1.2.3", "2.3"},
      {"12345678901234567890123", "12345678901234567890123"}};
  for (const auto& [text, number] : cases) EXPECT_EQ(normal_number(text), number) << text;
  EXPECT_EQ(normal_number("none, at all."), std::nullopt);
  EXPECT_EQ(normal_number(""), std::nullopt);
}

class GoldenTask : public ::testing::Test {
 protected:
  static std::vector<TaskItem> yes_no_items(bool flip) {
    std::vector<TaskItem> items;
    const char* const questions[] = {"is it so", "can birds sing", "does the fox sleep",
                                     "was it late", "are there more"};
    for (const char* question : questions) {
      TaskItem item;
      item.prompt = std::string("The fox sleeps.\nQuestion: ") + question + "?\nAnswer:";
      item.is_yes = flip != (question[0] == 'c');
      items.push_back(item);
    }
    return items;
  }

  std::unique_ptr<Model> model_ =
      Model::load(testing::golden_root() / "qwen2-linear", {.allow_extrapolation = true});
  Tokenizer tokenizer_ = ascii_tokenizer();
};

TEST_F(GoldenTask, yes_wins_where_it_is_likelier) {
  const auto items = yes_no_items(false);
  int64_t n_right = 0;
  ContinuationScorer scorer(*model_);
  for (const TaskItem& item : items) {
    const auto of = [&](const char* answer) {
      return scorer.score(encode_continuation(tokenizer_, item.prompt, answer)).log_likelihood;
    };
    n_right += (of(" yes") > of(" no")) == item.is_yes ? 1 : 0;
  }
  const TaskScore score = run_task(*model_, tokenizer_, items);
  EXPECT_EQ(score.n, 5);
  EXPECT_EQ(score.n_shortened, 0);
  EXPECT_EQ(score.accuracy, static_cast<double>(n_right) / 5.0);
  // The opposite answers are right exactly where these are wrong.
  EXPECT_NEAR(run_task(*model_, tokenizer_, yes_no_items(true)).accuracy, 1.0 - score.accuracy,
              1e-15);
}

TEST_F(GoldenTask, number_is_the_last_one_that_greedy_generation_writes) {
  std::vector<TaskItem> items;
  int64_t n_numbers = 0;
  for (int i = 0; i < 20; ++i) {
    TaskItem item;
    item.kind = TaskKind::kNumber;
    item.prompt = "Question: how many are " + std::to_string(i * 7) + " and 1?\nAnswer:";
    GenerateRequest request;
    request.prompt = tokenizer_.encode(item.prompt, {.add_bos = true});
    request.max_new_tokens = 40;
    std::vector<int32_t> ids = generate(*model_, {&request, 1}).front().ids;
    // Rows of the model's embedding without a token.
    std::erase_if(ids, [&](int32_t id) { return id >= tokenizer_.vocab_size(); });
    const auto number = normal_number(tokenizer_.decode(ids));
    item.number = number.value_or("none");
    n_numbers += number.has_value() ? 1 : 0;
    items.push_back(item);
  }
  ASSERT_GT(n_numbers, 0) << "the model never writes a digit";
  const TaskScore score = run_task(*model_, tokenizer_, items, {.max_new_tokens = 40});
  EXPECT_EQ(score.n, 20);
  EXPECT_EQ(score.accuracy, static_cast<double>(n_numbers) / 20.0);
  for (TaskItem& item : items) item.number += "1";
  EXPECT_EQ(run_task(*model_, tokenizer_, items, {.max_new_tokens = 40}).accuracy, 0.0);
}

TEST_F(GoldenTask, prompts_too_long_for_the_model_lose_their_beginning_and_are_counted) {
  const auto bounded = Model::load(testing::golden_root() / "qwen2-linear");
  auto items = yes_no_items(false);
  items[1].prompt.insert(0, std::string(2000, 'x'));
  const auto limit = static_cast<size_t>(bounded->length_limit());
  ASSERT_LT(limit, 2000U);
  EXPECT_EQ(run_task(*bounded, tokenizer_, items).n_shortened, 1);
  TaskItem number;
  number.kind = TaskKind::kNumber;
  number.prompt = std::string(2000, 'y') + "?";
  number.number = "1";
  EXPECT_EQ(run_task(*bounded, tokenizer_, {number}, {.max_new_tokens = 8}).n_shortened, 1);
  EXPECT_THAT(
      error_of([&] { run_task(*bounded, tokenizer_, {number}, {.max_new_tokens = 100000}); }),
      HasSubstr("too few positions"));
}

TEST_F(GoldenTask, progress_counts_every_question_once) {
  auto items = yes_no_items(false);
  TaskItem number;
  number.kind = TaskKind::kNumber;
  number.prompt = "Question: 1?\nAnswer:";
  number.number = "none";
  items.insert(items.begin(), number);
  items.push_back(number);
  int64_t n_calls = 0;
  const TaskScore score = run_task(*model_, tokenizer_, items, {.max_new_tokens = 4},
                                   [&](int64_t n_done, int64_t n_right) {
                                     EXPECT_EQ(n_done, ++n_calls);
                                     EXPECT_LE(n_right, n_done);
                                   });
  EXPECT_EQ(n_calls, 7);
  EXPECT_EQ(score.n, 7);
}

}  // namespace
}  // namespace llmq::runtime
