#include "runtime/calibrate/calibrator.h"

#include <fmt/format.h>

#include <algorithm>
#include <string>
#include <utility>

#include "formats/error.h"
#include "runtime/calibrate/fast_layer.h"

namespace llmq::runtime {
namespace {

using formats::FusedGroup;
using quant::ConstMatrixF32;
using quant::MatrixF32;

ConstMatrixF32 readable(const MatrixF32& m) {
  return {m.data, m.n_rows, m.n_cols, m.row_stride};
}

/// A cache of one layer, as each is used for one layer only.
KvCache layer_cache(const formats::ModelConfig& config) {
  return KvCache(
      KvLayout{.n_layers = 1, .n_kv_heads = config.n_kv_heads, .head_dim = config.head_dim});
}

}  // namespace

Calibrator::Calibrator(const WeightSource& source, std::vector<std::vector<int32_t>> samples,
                       CalibratorOptions options, quant::ThreadTeam& team)
    : config_(*source.config),
      samples_(std::move(samples)),
      options_(std::move(options)),
      team_(team),
      loader_(source, team),
      outer_(loader_.outer()),
      runner_(*source.config, team) {
  const formats::Description* description = source.description;
  if (description != nullptr &&
      !(description->kv_quant_type.empty() && description->fa_quant_type.empty())) {
    throw formats::bad_input(
        "calibration runs float attention, but the model's KV cache or attention is quantized");
  }
  sample_begins_.push_back(0);
  for (const std::vector<int32_t>& sample : samples_) {
    sample_begins_.push_back(sample_begins_.back() + static_cast<int64_t>(sample.size()));
    caches_.push_back(layer_cache(config_));
  }
  embed();
}

void Calibrator::embed() {
  const int64_t n_hidden = config_.hidden_size;
  hidden_.resize(static_cast<size_t>(sample_begins_.back() * n_hidden));
  float* row = hidden_.data();
  for (const std::vector<int32_t>& sample : samples_) {
    for (const int32_t id : sample) {
      if (id < 0 || id >= config_.vocab_size) {
        throw formats::bad_input(fmt::format(
            "calibration: token id {} is outside the model's vocabulary of {}; the tokenizer does "
            "not belong to this model",
            id, config_.vocab_size));
      }
      widen_row(outer_.embedding, id, {row, static_cast<size_t>(n_hidden)});
      row += n_hidden;
    }
  }
}

MatrixF32 Calibrator::rows(int64_t first_row, int64_t n_rows) {
  const int64_t n_hidden = config_.hidden_size;
  return {hidden_.data() + first_row * n_hidden, n_rows, n_hidden, n_hidden};
}

ConstMatrixF32 Calibrator::hidden() const {
  return {hidden_.data(), sample_begins_.back(), config_.hidden_size, config_.hidden_size};
}

template <typename Run>
void Calibrator::for_each_batch(const Run& run) {
  const int64_t n_tokens = sample_begins_.back();
  for (int64_t first = 0; first < n_tokens; first += kRowsPerBatch) {
    const int64_t n_rows = std::min(kRowsPerBatch, n_tokens - first);
    run(first, n_rows);
    if (options_.on_tokens) options_.on_tokens(n_rows);
  }
}

void Calibrator::set_segments(int64_t first_row, int64_t n_rows) {
  segments_.clear();
  const auto after = std::upper_bound(sample_begins_.begin(), sample_begins_.end(), first_row);
  auto sample = static_cast<size_t>(after - sample_begins_.begin()) - 1;
  for (int64_t row = first_row; row < first_row + n_rows; ++sample) {
    const int64_t end = std::min(first_row + n_rows, sample_begins_[sample + 1]);
    if (end > row) {
      segments_.push_back(
          {&caches_[sample], row - first_row, end - row, row - sample_begins_[sample]});
    }
    row = std::max(row, end);
  }
}

GroupStatistics Calibrator::advance() {
  require_next_layer();
  LayerStatisticsObserver observer(fmt::format("layer {}, ", next_layer_), config_,
                                   {.ranges = true,
                                    .histograms = options_.with_histogram,
                                    .gram = {},
                                    .kv_cache = options_.with_kv_scales,
                                    .attention = options_.with_fa_scales},
                                   team_);
  run_next(next_weights(), observer.observer());
  LayerStatistics seen = observer.statistics();
  attention_ = std::move(seen.attention);
  return std::move(seen.ranges);
}

void Calibrator::require_next_layer() const {
  if (next_layer_ < config_.n_layers) return;
  throw formats::Error(formats::ErrorCode::kInternal, "calibration ran past the last layer");
}

void Calibrator::run_batch(const LayerWeights& weights, int64_t layer, const MatrixF32& hidden,
                           const LayerObserver& observer, int64_t first_row) {
  set_segments(first_row, hidden.n_rows);
  runner_.begin(segments_);
  if (options_.is_fast) {
    runner_.run_layer(with_bf16_products(weights), {layer, 0}, hidden, observer);
  } else {
    runner_.run_layer(weights, {layer, 0}, hidden, observer);
  }
  for (const BatchSegment& segment : segments_) segment.cache->advance(segment.n_rows);
  // The last sample may go on in the next batch; all others are done.
  for (const BatchSegment& segment : segments_) {
    const auto sample = static_cast<size_t>(segment.cache - caches_.data());
    if (sample_begins_[sample + 1] <= first_row + hidden.n_rows) segment.cache->truncate(0);
  }
}

void Calibrator::run_next(const LayerWeights& weights, const LayerObserver& observer) {
  require_next_layer();
  if (options_.keeps_inputs) inputs_ = hidden_;
  for_each_batch([&](int64_t first_row, int64_t n_rows) {
    run_batch(weights, next_layer_, rows(first_row, n_rows), observer, first_row);
  });
  ++next_layer_;
}

void Calibrator::look_back(const LayerWeights& weights, const LayerObserver& observer,
                           const std::function<void(const MatrixF32& hidden)>& change) {
  if (inputs_.empty())
    throw formats::Error(formats::ErrorCode::kInternal, "no inputs of a layer were kept");
  const int64_t n_hidden = config_.hidden_size;
  for_each_batch([&](int64_t first_row, int64_t n_rows) {
    const float* from = inputs_.data() + first_row * n_hidden;
    look_.assign(from, from + n_rows * n_hidden);
    const MatrixF32 hidden{look_.data(), n_rows, n_hidden, n_hidden};
    if (change) change(hidden);
    run_batch(weights, next_layer_ - 1, hidden, observer, first_row);
  });
}

GroupStatistics Calibrator::head() {
  LayerStatisticsObserver observer("", config_,
                                   {.ranges = true, .histograms = options_.with_histogram}, team_);
  show_head(observer.observer());
  return observer.statistics().ranges;
}

void Calibrator::show_head(const LayerObserver& observer,
                           const std::function<void(const MatrixF32& hidden)>& change) {
  if (next_layer_ < config_.n_layers) {
    throw formats::Error(formats::ErrorCode::kInternal, "the head comes after the last layer");
  }
  const std::vector<float> ones(static_cast<size_t>(config_.hidden_size), 1.0F);
  const NormWeights norm = change ? NormWeights{ones, {}} : outer_.final_norm;
  std::vector<float> normed;
  for_each_batch([&](int64_t first_row, int64_t n_rows) {
    const MatrixF32 hidden = rows(first_row, n_rows);
    normed.resize(static_cast<size_t>(n_rows * config_.hidden_size));
    const MatrixF32 out{normed.data(), n_rows, config_.hidden_size, config_.hidden_size};
    rms_norm(norm, config_.rms_norm_eps, readable(hidden), out, team_);
    if (change) change(out);
    observer.linear_input({FusedGroup::kHead, -1, readable(out)});
  });
}

}  // namespace llmq::runtime
