#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/model/model.h"
#include "runtime/tokenizer/tokenizer.h"

namespace llmq::runtime {

enum class TaskKind : uint8_t {
  kYesNo,  ///< BoolQ: is " yes" or " no" the likelier continuation?
  kNumber  ///< GSM8K: is the last number of the greedy continuation the right one?
};

/// One question.
struct TaskItem {
  TaskKind kind = TaskKind::kYesNo;
  std::string prompt;
  bool is_yes = false;  ///< kYesNo
  std::string number;   ///< kNumber, as normal_number gives it
};

/// Reads JSON lines; white-space lines are skipped. A line with "question", "passage" and a Boolean
/// "answer" is kYesNo, its prompt "{passage}\nQuestion: {question}?\nAnswer:"; one with "question"
/// and a text "answer" that has a number behind its last "####" is kNumber, its prompt "Question:
/// {question}\nAnswer:". Other keys are ignored. At most `max_items` lines (0: all) are read.
/// Throws Error{kBadInput} naming `origin` and the line for anything else, and when there is no
/// line.
std::vector<TaskItem> parse_task(std::string_view jsonl, std::string_view origin,
                                 int64_t max_items = 0);

/// The last number of a text ("$1,234.50" counts as 1234.5): an optional minus that follows no
/// letter or digit, digits with commas between groups of three, an optional fraction. In one form
/// for equal values: no commas, no leading zeros, no zeros behind a fraction, no "-0". Nothing when
/// the text has no digit.
std::optional<std::string> normal_number(std::string_view text);

struct TaskOptions {
  int64_t max_new_tokens = 256;  ///< of a kNumber answer
  int64_t max_batch_size = 8;    ///< kNumber questions that are continued at the same time
};

struct TaskScore {
  double accuracy = 0.0;
  int64_t n = 0;
  /// Prompts that did not fit the model's positions and lost tokens at their beginning (behind
  /// BOS).
  int64_t n_shortened = 0;
};

/// Told after each answer: how many are done and right.
using TaskProgress = std::function<void(int64_t n_done, int64_t n_right)>;

/// Asks every question. A kYesNo answer is the continuation with the larger sum of log-likelihoods
/// ("no" on a tie). A kNumber answer ends at a stop token, after max_new_tokens, or where the model
/// begins a new "Question:". `tick` is called often; throws to give up. Throws Error{kBadInput}
/// when the model has fewer positions than an answer needs.
TaskScore run_task(Model& model, const Tokenizer& tokenizer, const std::vector<TaskItem>& items,
                   const TaskOptions& options = {}, const TaskProgress& progress = {},
                   const std::function<void()>& tick = {});

}  // namespace llmq::runtime
