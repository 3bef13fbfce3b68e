#include "quant/smooth.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <utility>

#include "formats/error.h"
#include "quant/affine.h"
#include "quant/kernels/gemm_f32/gemm_f32.h"
#include "quant/matrix_view.h"

namespace llmq::quant {
namespace {

constexpr double kLeast = 1e-5;
constexpr std::array<std::pair<std::string_view, SmoothMethod>, 5> kNames{
    {{"m1", SmoothMethod::kM1},
     {"m2", SmoothMethod::kM2},
     {"m3", SmoothMethod::kM3},
     {"m4", SmoothMethod::kM4},
     {"m6", SmoothMethod::kM6}}};

/// Per channel, tied channels alike.
struct Magnitudes {
  std::vector<double> inputs;   // A
  std::vector<double> columns;  // C
};

void share_maximum(std::vector<double>& values, const std::vector<int64_t>& tied) {
  if (tied.empty()) return;
  std::vector<double> largest(values.size(), 0.0);
  for (size_t i = 0; i < values.size(); ++i) {
    double& shared = largest.at(static_cast<size_t>(tied[i]));
    shared = std::max(shared, values[i]);
  }
  for (size_t i = 0; i < values.size(); ++i) values[i] = largest[static_cast<size_t>(tied[i])];
}

Magnitudes magnitudes_of(const SmoothSubject& subject, const std::vector<float>& shift) {
  const ChannelStatistics& seen = *subject.inputs;
  const auto k = static_cast<size_t>(seen.k);
  Magnitudes result{std::vector<double>(k), std::vector<double>(k, kLeast)};
  for (size_t i = 0; i < k; ++i) {
    const double z = shift.empty() ? 0.0 : shift[i];
    result.inputs[i] = std::max(std::abs(seen.min[i] - z), std::abs(seen.max[i] - z));
  }
  for (const ConstMatrixF32& weight : subject.consumers) {
    for (int64_t row = 0; row < weight.n_rows; ++row) {
      const float* values = weight.data + row * weight.row_stride;
      for (size_t i = 0; i < k; ++i)
        result.columns[i] = std::max(result.columns[i], static_cast<double>(std::abs(values[i])));
    }
  }
  share_maximum(result.inputs, subject.tied);
  share_maximum(result.columns, subject.tied);
  return result;
}

std::vector<float> power_scales(const Magnitudes& magnitudes, double alpha, double beta) {
  std::vector<float> scales(magnitudes.inputs.size(), 1.0F);
  for (size_t i = 0; i < scales.size(); ++i) {
    if (!(magnitudes.inputs[i] > 0.0)) continue;
    const double s = std::pow(magnitudes.inputs[i], alpha) / std::pow(magnitudes.columns[i], beta);
    scales[i] = static_cast<float>(std::max(s, kLeast));
  }
  return scales;
}

/// Squared error of the outputs on the kept rows when weights (and inputs) are rounded.
class OutputLoss {
 public:
  OutputLoss(const SmoothSubject& subject, const SmoothSpec& spec, ThreadTeam& team)
      : subject_(subject), spec_(spec), team_(team) {
    for (const ConstMatrixF32& weight : subject.consumers) {
      const ConstMatrixF32 x{subject.inputs->kept.data(), subject.inputs->n_kept, subject.inputs->k,
                             subject.inputs->k};
      outputs_.push_back(product(x, weight));
    }
  }

  double operator()(const std::vector<float>& scale) {
    const ChannelStatistics& seen = *subject_.inputs;
    std::vector<float> x(seen.kept);
    for (size_t i = 0; i < x.size(); ++i) x[i] /= scale[i % scale.size()];
    if (spec_.rounds_inputs) round_matrix(x, {8, false, std::nullopt}, Granularity::kTensor);
    double loss = 0.0;
    for (size_t c = 0; c < subject_.consumers.size(); ++c)
      loss += loss_of({x.data(), seen.n_kept, seen.k, seen.k}, c, scale);
    return loss;
  }

