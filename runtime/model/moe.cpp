#include "runtime/model/moe.h"

#include <algorithm>

#include "quant/kernels/elementwise/elementwise.h"

namespace llmq::runtime {
namespace {

using formats::FusedGroup;
using quant::ConstMatrixF32;
using quant::MatrixF32;

// Rows of one task of the loops between linears.
constexpr int64_t kRowsPerTask = 8;

ConstMatrixF32 readable(const MatrixF32& m) {
  return {m.data, m.n_rows, m.n_cols, m.row_stride};
}

MatrixF32 scratch(quant::HugeVector<float>& buffer, int64_t n_rows, int64_t n_cols) {
  const auto size = static_cast<size_t>(n_rows * n_cols);
  if (buffer.size() < size) buffer.resize(size);
  return {buffer.data(), n_rows, n_cols, n_cols};
}

template <typename Fn>
void for_rows(int64_t n_rows, quant::ThreadTeam& team, const Fn& fn) {
  team.parallel_for((n_rows + kRowsPerTask - 1) / kRowsPerTask, [&](int64_t task, int) {
    const int64_t end = std::min(n_rows, (task + 1) * kRowsPerTask);
    for (int64_t row = task * kRowsPerTask; row < end; ++row) fn(row);
  });
}

}  // namespace

void route_token(std::span<const float> logits, bool normalizes, std::span<ExpertChoice> choices) {
  const quant::ElementwiseKernels& kernels = quant::elementwise_kernels();
  const auto n = static_cast<int64_t>(logits.size());
  std::vector<float> probabilities(logits.size());
  const float sum =
      kernels.exp_sum(logits.data(), kernels.row_max(logits.data(), n), probabilities.data(), n);
  for (float& probability : probabilities) probability /= sum;
  std::vector<bool> is_chosen(logits.size());
  float chosen_sum = 0.0F;
  for (ExpertChoice& choice : choices) {
    auto best = static_cast<size_t>(std::find(is_chosen.begin(), is_chosen.end(), false) -
                                    is_chosen.begin());
    for (size_t expert = best + 1; expert < probabilities.size(); ++expert) {
      if (!is_chosen[expert] && probabilities[expert] > probabilities[best]) best = expert;
    }
    is_chosen[best] = true;
    choice = {static_cast<int64_t>(best), probabilities[best]};
    chosen_sum += choice.weight;
  }
  if (!normalizes) return;
  for (ExpertChoice& choice : choices) choice.weight /= chosen_sum;
}

void MoeRunner::run(const LayerWeights& weights, const MoeBatch& batch,
                    const LayerObserver& observer) {
  route(weights.router, batch);
  group_by_expert(batch);
  run_experts(weights, observer);
  const bool has_shared = !weights.shared_switch.empty();
  if (has_shared) run_shared(weights, batch, observer);
  combine(has_shared, batch.out);
}

void MoeRunner::route(const LinearWeights& router, const MoeBatch& batch) {
  const ConstMatrixF32& x = batch.x;
  const MatrixF32 logits = scratch(logits_, x.n_rows, config_.n_experts);
  apply_linear(router, x, logits, team_, batch.runs);
  const auto n_choices = static_cast<size_t>(config_.n_experts_per_token);
  choices_.resize(static_cast<size_t>(x.n_rows) * n_choices);
  for_rows(x.n_rows, team_, [&](int64_t row) {
    route_token({logits.data + row * logits.row_stride, static_cast<size_t>(logits.n_cols)},
                config_.norm_topk_prob,
                std::span(choices_).subspan(static_cast<size_t>(row) * n_choices, n_choices));
  });
}

void MoeRunner::group_by_expert(const MoeBatch& batch) {
  const ConstMatrixF32& x = batch.x;
  begins_.assign(static_cast<size_t>(config_.n_experts) + 1, 0);
  for (const ExpertChoice& choice : choices_) ++begins_[static_cast<size_t>(choice.expert) + 1];
  for (size_t expert = 1; expert < begins_.size(); ++expert) begins_[expert] += begins_[expert - 1];
  std::vector<int64_t> next(begins_.begin(), begins_.end() - 1);
  rows_.resize(choices_.size());
  slots_.resize(choices_.size());
  for (size_t i = 0; i < choices_.size(); ++i) {
    slots_[i] = next[static_cast<size_t>(choices_[i].expert)]++;
    rows_[static_cast<size_t>(slots_[i])] = static_cast<int64_t>(i) / config_.n_experts_per_token;
  }
  std::vector<Phase> row_phases(static_cast<size_t>(x.n_rows));
  for (const PhaseRun& run : batch.runs)
    std::fill_n(row_phases.begin() + run.first_row, run.n_rows, run.phase);
  phases_.resize(rows_.size());
  for (size_t slot = 0; slot < rows_.size(); ++slot)
    phases_[slot] = row_phases[static_cast<size_t>(rows_[slot])];
  const auto n_slots = static_cast<int64_t>(rows_.size());
  const MatrixF32 gathered = scratch(gathered_, n_slots, x.n_cols);
  for_rows(n_slots, team_, [&](int64_t slot) {
    const float* from = x.data + rows_[static_cast<size_t>(slot)] * x.row_stride;
    std::copy_n(from, x.n_cols, gathered.data + slot * gathered.row_stride);
  });
}

SwigluTask MoeRunner::task_of(const MlpWeights& mlp, int64_t n_rows, std::span<const PhaseRun> runs,
                              const MatrixF32& out) {
  return {.gate = &mlp.gate,
          .up = &mlp.up,
          .down = &mlp.down,
          .runs = runs,
          .gate_room = scratch(gate_, n_rows, mlp.gate.n_out),
          .up_room = scratch(up_, n_rows, mlp.up.n_out),
          .out = out};
}

void MoeRunner::run_experts(const LayerWeights& weights, const LayerObserver& observer) {
  const int64_t n_hidden = config_.hidden_size;
  for (int64_t expert = 0; expert < config_.n_experts; ++expert) {
    const int64_t begin = begins_[static_cast<size_t>(expert)];
    const int64_t n_rows = begins_[static_cast<size_t>(expert) + 1] - begin;
    if (n_rows == 0) continue;
    const MlpWeights& mlp = weights.experts[static_cast<size_t>(expert)];
    const MatrixF32 rows{gathered_.data() + begin * n_hidden, n_rows, n_hidden, n_hidden};
    const std::vector<PhaseRun> runs = phase_runs(
        std::span(phases_).subspan(static_cast<size_t>(begin), static_cast<size_t>(n_rows)));
    SwigluTask task = task_of(mlp, n_rows, runs, rows);
    task.gate_up_group = FusedGroup::kExpertGateUp;
    task.down_group = FusedGroup::kExpertDown;
    task.expert = expert;
    LinearRows inputs(readable(rows), team_);
    run_swiglu(task, inputs, observer, team_);
  }
}

void MoeRunner::run_shared(const LayerWeights& weights, const MoeBatch& batch,
                           const LayerObserver& observer) {
  const ConstMatrixF32& x = batch.x;
  SwigluTask task =
      task_of(weights.shared_expert, x.n_rows, batch.runs, scratch(shared_, x.n_rows, x.n_cols));
  task.gate_up_group = FusedGroup::kSharedGateUp;
  task.down_group = FusedGroup::kSharedDown;
  LinearRows inputs(x, team_);
  run_swiglu(task, inputs, observer, team_);
  const MatrixF32 switches = scratch(switches_, x.n_rows, 1);
  apply_linear(weights.shared_switch, x, switches, team_, batch.runs);
  quant::elementwise_kernels().sigmoid(switches.data, switches.data, x.n_rows);
}

void MoeRunner::combine(bool has_shared, const MatrixF32& out) {
  const int64_t n_hidden = out.n_cols;
  const auto n_choices = static_cast<size_t>(config_.n_experts_per_token);
  for_rows(out.n_rows, team_, [&](int64_t row) {
    float* to = out.data + row * out.row_stride;
    std::fill_n(to, n_hidden, 0.0F);
    const auto add = [&](const float* from, float factor) {
      for (int64_t i = 0; i < n_hidden; ++i) to[i] += from[i] * factor;
    };
    for (size_t rank = 0; rank < n_choices; ++rank) {
      const size_t choice = static_cast<size_t>(row) * n_choices + rank;
      add(gathered_.data() + slots_[choice] * n_hidden, choices_[choice].weight);
    }
    if (has_shared) add(shared_.data() + row * n_hidden, switches_[static_cast<size_t>(row)]);
  });
}

}  // namespace llmq::runtime
