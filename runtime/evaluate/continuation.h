#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/model/model.h"
#include "runtime/tokenizer/tokenizer.h"

namespace llmq::runtime {

/// A prompt and the answer that is expected behind it, as one list of ids.
struct Continuation {
  std::vector<int32_t> ids;
  int64_t answer_begin = 0;  ///< ids[answer_begin..] are the answer; at least 1
};

/// Encodes prompt + answer as one text, behind BOS where the tokenizer adds one. The answer begins
/// where these ids first differ from those of the prompt alone (a token that reaches across the
/// border belongs to the answer), so the answer is spelled as a model reads it in running text.
/// Nothing in either is parsed as a special token. Throws Error{kBadInput} when the answer has no
/// token of its own or nothing stands before it.
Continuation encode_continuation(const Tokenizer& tokenizer, std::string_view prompt,
                                 std::string_view answer);

/// What a model makes of an answer.
struct ContinuationScore {
  double log_likelihood = 0.0;  ///< Σ ln p(answer token), nats
  /// Greedy generation from the prompt gives exactly the answer's tokens.
  bool is_greedy = false;
};

/// Scores continuations one after the other on one sequence, and feeds only what differs from the
/// one before: texts that share a beginning should come in a row. Not thread-safe; the model must
/// outlive it.
class ContinuationScorer {
 public:
  /// `tick` is called now and then, so that a long prompt can be given up by throwing.
  explicit ContinuationScorer(Model& model, std::function<void()> tick = {});

  /// Throws Error{kBadInput} for ids outside the vocabulary, more of them than the model has
  /// positions, and logits that are not finite.
  ContinuationScore score(const Continuation& continuation);

 private:
  Model& model_;
  std::function<void()> tick_;
  Sequence sequence_;
  std::vector<int32_t> fed_;  // the tokens of sequence_
};

}  // namespace llmq::runtime
