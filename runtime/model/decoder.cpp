#include "runtime/model/decoder.h"

#include <algorithm>
#include <array>

#include "quant/kernels/elementwise/elementwise.h"
#include "runtime/model/swiglu.h"

namespace llmq::runtime {
namespace {

using formats::FusedGroup;
using quant::ConstMatrixF32;
using quant::MatrixF32;
using quant::ThreadTeam;

// Elements of one task of the loops between linears: long against the start of a parallel region.
constexpr int64_t kElementsPerTask = int64_t{16} << 10;

ConstMatrixF32 readable(const MatrixF32& m) {
  return {m.data, m.n_rows, m.n_cols, m.row_stride};
}

/// Calls fn(begin, end) for ranges of rows of `n_cols` elements.
template <typename Fn>
void for_row_ranges(int64_t n_rows, int64_t n_cols, ThreadTeam& team, const Fn& fn) {
  const int64_t step = std::max<int64_t>(1, kElementsPerTask / std::max<int64_t>(n_cols, 1));
  team.parallel_for((n_rows + step - 1) / step, [&](int64_t task, int) {
    fn(task * step, std::min(n_rows, (task + 1) * step));
  });
}

void add_rows(const ConstMatrixF32& x, const MatrixF32& y, ThreadTeam& team) {
  for_row_ranges(x.n_rows, x.n_cols, team, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      float* to = y.data + row * y.row_stride;
      quant::elementwise_kernels().add(to, x.data + row * x.row_stride, to, x.n_cols);
    }
  });
}

void norm_row(const NormWeights& norm, float epsilon, const float* x, std::span<float> y) {
  const quant::ElementwiseKernels& kernels = quant::elementwise_kernels();
  const auto n = static_cast<int64_t>(y.size());
  kernels.rms_norm({.x = x, .weight = norm.weight.data(), .eps = epsilon, .n = n, .y = y.data()});
  if (!norm.bias.empty()) kernels.add(y.data(), norm.bias.data(), y.data(), n);
}

/// Writes a row of `hidden`, normed.
auto norm_of(const NormWeights& norm, double epsilon, const MatrixF32& hidden) {
  return [&norm, epsilon = static_cast<float>(epsilon), hidden](int64_t row, float* to) {
    norm_row(norm, epsilon, hidden.data + row * hidden.row_stride,
             {to, static_cast<size_t>(hidden.n_cols)});
  };
}

AttentionShape attention_shape(const formats::ModelConfig& config) {
  return {config.n_heads, config.n_kv_heads, config.head_dim};
}

}  // namespace

DecoderRunner::DecoderRunner(const formats::ModelConfig& config, ThreadTeam& team)
    : config_(config),
      team_(team),
      rope_(rope_frequencies(config)),
      attention_(attention_shape(config)),
      moe_(config, team) {}

void DecoderRunner::begin(std::span<const BatchSegment> segments) {
  segments_ = segments;
  n_rows_ = 0;
  positions_.clear();
  std::vector<Phase> phases;
  for (const BatchSegment& segment : segments) {
    segment.cache->reserve(segment.first_position + segment.n_rows);
    n_rows_ = std::max(n_rows_, segment.first_row + segment.n_rows);
    positions_.resize(static_cast<size_t>(n_rows_));
    phases.resize(static_cast<size_t>(n_rows_));
    std::fill_n(phases.begin() + segment.first_row, segment.n_rows, segment.phase);
    for (int64_t i = 0; i < segment.n_rows; ++i)
      positions_[static_cast<size_t>(segment.first_row + i)] = segment.first_position + i;
  }
  runs_ = phase_runs(phases);
  rope_.set_positions(positions_);
}

void DecoderRunner::run_layer(const LayerWeights& weights, LayerIndex index,
                              const MatrixF32& hidden, const LayerObserver& observer) {
  if (n_rows_ == 0) return;
  attend(weights, index, hidden, observer);
  feed_forward(weights, hidden, observer);
  if (observer.output) observer.output(readable(hidden));
}

void DecoderRunner::attend(const LayerWeights& weights, LayerIndex index, const MatrixF32& hidden,
                           const LayerObserver& observer) {
  const MatrixF32 normed = scratch(normed_, config_.hidden_size);
  const auto norm = norm_of(weights.input_norm, config_.rms_norm_eps, hidden);
  LinearRows rows(norm, normed, team_);
  observe(observer, FusedGroup::kQkv, -1, rows);
  const MatrixF32 q = scratch(q_, config_.n_heads * config_.head_dim);
  const MatrixF32 k = scratch(k_, config_.n_kv_heads * config_.head_dim);
  const MatrixF32 v = scratch(v_, config_.n_kv_heads * config_.head_dim);
  project_qkv(weights, rows);
  rotate_and_store(weights, index.cache_layer);
  if (observer.attention_input)
    observer.attention_input({readable(q), readable(k), readable(v), positions_});

  const MatrixF32 mixed = scratch(mixed_, config_.n_heads * config_.head_dim);
  attention_.run({.q = readable(q),
                  .out = mixed,
                  .segments = segments_,
                  .cache_layer = index.cache_layer,
                  .window = config_.window_of(index.model_layer),
                  .fa = weights.fa.empty() ? nullptr : &weights.fa},
                 team_);
  clear_padded_heads(mixed);
  LinearRows attended(readable(mixed), team_);
  observe(observer, FusedGroup::kAttentionOut, -1, attended);
  attended.apply(std::array{LinearCall{&weights.o, normed}}, runs_);
  add_rows(readable(normed), hidden, team_);
}

