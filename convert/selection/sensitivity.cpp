#include "convert/selection/sensitivity.h"

#include <fmt/format.h>

#include <cmath>
#include <optional>

#include "convert/interrupt.h"
#include "convert/selection/divergence.h"
#include "formats/error.h"
#include "quant/kernels/gemm_f32/gemm_f32.h"

namespace llmq::convert {
namespace {

using formats::FusedGroup;
using quant::ConstMatrixF32;
using quant::MatrixF32;
using runtime::Calibrator;
using runtime::LayerObserver;
using HiddenChange = std::function<void(const MatrixF32& hidden)>;

/// Shows what a layer gives for the tokens of a pass, with the number of tokens before.
LayerObserver output_observer(
    const std::function<void(int64_t first_row, const ConstMatrixF32& hidden)>& see) {
  LayerObserver observer;
  observer.output = [see, n_seen = int64_t{0}](const ConstMatrixF32& hidden) mutable {
    see(n_seen, hidden);
    n_seen += hidden.n_rows;
  };
  return observer;
}

/// ‖a − b‖² / ‖b‖² of one row, in float64.
double relative_square(const float* a, const float* b, int64_t n) {
  double difference = 0.0;
  double size = 0.0;
  for (int64_t i = 0; i < n; ++i) {
    const double d = static_cast<double>(a[i]) - static_cast<double>(b[i]);
    difference += d * d;
    size += static_cast<double>(b[i]) * static_cast<double>(b[i]);
  }
  return size > 0.0 ? difference / size : difference;
}

/// The matrix R [n, n] of x ← x·R.
std::vector<float> matrix_of(const HiddenChange& change, int64_t n) {
  std::vector<float> matrix(static_cast<size_t>(n * n), 0.0F);
  for (int64_t i = 0; i < n; ++i) matrix[static_cast<size_t>(i * n + i)] = 1.0F;
  change({matrix.data(), n, n, n});
  return matrix;
}

}  // namespace

FusedGroup selection_group(FusedGroup group) {
  return group == FusedGroup::kExpertDown ? FusedGroup::kExpertGateUp : group;
}

/// A layer that has been prepared and quantized.
struct SensitivityMeter::LayerInWork {
  int64_t layer;
  const runtime::LayerWeights& floats;  ///< of the checkpoint
  const RoundedLayer& rounded;
  const HiddenChange& change;  ///< that rounded layers expect; empty for none
};

SensitivityMeter::SensitivityMeter(const FolderPlan& plan, const CalibrationInput& calibration,
                                   const RunContext& context)
    : plan_(plan), calibration_(calibration), context_(context) {}

void SensitivityMeter::for_each_layer(const std::function<void(const LayerInWork&)>& visit) {
  CalibrationInput calibration = calibration_;
  UnitPreparer preparer(calibration, plan_, context_.team, context_.console);
  const HiddenChange change = preparer.change_of_hidden();
  if (change && rotation_.empty()) rotation_ = matrix_of(change, plan_.config.hidden_size);
  runtime::WeightLoader loader(float_source(plan_), context_.team);
  const std::vector<size_t> begins = plan_.ledger.unit_begins();
  for (size_t unit = 0; unit + 1 < begins.size(); ++unit) {
    const std::span<const LedgerEntry> entries =
        std::span(plan_.ledger.entries).subspan(begins[unit], begins[unit + 1] - begins[unit]);
    const int64_t layer = entries.front().layer;
    if (layer < 0) continue;
    const UnitPreparation& preparation = preparer.prepare(entries);
    const runtime::LayerWeights floats = loader.layer(layer);
    const RoundedLayer rounded(floats, entries, preparation, plan_.ledger.model_dtype,
                               context_.team);
    visit({layer, floats, rounded, change});
  }
  context_.console.end_progress();
}

std::unique_ptr<Calibrator> SensitivityMeter::new_stream(bool keeps_inputs) const {
  runtime::CalibratorOptions options;
  options.keeps_inputs = keeps_inputs;
  options.is_fast = calibration_.is_fast();
  options.on_tokens = [](int64_t /*n_tokens*/) { throw_if_interrupted(); };
  return std::make_unique<Calibrator>(float_source(plan_), calibration_.windows, options,
                                      context_.team);
}

double SensitivityMeter::score(std::span<SelectionGroup> groups, bool with_kl) {
  const std::unique_ptr<Calibrator> floats = new_stream(true);
  Streams quantized;
  if (with_kl) quantized.push_back(new_stream(false));
  for_each_layer([&](const LayerInWork& work) {
    floats->run_next(work.floats, {});
    score_layer(work, *floats, groups);
    for (const auto& stream : quantized) {
      if (work.change && work.layer == 0) stream->change_hidden(work.change);
      stream->run_next(work.rounded.with([](FusedGroup) { return true; }), {});
    }
  });
  if (!with_kl) return 0.0;
  const ConstMatrixF32 hidden = floats->hidden();
  reference_.assign(hidden.data, hidden.data + hidden.n_rows * hidden.n_cols);
  return divergences_of(quantized).front();
}

void SensitivityMeter::score_layer(const LayerInWork& work, Calibrator& floats,
                                   std::span<SelectionGroup> groups) const {
  const int64_t n = plan_.config.hidden_size;
  std::vector<float> changed;
  ConstMatrixF32 expected = floats.hidden();
  if (work.rounded.is_transformed()) {
    changed.resize(static_cast<size_t>(expected.n_rows * n));
    const auto keep = [&](int64_t first_row, const ConstMatrixF32& hidden) {
      std::copy(hidden.data, hidden.data + hidden.n_rows * n, changed.data() + first_row * n);
    };
    floats.look_back(work.rounded.with([](FusedGroup) { return false; }), output_observer(keep),
                     work.change);
    expected.data = changed.data();
  }
  for (SelectionGroup& group : groups) {
    if (group.layer != work.layer) continue;
    double sum = 0.0;
    const auto compare = [&](int64_t first_row, const ConstMatrixF32& hidden) {
      for (int64_t row = 0; row < hidden.n_rows; ++row) {
        sum += relative_square(hidden.data + row * hidden.row_stride,
                               expected.data + (first_row + row) * n, n);
      }
    };
    const auto is_quantized = [&](FusedGroup g) { return selection_group(g) == group.group; };
    floats.look_back(work.rounded.with(is_quantized), output_observer(compare), work.change);
    group.score = sum / static_cast<double>(expected.n_rows);
    if (std::isfinite(group.score)) continue;
    throw formats::bad_input(fmt::format(
        "layer {}: hidden states on the calibration samples are NaN or infinite; the model is "
        "damaged, or cannot be run in float32",
        work.layer));
  }
}

std::vector<double> SensitivityMeter::divergences(std::span<const FloatGroups> sets) {
  Streams streams;
  for (size_t i = 0; i < sets.size(); ++i) streams.push_back(new_stream(false));
  for_each_layer([&](const LayerInWork& work) {
    for (size_t i = 0; i < sets.size(); ++i) {
      if (work.change && work.layer == 0) streams[i]->change_hidden(work.change);
      const auto is_quantized = [&](FusedGroup group) {
        return !sets[i].contains({work.layer, selection_group(group)});
      };
      streams[i]->run_next(work.rounded.with(is_quantized), {});
    }
  });
  return divergences_of(streams);
}

std::vector<double> SensitivityMeter::divergences_of(const Streams& streams) {
  const int64_t n = plan_.config.hidden_size;
  std::vector<std::vector<float>> turned_back;
  std::vector<ConstMatrixF32> candidates;
  for (const auto& stream : streams) {
    ConstMatrixF32 hidden = stream->hidden();
    if (!rotation_.empty()) {
      // R is orthogonal: x·Rᵀ undoes x·R.
      std::vector<float>& back =
          turned_back.emplace_back(static_cast<size_t>(hidden.n_rows * hidden.n_cols));
      quant::gemm_f32({.x = hidden,
                       .weights = rotation_.data(),
                       .weight_stride = n,
                       .y = {back.data(), hidden.n_rows, n, n}},
                      context_.team);
      hidden.data = back.data();
    }
    candidates.push_back(hidden);
  }
  runtime::WeightLoader loader(float_source(plan_), context_.team);
  const runtime::OuterWeights outer = loader.outer();
  std::vector<int64_t> lengths;
  for (const std::vector<int32_t>& window : calibration_.windows)
    lengths.push_back(static_cast<int64_t>(window.size()));
  const auto n_tokens = static_cast<int64_t>(reference_.size()) / n;
  return mean_divergences({outer, plan_.config.rms_norm_eps}, {reference_.data(), n_tokens, n, n},
                          candidates, lengths, context_.team);
}

}  // namespace llmq::convert
