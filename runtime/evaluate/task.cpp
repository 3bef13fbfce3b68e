#include "runtime/evaluate/task.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <deque>

#include "formats/error.h"
#include "formats/json.h"
#include "runtime/evaluate/continuation.h"
#include "runtime/evaluate/text_pieces.h"
#include "runtime/model/generate.h"

namespace llmq::runtime {
namespace {

using formats::bad_input;
using formats::Json;

constexpr std::string_view kNewQuestion = "\nQuestion:";

bool is_digit(char c) {
  return c >= '0' && c <= '9';
}

bool is_word(char c) {
  return std::isalnum(static_cast<unsigned char>(c)) != 0;
}

/// Whether the character before `begin` continues the number text[begin..] to the left: a digit, a
/// point with digits around it and neither point nor comma behind it, or a comma behind a digit and
/// before exactly three.
bool belongs_to_number(std::string_view text, size_t begin) {
  const char c = text[begin - 1];
  if (is_digit(c)) return true;
  const bool between_digits = begin >= 2 && is_digit(text[begin - 2]) && is_digit(text[begin]);
  const size_t n_digits =
      std::min(text.find_first_not_of("0123456789", begin), text.size()) - begin;
  if (c == '.') return between_digits && begin + n_digits == text.size();
  return c == ',' && between_digits && n_digits == 3;
}

/// Digits without commas, leading zeros and zeros at the end of a fraction.
std::string without_padding(std::string_view number) {
  std::string digits;
  for (const char c : number) {
    if (c != ',') digits += c;
  }
  if (digits.find('.') != std::string::npos) {
    digits.erase(digits.find_last_not_of('0') + 1);
    if (digits.ends_with('.')) digits.pop_back();
  }
  digits.erase(0, std::min(digits.find_first_not_of('0'), digits.size()));
  if (digits.empty() || digits.front() == '.') digits.insert(0, "0");
  return digits;
}

std::string string_field(const Json& line, const char* key) {
  const auto found = line.find(key);
  if (found == line.end() || !found->is_string()) {
    throw bad_input(fmt::format("\"{}\" is not there, or not a text", key));
  }
  return found->get<std::string>();
}

TaskItem parse_item(const Json& line) {
  if (!line.is_object()) throw bad_input("not a JSON object");
  TaskItem item;
  std::string question = string_field(line, "question");
  const auto answer = line.find("answer");
  if (answer != line.end() && answer->is_boolean()) {
    if (!question.ends_with('?')) question += '?';
    item.prompt = fmt::format("{}\nQuestion: {}\nAnswer:", string_field(line, "passage"), question);
    item.is_yes = answer->get<bool>();
    return item;
  }
  item.kind = TaskKind::kNumber;
  const std::string text =
      answer != line.end() && answer->is_string() ? answer->get<std::string>() : "";
  const size_t mark = text.rfind("####");
  const auto number =
      mark == std::string::npos ? std::nullopt : normal_number(std::string_view(text).substr(mark));
  if (!number) {
    throw bad_input("\"answer\" is neither true or false nor a text with a number behind \"####\"");
  }
  item.number = *number;
  item.prompt = fmt::format("Question: {}\nAnswer:", question);
  return item;
}

/// Drops ids behind the first `n_prefix` so that `limit` are left; true when it had to.
bool shorten(std::vector<int32_t>& ids, size_t n_prefix, int64_t limit) {
  const auto n_excess = static_cast<int64_t>(ids.size()) - limit;
  if (n_excess <= 0) return false;
  if (n_excess >= static_cast<int64_t>(ids.size() - n_prefix)) {
    throw bad_input("the model has too few positions for a question of this task");
  }
  const auto from = ids.begin() + static_cast<std::ptrdiff_t>(n_prefix);
  ids.erase(from, from + n_excess);
  return true;
}

class TaskRun {
 public:
  TaskRun(Model& model, const Tokenizer& tokenizer, const TaskOptions& options,
          const std::function<void()>& tick)
      : model_(model),
        tokenizer_(tokenizer),
        options_(options),
        tick_(tick),
        n_prefix_(text_prefix(tokenizer).size()),
        scorer_(model, tick) {}

  bool says_yes(const TaskItem& item) {
    Continuation yes = encode_continuation(tokenizer_, item.prompt, " yes");
    Continuation no = encode_continuation(tokenizer_, item.prompt, " no");
    // Both lose the same tokens, so that they still answer the same prompt.
    const size_t longer = std::max(yes.ids.size(), no.ids.size());
    const int64_t limit = model_.length_limit();
    const int64_t n_excess = std::max<int64_t>(static_cast<int64_t>(longer) - limit, 0);
    for (Continuation* answer : {&yes, &no}) {
      const auto keep = static_cast<int64_t>(answer->ids.size()) - n_excess;
      if (answer->answer_begin - n_excess <= static_cast<int64_t>(n_prefix_)) {
        throw bad_input("the model has too few positions for a question of this task");
      }
      shorten(answer->ids, n_prefix_, keep);
      answer->answer_begin -= n_excess;
    }
    n_shortened_ += n_excess > 0 ? 1 : 0;
    return scorer_.score(yes).log_likelihood > scorer_.score(no).log_likelihood;
  }

