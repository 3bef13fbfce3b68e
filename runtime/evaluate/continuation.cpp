#include "runtime/evaluate/continuation.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "formats/error.h"
#include "runtime/evaluate/log_softmax.h"
#include "runtime/model/sampler.h"

namespace llmq::runtime {
namespace {

int64_t common_length(std::span<const int32_t> a, std::span<const int32_t> b) {
  const size_t n = std::min(a.size(), b.size());
  return std::mismatch(a.begin(), a.begin() + static_cast<std::ptrdiff_t>(n), b.begin()).first -
         a.begin();
}

}  // namespace

Continuation encode_continuation(const Tokenizer& tokenizer, std::string_view prompt,
                                 std::string_view answer) {
  const EncodeOptions options{.parse_special = false, .add_bos = tokenizer.adds_bos()};
  std::string text(prompt);
  const std::vector<int32_t> before = tokenizer.encode(text, options);
  text += answer;
  Continuation continuation{tokenizer.encode(text, options), 0};
  continuation.answer_begin = common_length(before, continuation.ids);
  if (continuation.answer_begin == static_cast<int64_t>(continuation.ids.size())) {
    throw formats::bad_input(fmt::format("the answer \"{}\" has no tokens of its own", answer));
  }
  if (continuation.answer_begin == 0) {
    throw formats::bad_input("a prompt has no tokens; the model has nothing to answer to");
  }
  return continuation;
}

ContinuationScorer::ContinuationScorer(Model& model, std::function<void()> tick)
    : model_(model), tick_(std::move(tick)), sequence_(model.new_sequence()) {}

ContinuationScore ContinuationScorer::score(const Continuation& continuation) {
  const std::vector<int32_t>& ids = continuation.ids;
  model_.check_tokens(ids, 0);
  // The row of the last prompt token predicts the answer's first, so it has to be run again.
  const int64_t kept = std::min(common_length(fed_, ids), continuation.answer_begin - 1);
  sequence_.truncate(kept);
  fed_.resize(static_cast<size_t>(kept));

  ContinuationScore result{0.0, true};
  const auto visit = [&](const quant::ConstMatrixF32& logits, std::span<const RowOrigin> rows) {
    for (size_t row = 0; row < rows.size(); ++row) {
      const std::span<const float> values(
          logits.data + static_cast<int64_t>(row) * logits.row_stride,
          static_cast<size_t>(logits.n_cols));
      const int32_t target = ids[static_cast<size_t>(rows[row].position) + 1];
      const double nll =
          log_sum_exp(values) - static_cast<double>(values[static_cast<size_t>(target)]);
      if (!std::isfinite(nll)) {
        throw formats::bad_input("the model's logits are not finite; its weights are damaged");
      }
      result.log_likelihood -= nll;
      result.is_greedy = result.is_greedy && argmax(values) == target;
    }
  };
  const auto n_fed = static_cast<int64_t>(ids.size()) - 1;
  const int64_t step = model_.options().prefill_chunk;
  for (int64_t begin = kept; begin < n_fed; begin += step) {
    const auto tokens = std::span(ids).subspan(static_cast<size_t>(begin),
                                               static_cast<size_t>(std::min(step, n_fed - begin)));
    const BatchItem item{&sequence_, tokens, continuation.answer_begin - 1 - begin};
    model_.score({&item, 1}, visit);
    fed_.insert(fed_.end(), tokens.begin(), tokens.end());
    if (tick_) tick_();
  }
  return result;
}

}  // namespace llmq::runtime