 private:
  double loss_of(const ConstMatrixF32& x, size_t consumer, const std::vector<float>& scale) {
    const ConstMatrixF32& weight = subject_.consumers[consumer];
    std::vector<float> scaled(static_cast<size_t>(weight.n_rows * weight.n_cols));
    for (int64_t row = 0; row < weight.n_rows; ++row) {
      for (int64_t i = 0; i < weight.n_cols; ++i)
        scaled[static_cast<size_t>(row * weight.n_cols + i)] =
            weight.data[row * weight.row_stride + i] * scale[static_cast<size_t>(i)];
    }
    round_matrix(scaled, {spec_.n_bits, true, std::nullopt},
                 spec_.group_size > 0 ? Granularity::kGroup : Granularity::kChannel);
    const std::vector<float> y =
        product(x, {scaled.data(), weight.n_rows, weight.n_cols, weight.n_cols});
    double loss = 0.0;
    for (size_t i = 0; i < y.size(); ++i) {
      const double error = static_cast<double>(y[i]) - outputs_[consumer][i];
      loss += error * error;
    }
    return loss;
  }

  /// Replaces values by what their codes are worth.
  void round_matrix(std::vector<float>& values, const AffineFormat& format,
                    Granularity granularity) {
    const int64_t k = subject_.inputs->k;
    const auto n = static_cast<int64_t>(values.size()) / k;
    AffineSpec spec{format, granularity, granularity == Granularity::kGroup ? spec_.group_size : 0};
    const AffineMatrix codes = quantize_affine(
        MatrixView(formats::DType::kF32, std::as_bytes(std::span(values)), n, k), spec, team_);
    const int64_t group_cols = spec.group_size > 0 ? spec.group_size : k;
    for (int64_t row = 0; row < n; ++row) {
      for (int64_t i = 0; i < k; ++i) {
        const size_t at = granularity == Granularity::kTensor
                              ? 0
                              : static_cast<size_t>(row * codes.n_groups + i / group_cols);
        const auto element = static_cast<size_t>(row * k + i);
        values[element] =
            (static_cast<float>(codes.codes[element]) - codes.offsets[at]) * codes.scales[at];
      }
    }
  }

  std::vector<float> product(const ConstMatrixF32& x, const ConstMatrixF32& weight) {
    std::vector<float> y(static_cast<size_t>(x.n_rows * weight.n_rows));
    gemm_f32({.x = x,
              .weights = weight.data,
              .weight_stride = weight.row_stride,
              .bias = nullptr,
              .y = {y.data(), x.n_rows, weight.n_rows, weight.n_rows}},
             team_);
    return y;
  }