  /// Whether each of these kNumber items is answered right.
  std::vector<bool> answer_numbers(const std::vector<const TaskItem*>& items) {
    std::vector<GenerateRequest> requests(items.size());
    const int64_t limit = model_.length_limit() - options_.max_new_tokens;
    for (size_t i = 0; i < items.size(); ++i) {
      requests[i].prompt = tokenizer_.encode(
          items[i]->prompt, {.parse_special = false, .add_bos = tokenizer_.adds_bos()});
      requests[i].max_new_tokens = options_.max_new_tokens;
      n_shortened_ += shorten(requests[i].prompt, n_prefix_, limit) ? 1 : 0;
    }
    std::vector<std::string> texts(items.size());
    std::deque<StreamDecoder> decoders;  // a deque, because they cannot be moved
    for (size_t i = 0; i < items.size(); ++i) decoders.emplace_back(tokenizer_);
    generate(model_, requests, options_.max_batch_size, [&](int64_t request, int32_t id) {
      if (tick_) tick_();
      const auto i = static_cast<size_t>(request);
      // Models often have more rows in their head than the tokenizer has ids.
      if (id < tokenizer_.vocab_size()) texts[i] += decoders[i].feed(id);
      return texts[i].find(kNewQuestion) == std::string::npos;
    });
    std::vector<bool> right(items.size());
    for (size_t i = 0; i < items.size(); ++i) {
      const std::string_view text = texts[i];
      right[i] = normal_number(text.substr(0, text.find(kNewQuestion))) == items[i]->number;
    }
    return right;
  }

  [[nodiscard]] int64_t n_shortened() const { return n_shortened_; }

 private:
  Model& model_;
  const Tokenizer& tokenizer_;
  const TaskOptions& options_;
  const std::function<void()>& tick_;
  size_t n_prefix_;
  ContinuationScorer scorer_;
  int64_t n_shortened_ = 0;
};

}  // namespace

std::vector<TaskItem> parse_task(std::string_view jsonl, std::string_view origin,
                                 int64_t max_items) {
  std::vector<TaskItem> items;
  int64_t n_lines = 0;
  while (!jsonl.empty() && (max_items == 0 || static_cast<int64_t>(items.size()) < max_items)) {
    const size_t end = std::min(jsonl.find('\n'), jsonl.size());
    const std::string_view line = jsonl.substr(0, end);
    jsonl.remove_prefix(std::min(end + 1, jsonl.size()));
    ++n_lines;
    if (line.find_first_not_of(" \t\r") == std::string_view::npos) continue;
    const std::string where = fmt::format("{} line {}", origin, n_lines);
    const Json parsed = formats::parse_json(line, where);
    try {
      items.push_back(parse_item(parsed));
    } catch (const formats::Error& error) {
      throw error.with_context(where);
    }
  }
  if (items.empty()) throw bad_input(fmt::format("{}: no line with a question", origin));
  return items;
}

std::optional<std::string> normal_number(std::string_view text) {
  const size_t last = text.find_last_of("0123456789");
  if (last == std::string_view::npos) return std::nullopt;
  const size_t end = last + 1;
  size_t begin = last;
  while (begin > 0 && belongs_to_number(text.substr(0, end), begin)) --begin;
  size_t sign = begin;
  if (sign > 0 && text[sign - 1] == '$') --sign;
  const bool is_negative =
      sign > 0 && text[sign - 1] == '-' && (sign < 2 || !is_word(text[sign - 2]));
  std::string number = without_padding(text.substr(begin, end - begin));
  return is_negative && number != "0" ? "-" + number : number;
}

TaskScore run_task(Model& model, const Tokenizer& tokenizer, const std::vector<TaskItem>& items,
                   const TaskOptions& options, const TaskProgress& progress,
                   const std::function<void()>& tick) {
  TaskRun run(model, tokenizer, options, tick);
  TaskScore score;
  int64_t n_right = 0;
  const auto count = [&](bool is_right) {
    ++score.n;
    n_right += is_right ? 1 : 0;
    if (progress) progress(score.n, n_right);
  };
  std::vector<const TaskItem*> numbers;
  for (const TaskItem& item : items) {
    if (item.kind == TaskKind::kYesNo) {
      count(run.says_yes(item) == item.is_yes);
    } else {
      numbers.push_back(&item);
    }
    const bool is_last = &item == &items.back();
    if (numbers.empty() ||
        (!is_last && static_cast<int64_t>(numbers.size()) < options.max_batch_size)) {
      continue;
    }
    for (const bool is_right : run.answer_numbers(numbers)) count(is_right);
    numbers.clear();
  }
  if (score.n > 0) score.accuracy = static_cast<double>(n_right) / static_cast<double>(score.n);
  score.n_shortened = run.n_shortened();
  return score;
}

}  // namespace llmq::runtime
