#include "runtime/evaluate/text_score.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "formats/error.h"
#include "runtime/evaluate/log_softmax.h"
#include "runtime/model/sampler.h"

namespace llmq::runtime {
namespace {

using quant::ConstMatrixF32;

/// Rows of logits held at once: enough to read a head's weights once for many tokens.
constexpr int64_t kLogitRows = 32;
/// What the reference's hidden states of all layers may take while the model catches up.
constexpr int64_t kLayerBytes = int64_t{64} << 20;
constexpr int64_t kFewestRows = 16;

std::span<const float> row_of(const ConstMatrixF32& matrix, int64_t row) {
  return {matrix.data + row * matrix.row_stride, static_cast<size_t>(matrix.n_cols)};
}

/// ‖model − reference‖² / ‖reference‖²; 0 where both are zero.
double squared_ratio(std::span<const float> model, std::span<const float> reference) {
  double difference = 0.0;
  double norm = 0.0;
  for (size_t i = 0; i < model.size(); ++i) {
    const double r = reference[i];
    const double d = static_cast<double>(model[i]) - r;
    difference += d * d;
    norm += r * r;
  }
  return difference == 0.0 ? 0.0 : difference / norm;
}

double percentile_99(std::vector<double> values) {
  const size_t rank = (values.size() * 99 + 99) / 100;
  const auto at = values.begin() + static_cast<std::ptrdiff_t>(rank - 1);
  std::nth_element(values.begin(), at, values.end());
  return *at;
}

}  // namespace

double TextScore::perplexity() const {
  return std::exp(mean_nll);
}

TextScorer::TextScorer(Model& model, Model* reference, Tick tick)
    : model_{&model, {}, {}}, tick_(std::move(tick)), step_(model.options().prefill_chunk) {
  if (reference == nullptr) return;
  reference_ = Fed{reference, {}, {}};
  const formats::ModelConfig& ours = model.config();
  const formats::ModelConfig& theirs = reference->config();
  if (ours.vocab_size != theirs.vocab_size) {
    throw formats::bad_input(fmt::format(
        "the model has a vocabulary of {} and the reference one of {}; compare a model with the "
        "one that it was made from",
        ours.vocab_size, theirs.vocab_size));
  }
  compares_layers_ = ours.n_layers == theirs.n_layers && ours.hidden_size == theirs.hidden_size;
  if (!compares_layers_) return;
  const int64_t row_bytes = ours.n_layers * ours.hidden_size * static_cast<int64_t>(sizeof(float));
  step_ = std::min(step_, std::max(kFewestRows, kLayerBytes / row_bytes));
  ratio_sums_.resize(static_cast<size_t>(ours.n_layers));
}

void TextScorer::add(std::span<const int32_t> ids) {
  if (ids.size() < 2) return;
  model_.model->check_tokens(ids, 0);
  if (reference_) reference_->model->check_tokens(ids, 0);
  Sequence sequence = model_.model->new_sequence();
  std::optional<Sequence> reference_sequence;
  if (reference_) reference_sequence = reference_->model->new_sequence();
  StageObserver on_reference;
  StageObserver on_model;
  if (compares_layers_) {
    on_reference = [this](auto stage, const auto& hidden, auto rows) {
      observe_reference(stage, hidden, rows);
    };
    on_model = [this](auto stage, const auto& hidden, auto rows) {
      observe_model(stage, hidden, rows);
    };
  }
  for (size_t begin = 0; begin + 1 < ids.size(); begin += static_cast<size_t>(step_)) {
    const size_t n = std::min(static_cast<size_t>(step_), ids.size() - 1 - begin);
    if (reference_) feed(*reference_, *reference_sequence, ids.subspan(begin, n), on_reference);
    feed(model_, sequence, ids.subspan(begin, n), on_model);
    score_rows(ids.subspan(begin + 1, n));
    if (tick_) tick_();
  }
  ++n_pieces_;
}

void TextScorer::feed(Fed& fed, Sequence& sequence, std::span<const int32_t> tokens,
                      const StageObserver& observer) {
  const auto n_hidden = static_cast<size_t>(fed.model->config().hidden_size);
  fed.hidden.resize(tokens.size() * n_hidden);
  const BatchItem item{&sequence, tokens};
  fed.model->forward(
      {&item, 1},
      [&](const ConstMatrixF32& hidden, std::span<const RowOrigin> rows) {
        for (size_t row = 0; row < rows.size(); ++row) {
          const auto from = row_of(hidden, static_cast<int64_t>(row));
          std::copy(from.begin(), from.end(),
                    fed.hidden.begin() + static_cast<std::ptrdiff_t>(
                                             static_cast<size_t>(rows[row].token) * n_hidden));
        }
      },
      observer);
}

void TextScorer::observe_reference(int64_t stage, const ConstMatrixF32& hidden,
                                   std::span<const RowOrigin> rows) {
  const auto n_layers = static_cast<int64_t>(ratio_sums_.size());
  if (stage < 1 || stage > n_layers) return;
  reference_layers_.resize(static_cast<size_t>(n_layers * step_ * hidden.n_cols));
  for (size_t row = 0; row < rows.size(); ++row) {
    const auto from = row_of(hidden, static_cast<int64_t>(row));
    const int64_t to = ((stage - 1) * step_ + rows[row].token) * hidden.n_cols;
    std::copy(from.begin(), from.end(), reference_layers_.begin() + to);
  }
}

void TextScorer::observe_model(int64_t stage, const ConstMatrixF32& hidden,
                               std::span<const RowOrigin> rows) {
  const auto n_layers = static_cast<int64_t>(ratio_sums_.size());
  if (stage < 1 || stage > n_layers) return;
  row_ratios_.resize(rows.size());
  model_.model->team().parallel_for(static_cast<int64_t>(rows.size()), [&](int64_t row, int) {
    const auto i = static_cast<size_t>(row);
    const int64_t at = ((stage - 1) * step_ + rows[i].token) * hidden.n_cols;
    row_ratios_[i] = squared_ratio(
        row_of(hidden, row), {reference_layers_.data() + at, static_cast<size_t>(hidden.n_cols)});
  });
  for (const double ratio : row_ratios_) ratio_sums_[static_cast<size_t>(stage - 1)] += ratio;
}

ConstMatrixF32 TextScorer::compute_logits(Fed& fed, int64_t first_row, int64_t n_rows) {
  const int64_t n_hidden = fed.model->config().hidden_size;
  const int64_t n_vocab = fed.model->config().vocab_size;
  fed.logits.resize(static_cast<size_t>(kLogitRows * n_vocab));
  fed.model->logits({fed.hidden.data() + first_row * n_hidden, n_rows, n_hidden, n_hidden},
                    {fed.logits.data(), n_rows, n_vocab, n_vocab});
  return {fed.logits.data(), n_rows, n_vocab, n_vocab};
}

TextScorer::TokenScore TextScorer::score_token(int64_t row, int32_t target) const {
  const auto n_vocab = static_cast<size_t>(model_.model->config().vocab_size);
  const size_t at = static_cast<size_t>(row) * n_vocab;
  const std::span<const float> ours(model_.logits.data() + at, n_vocab);
  const double lse = log_sum_exp(ours);
  TokenScore score;
  score.nll = lse - static_cast<double>(ours[static_cast<size_t>(target)]);
  if (!std::isfinite(score.nll)) {
    throw formats::bad_input("the model's logits are not finite; its weights are damaged");
  }
  if (!reference_) return score;
  const std::span<const float> theirs(reference_->logits.data() + at, n_vocab);
  const double reference_lse = log_sum_exp(theirs);
  score.reference_nll = reference_lse - static_cast<double>(theirs[static_cast<size_t>(target)]);
  score.kl = kl_divergence(theirs, reference_lse, ours, lse);
  if (!std::isfinite(score.reference_nll) || !std::isfinite(score.kl)) {
    throw formats::bad_input("the reference's logits are not finite; its weights are damaged");
  }
  score.same_top = argmax(theirs) == argmax(ours);
  return score;
}

void TextScorer::score_rows(std::span<const int32_t> targets) {
  const auto n_rows = static_cast<int64_t>(targets.size());
  for (int64_t first = 0; first < n_rows; first += kLogitRows) {
    const int64_t n = std::min(kLogitRows, n_rows - first);
    compute_logits(model_, first, n);
    if (reference_) compute_logits(*reference_, first, n);
    row_scores_.resize(static_cast<size_t>(n));
    model_.model->team().parallel_for(n, [&](int64_t row, int) {
      row_scores_[static_cast<size_t>(row)] =
          score_token(row, targets[static_cast<size_t>(first + row)]);
    });
    for (const TokenScore& score : row_scores_) {
      nll_sum_ += score.nll;
      ++n_tokens_;
      if (!reference_) continue;
      reference_nll_sum_ += score.reference_nll;
      kls_.push_back(score.kl);
      n_same_top_ += score.same_top ? 1 : 0;
    }
  }
}

TextScore TextScorer::score() const {
  TextScore result;
  result.n_pieces = n_pieces_;
  result.n_tokens = n_tokens_;
  if (n_tokens_ == 0) return result;
  const auto n = static_cast<double>(n_tokens_);
  result.mean_nll = nll_sum_ / n;
  if (!reference_) return result;
  ReferenceScore reference;
  reference.mean_nll = reference_nll_sum_ / n;
  double kl_sum = 0.0;
  for (const double kl : kls_) kl_sum += kl;
  reference.kl = kl_sum / n;
  reference.kl_p99 = percentile_99(kls_);
  reference.top1_agreement = static_cast<double>(n_same_top_) / n;
  for (size_t layer = 0; layer < ratio_sums_.size(); ++layer) {
    reference.layers.push_back({static_cast<int64_t>(layer), std::sqrt(ratio_sums_[layer] / n)});
  }
  result.reference = std::move(reference);
  return result;
}

}  // namespace llmq::runtime