  const SmoothSubject& subject_;
  const SmoothSpec& spec_;
  ThreadTeam& team_;
  std::vector<std::vector<float>> outputs_;  // of each consumer, [n_kept, n]
};

/// s₀·(m/√(max·min))^r.
std::vector<float> awq_scales(const SmoothSubject& subject, const std::vector<float>& start,
                              double ratio) {
  const ChannelStatistics& seen = *subject.inputs;
  std::vector<double> mean(start.size());
  for (size_t i = 0; i < mean.size(); ++i) mean[i] = seen.mean_abs[i] / start[i];
  share_maximum(mean, subject.tied);
  double least = std::numeric_limits<double>::infinity();
  double greatest = 0.0;
  for (const double value : mean) {
    if (!(value > 0.0)) continue;
    least = std::min(least, value);
    greatest = std::max(greatest, value);
  }
  std::vector<float> scales = start;
  for (size_t i = 0; i < scales.size(); ++i) {
    if (!(mean[i] > 0.0)) continue;
    const double factor = std::pow(mean[i] / std::sqrt(least * greatest), ratio);
    scales[i] = static_cast<float>(std::max(scales[i] * factor, kLeast));
  }
  return scales;
}

void search_ratio(const SmoothSubject& subject, const Magnitudes& magnitudes,
                  const SmoothSpec& spec, SmoothDecision& decision, ThreadTeam& team) {
  OutputLoss loss(subject, spec, team);
  decision.loss_before = loss(std::vector<float>(magnitudes.inputs.size(), 1.0F));
  const std::vector<float> start = power_scales(magnitudes, 0.5, 0.5);
  decision.loss_after = std::numeric_limits<double>::infinity();
  for (int step = -10; step <= 10; ++step) {
    std::vector<float> scales = awq_scales(subject, start, 0.1 * step);
    const double error = loss(scales);
    if (!(error < decision.loss_after)) continue;
    decision.loss_after = error;
    decision.ratio = 0.1 * step;
    decision.scale = std::move(scales);
  }
}

void search_alpha(const SmoothSubject& subject, const Magnitudes& magnitudes,
                  const SmoothSpec& spec, SmoothDecision& decision, ThreadTeam& team) {
  OutputLoss loss(subject, spec, team);
  decision.loss_before = loss(std::vector<float>(magnitudes.inputs.size(), 1.0F));
  decision.loss_after = std::numeric_limits<double>::infinity();
  const auto attempt = [&](double alpha) {
    std::vector<float> scales = power_scales(magnitudes, alpha, 1.0 - alpha);
    const double error = loss(scales);
    if (!(error < decision.loss_after)) return;
    decision.loss_after = error;
    decision.alpha = alpha;
    decision.beta = 1.0 - alpha;
    decision.scale = std::move(scales);
  };
  for (int step = 0; step <= 10; ++step) attempt(0.1 * step);
  const double coarse = decision.alpha;
  for (int step = -4; step <= 4; ++step) {
    const double alpha = coarse + 0.02 * step;
    if (step != 0 && alpha >= 0.0 && alpha <= 1.0) attempt(alpha);
  }
}

}  // namespace

std::string_view smooth_method_name(SmoothMethod method) {
  return kNames.at(static_cast<size_t>(method)).first;
}

std::optional<SmoothMethod> find_smooth_method(std::string_view name) {
  for (const auto& [known, method] : kNames) {
    if (known == name) return method;
  }
  return std::nullopt;
}

SmoothDecision choose_smoothing(const SmoothSubject& subject, const SmoothSpec& spec,
                                ThreadTeam& team) {
  const ChannelStatistics& seen = *subject.inputs;
  for (const ConstMatrixF32& weight : subject.consumers) {
    if (weight.n_cols == seen.k) continue;
    throw formats::Error(formats::ErrorCode::kInternal,
                         "smoothing of linears that do not read the activations observed");
  }
  const bool is_tied = !subject.tied.empty();
  if (is_tied && (static_cast<int64_t>(subject.tied.size()) != seen.k ||
                  std::any_of(subject.tied.begin(), subject.tied.end(),
                              [&](int64_t i) { return i < 0 || i >= seen.k; }))) {
    throw formats::Error(formats::ErrorCode::kInternal,
                         "smoothing with ties of other channels than those observed");
  }
  SmoothDecision decision;
  if (spec.method == SmoothMethod::kM2) {
    decision.shift.resize(static_cast<size_t>(seen.k));
    for (size_t i = 0; i < decision.shift.size(); ++i)
      decision.shift[i] = 0.5F * (seen.max[i] + seen.min[i]);
  }
  const Magnitudes magnitudes = magnitudes_of(subject, decision.shift);
  if (spec.method == SmoothMethod::kM3) {
    search_ratio(subject, magnitudes, spec, decision, team);
    return decision;
  }
  if (spec.method == SmoothMethod::kM6 && !spec.alpha) {
    search_alpha(subject, magnitudes, spec, decision, team);
    return decision;
  }
  decision.alpha = spec.alpha.value_or(spec.method == SmoothMethod::kM4 ? 0.9 : 0.5);
  decision.beta = spec.beta.value_or(1.0 - decision.alpha);
  decision.scale = power_scales(magnitudes, decision.alpha, decision.beta);
  return decision;
}

}  // namespace llmq::quant
