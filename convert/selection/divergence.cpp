#include "convert/selection/divergence.h"

#include <algorithm>

#include "convert/interrupt.h"
#include "runtime/evaluate/log_softmax.h"
#include "runtime/model/decoder.h"

namespace llmq::convert {
namespace {

using quant::ConstMatrixF32;
using quant::MatrixF32;

/// Rows whose logits are held at once.
constexpr int64_t kRowsAtOnce = 32;

/// Logits of a few rows of hidden states.
class LogitRows {
 public:
  LogitRows(const LogitWeights& weights, quant::ThreadTeam& team)
      : weights_(weights), team_(team) {}

  void compute(const ConstMatrixF32& hidden, int64_t first_row, int64_t n_rows) {
    const int64_t n_hidden = hidden.n_cols;
    const int64_t n_vocab = weights_.outer.head.n_out;
    normed_.resize(static_cast<size_t>(n_rows * n_hidden));
    logits_.resize(static_cast<size_t>(n_rows * n_vocab));
    const MatrixF32 normed{normed_.data(), n_rows, n_hidden, n_hidden};
    runtime::rms_norm(
        weights_.outer.final_norm, weights_.rms_norm_eps,
        {hidden.data + first_row * hidden.row_stride, n_rows, n_hidden, hidden.row_stride}, normed,
        team_);
    runtime::apply_linear(weights_.outer.head, {normed.data, n_rows, n_hidden, n_hidden},
                          {logits_.data(), n_rows, n_vocab, n_vocab}, team_);
  }

  [[nodiscard]] std::span<const float> row(int64_t index) const {
    const auto n_vocab = static_cast<size_t>(weights_.outer.head.n_out);
    return std::span(logits_).subspan(static_cast<size_t>(index) * n_vocab, n_vocab);
  }

 private:
  const LogitWeights& weights_;
  quant::ThreadTeam& team_;
  std::vector<float> normed_;
  std::vector<float> logits_;
};

/// For each token whether another one follows it in its sample.
std::vector<bool> is_followed(std::span<const int64_t> lengths) {
  std::vector<bool> followed;
  for (const int64_t length : lengths) {
    if (length == 0) continue;
    followed.insert(followed.end(), static_cast<size_t>(length - 1), true);
    followed.push_back(false);
  }
  return followed;
}

}  // namespace

std::vector<double> mean_divergences(const LogitWeights& weights, const ConstMatrixF32& reference,
                                     std::span<const ConstMatrixF32> candidates,
                                     std::span<const int64_t> lengths, quant::ThreadTeam& team) {
  const std::vector<bool> followed = is_followed(lengths);
  std::vector<double> sums(candidates.size(), 0.0);
  std::vector<double> row_kl(static_cast<size_t>(kRowsAtOnce));
  std::vector<double> row_lse(static_cast<size_t>(kRowsAtOnce));
  LogitRows expected(weights, team);
  LogitRows given(weights, team);
  for (int64_t first = 0; first < reference.n_rows; first += kRowsAtOnce) {
    throw_if_interrupted();
    const int64_t n_rows = std::min(kRowsAtOnce, reference.n_rows - first);
    expected.compute(reference, first, n_rows);
    team.parallel_for(n_rows, [&](int64_t row, int /*thread_index*/) {
      row_lse[static_cast<size_t>(row)] = runtime::log_sum_exp(expected.row(row));
    });
    for (size_t i = 0; i < candidates.size(); ++i) {
      given.compute(candidates[i], first, n_rows);
      team.parallel_for(n_rows, [&](int64_t row, int /*thread_index*/) {
        const std::span<const float> logits = given.row(row);
        row_kl[static_cast<size_t>(row)] =
            runtime::kl_divergence(expected.row(row), row_lse[static_cast<size_t>(row)], logits,
                                   runtime::log_sum_exp(logits));
      });
      for (int64_t row = 0; row < n_rows; ++row) {
        if (followed[static_cast<size_t>(first + row)]) sums[i] += row_kl[static_cast<size_t>(row)];
      }
    }
  }
  const auto n_scored = static_cast<double>(std::count(followed.begin(), followed.end(), true));
  for (double& sum : sums) sum /= n_scored;
  return sums;
}

}  // namespace llmq::convert