void DecoderRunner::clear_padded_heads(const MatrixF32& mixed) {
  for (const int64_t head : padded_heads_) {
    for (int64_t row = 0; row < n_rows_; ++row) {
      std::fill_n(mixed.data + row * mixed.row_stride + head * config_.head_dim, config_.head_dim,
                  0.0F);
    }
  }
}

void DecoderRunner::project_qkv(const LayerWeights& weights, LinearRows& normed) {
  const MatrixF32 q = scratch(q_, config_.n_heads * config_.head_dim);
  const MatrixF32 k = scratch(k_, config_.n_kv_heads * config_.head_dim);
  const MatrixF32 v = scratch(v_, config_.n_kv_heads * config_.head_dim);
  if (weights.qkv.empty()) {
    normed.apply(
        std::array{LinearCall{&weights.q, q}, LinearCall{&weights.k, k}, LinearCall{&weights.v, v}},
        runs_);
    return;
  }
  const MatrixF32 fused = scratch(qkv_, weights.qkv.n_out);
  normed.apply(std::array{LinearCall{&weights.qkv, fused}}, runs_);
  for_row_ranges(n_rows_, fused.n_cols, team_, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const float* from = fused.data + row * fused.row_stride;
      for (const MatrixF32& part : {q, k, v}) {
        std::copy_n(from, part.n_cols, part.data + row * part.row_stride);
        from += part.n_cols;
      }
    }
  });
}

void DecoderRunner::rotate_and_store(const LayerWeights& weights, int64_t cache_layer) {
  const int64_t head_dim = config_.head_dim;
  const int64_t n_key = config_.n_kv_heads * head_dim;
  const int64_t n_query = config_.n_heads * head_dim;
  const auto epsilon = static_cast<float>(config_.rms_norm_eps);
  const auto finish_heads = [&](std::span<const float> norm, float* heads, int64_t n_heads,
                                int64_t row) {
    for (int64_t head = 0; head < n_heads && !norm.empty(); ++head) {
      float* to = heads + head * head_dim;
      norm_row({norm, {}}, epsilon, to, {to, static_cast<size_t>(head_dim)});
    }
    rope_.rotate(row, heads, n_heads, head_dim);
  };
  for (const BatchSegment& segment : segments_) {
    for_row_ranges(segment.n_rows, n_query + n_key, team_, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const int64_t row = segment.first_row + i;
        float* key = k_.data() + row * n_key;
        finish_heads(weights.q_norm, q_.data() + row * n_query, config_.n_heads, row);
        finish_heads(weights.k_norm, key, config_.n_kv_heads, row);
        segment.cache->store(cache_layer, segment.first_position + i,
                             {key, static_cast<size_t>(n_key)},
                             {v_.data() + row * n_key, static_cast<size_t>(n_key)});
      }
    });
  }
}

void DecoderRunner::feed_forward(const LayerWeights& weights, const MatrixF32& hidden,
                                 const LayerObserver& observer) {
  const MatrixF32 normed = scratch(normed_, config_.hidden_size);
  const auto norm = norm_of(weights.post_attention_norm, config_.rms_norm_eps, hidden);
  LinearRows rows(norm, normed, team_);
  if (!weights.experts.empty()) {
    const MatrixF32 mixture = scratch(experts_, config_.hidden_size);
    moe_.run(weights, {rows.floats(), mixture, runs_}, observer);
    add_rows(readable(mixture), hidden, team_);
    return;
  }
  run_swiglu({.gate = &weights.gate,
              .up = &weights.up,
              .down = &weights.down,
              .runs = runs_,
              .gate_room = scratch(gate_, weights.gate.n_out),
              .up_room = scratch(up_, weights.up.n_out),
              .out = normed},
             rows, observer, team_);
  add_rows(readable(normed), hidden, team_);
}

MatrixF32 DecoderRunner::scratch(quant::HugeVector<float>& buffer, int64_t n_cols) const {
  const auto size = static_cast<size_t>(n_rows_ * n_cols);
  if (buffer.size() < size) buffer.resize(size);
  return {buffer.data(), n_rows_, n_cols, n_cols};
}

void rms_norm(const NormWeights& norm, double epsilon, const ConstMatrixF32& x, const MatrixF32& y,
              ThreadTeam& team) {
  for_row_ranges(x.n_rows, x.n_cols, team, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      norm_row(norm, static_cast<float>(epsilon), x.data + row * x.row_stride,
               {y.data + row * y.row_stride, static_cast<size_t>(y.n_cols)});
    }
  });
}

}  // namespace llmq::runtime
