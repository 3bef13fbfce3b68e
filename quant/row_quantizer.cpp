#include "quant/row_quantizer.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

namespace llmq::quant {
namespace {

// Shares of the range that are tried for clipping, from all of it downwards.
constexpr int kNShrinks = 24;
constexpr double kShrinkStep = 0.02;
constexpr int kMaxFits = 50;
constexpr int64_t kColumnBlock = 128;

}  // namespace

RowQuantizer::RowQuantizer(const WeightSpec& spec, int64_t k, const LinearInputs* inputs)
    : spec_(spec),
      k_(k),
      group_cols_(spec.group_size > 0 ? spec.group_size : std::max<int64_t>(k, 1)),
      inputs_(inputs),
      uses_factor_(spec.method.kind == WeightMethod::Kind::kGptq && inputs != nullptr &&
                   inputs->factor.is_usable) {}

float RowQuantizer::bound(bool upper) const {
  if (spec_.method.sparse) return upper ? 127.0F : -127.0F;
  return upper ? spec_.format.code_max() : spec_.format.code_min();
}

float RowQuantizer::round_code(float value, const AffineParams& params) const {
  return std::clamp(std::rint(value / params.scale + params.offset), bound(false), bound(true));
}

void RowQuantizer::run(std::span<const float> row, std::span<int8_t> codes,
                       std::span<AffineParams> params) {
  for (size_t group = 0; group < params.size(); ++group) {
    const int64_t first = static_cast<int64_t>(group) * group_cols_;
    const auto n = static_cast<size_t>(std::min(group_cols_, k_ - first));
    params[group] = choose_params(row.subspan(static_cast<size_t>(first), n), first);
  }
  if (!uses_factor_) {
    round_all(row, codes, params);
  } else {
    spread_errors(row, codes, params);
    refine(row, codes, params);
  }
  if (spec_.method.sparse && spec_.method.sparse->co_sparse) clamp_bulk(row, codes, params);
}

AffineParams RowQuantizer::choose_params(std::span<const float> values,
                                         int64_t first_column) const {
  if (spec_.method.sparse) return sparse_params(values);
  const AffineParams start = clipped_params(values, first_column);
  const bool is_fitted = spec_.method.kind == WeightMethod::Kind::kSsz ||
                         (spec_.method.kind == WeightMethod::Kind::kGptq && !uses_factor_);
  return is_fitted && spec_.format.symmetric ? fitted_params(values, start) : start;
}

AffineParams RowQuantizer::sparse_params(std::span<const float> values) const {
  const double threshold = sparse_threshold(values, *spec_.method.sparse);
  float largest = 0.0F;
  for (const float w : values) largest = std::max(largest, std::abs(w));
  // Outliers beyond 127 steps would be clipped; the grid is widened to hold them.
  float scale = std::max(static_cast<float>(threshold) / kSparseSteps, largest / 127.0F);
  scale = std::max(scale, kScaleFloor);
  if (spec_.format.scale_dtype) scale = round_scale_to(scale, *spec_.format.scale_dtype);
  return {scale, 0.0F};
}

AffineParams RowQuantizer::clipped_params(std::span<const float> values,
                                          int64_t first_column) const {
  float min = std::numeric_limits<float>::infinity();
  float max = -min;
  for (const float w : values) {
    min = std::min(min, w);
    max = std::max(max, w);
  }
  const AffineParams whole = affine_params(min, max, spec_.format);
  if (!spec_.method.clip) return whole;
  const auto error_of = [&](const AffineParams& params) {
    double sum = 0.0;
    for (size_t i = 0; i < values.size(); ++i) {
      const double error = values[i] - (round_code(values[i], params) - params.offset) *
                                           static_cast<double>(params.scale);
      const auto column = static_cast<size_t>(first_column) + i;
      const double weight =
          inputs_ == nullptr ? 1.0 : inputs_->gram.values[column * static_cast<size_t>(k_ + 1)];
      sum += weight * error * error;
    }
    return sum;
  };
  AffineParams best = whole;
  double least = error_of(whole);
  for (int step = 1; step <= kNShrinks; ++step) {
    const auto share = static_cast<float>(1.0 - kShrinkStep * step);
    const AffineParams params = affine_params(min * share, max * share, spec_.format);
    const double error = error_of(params);
    if (error >= least) continue;
    least = error;
    best = params;
  }
  return best;
}

AffineParams RowQuantizer::fitted_params(std::span<const float> values, AffineParams start) const {
  const auto error_of = [&](float scale) {
    double sum = 0.0;
    for (const float w : values) {
      const double error = w - static_cast<double>(round_code(w, {scale, 0.0F})) * scale;
      sum += error * error;
    }
    return sum;
  };
  AffineParams best = start;
  double least = error_of(start.scale);
  float scale = start.scale;
  for (int i = 0; i < kMaxFits; ++i) {
    double product = 0.0;
    double squares = 0.0;
    for (const float w : values) {
      const double code = round_code(w, {scale, 0.0F});
      product += w * code;
      squares += code * code;
    }
    if (!(product > 0.0) || !(squares > 0.0)) break;
    float next = std::max(static_cast<float>(product / squares), kScaleFloor);
    if (spec_.format.scale_dtype) next = round_scale_to(next, *spec_.format.scale_dtype);
    if (next == scale) break;
    scale = next;
    const double error = error_of(scale);
    if (error < least) {
      least = error;
      best.scale = scale;
    }
  }
  return best;
}

void RowQuantizer::round_all(std::span<const float> row, std::span<int8_t> codes,
                             std::span<const AffineParams> params) const {
  for (size_t i = 0; i < row.size(); ++i) {
    const auto group = static_cast<size_t>(group_of(static_cast<int64_t>(i)));
    codes[i] = static_cast<int8_t>(round_code(row[i], params[group]));
  }
}

// The routine's own codes: what is no outlier stays on the 4-bit grid even where an error that was
// spread over it would take it further.
void RowQuantizer::clamp_bulk(std::span<const float> row, std::span<int8_t> codes,
                              std::span<const AffineParams> params) const {
  constexpr auto kSteps = static_cast<int8_t>(kSparseSteps);
  for (size_t i = 0; i < row.size(); ++i) {
    const auto group = static_cast<size_t>(group_of(static_cast<int64_t>(i)));
    const bool is_outlier = std::abs(row[i]) > params[group].scale * kSparseSteps;
    if (!is_outlier) codes[i] = std::clamp<int8_t>(codes[i], -kSteps, kSteps);
  }
}

void RowQuantizer::spread_errors(std::span<const float> row, std::span<int8_t> codes,
                                 std::span<const AffineParams> params) {
  const GptqFactor& factor = inputs_->factor;
  const auto channel = [&](int64_t i) {
    return static_cast<size_t>(factor.order.empty() ? i : factor.order[static_cast<size_t>(i)]);
  };
  work_.resize(row.size());
  for (int64_t i = 0; i < k_; ++i) work_[static_cast<size_t>(i)] = row[channel(i)];
  std::array<float, kColumnBlock> errors{};
  for (int64_t begin = 0; begin < k_; begin += kColumnBlock) {
    const int64_t end = std::min(k_, begin + kColumnBlock);
    for (int64_t i = begin; i < end; ++i) {
      const float* upper = factor.upper.data() + i * k_;
      const size_t at = channel(i);
      const AffineParams& group = params[static_cast<size_t>(group_of(static_cast<int64_t>(at)))];
      const float value = work_[static_cast<size_t>(i)];
      const float code = round_code(value, group);
      codes[at] = static_cast<int8_t>(code);
      const float error = (value - (code - group.offset) * group.scale) / upper[i];
      errors[static_cast<size_t>(i - begin)] = error;
      for (int64_t j = i + 1; j < end; ++j) work_[static_cast<size_t>(j)] -= error * upper[j];
    }
    for (int64_t i = begin; i < end; ++i) {
      const float* upper = factor.upper.data() + i * k_;
      const float error = errors[static_cast<size_t>(i - begin)];
      for (int64_t j = end; j < k_; ++j) work_[static_cast<size_t>(j)] -= error * upper[j];
    }
  }
}

void RowQuantizer::set_residual(std::span<const float> row, std::span<const int8_t> codes,
                                std::span<const AffineParams> params) {
  residual_.resize(row.size());
  gradient_.assign(row.size(), 0.0);
  for (size_t i = 0; i < row.size(); ++i) {
    const AffineParams& group = params[static_cast<size_t>(group_of(static_cast<int64_t>(i)))];
    residual_[i] = (static_cast<double>(codes[i]) - group.offset) * group.scale - row[i];
  }
  const double* gram = inputs_->gram.values.data();
  for (int64_t i = 0; i < k_; ++i) {
    const double factor = residual_[static_cast<size_t>(i)];
    const double* h = gram + i * k_;
    for (int64_t j = 0; j < k_; ++j) gradient_[static_cast<size_t>(j)] += factor * h[j];
  }
}

// The scale of each group that is best for its codes given all others; taken where the rounded one
// is still better.
void RowQuantizer::fit_scales(std::span<const float> row, std::span<int8_t> codes,
                              std::span<AffineParams> params) {
  const double* gram = inputs_->gram.values.data();
  for (size_t group = 0; group < params.size(); ++group) {
    const int64_t first = static_cast<int64_t>(group) * group_cols_;
    const int64_t end = std::min(k_, first + group_cols_);
    const auto step_of = [&](int64_t i) {
      return static_cast<double>(codes[static_cast<size_t>(i)]) - params[group].offset;
    };
    double slope = 0.0;
    double curvature = 0.0;
    for (int64_t i = first; i < end; ++i) {
      slope += step_of(i) * gradient_[static_cast<size_t>(i)];
      double sum = 0.0;
      for (int64_t j = first; j < end; ++j) sum += gram[i * k_ + j] * step_of(j);
      curvature += step_of(i) * sum;
    }
    if (!(curvature > 0.0)) continue;
    const float old = params[group].scale;
    auto scale = static_cast<float>(old - slope / curvature);
    if (!(scale >= kScaleFloor) || !std::isfinite(scale)) continue;
    if (spec_.format.scale_dtype) scale = round_scale_to(scale, *spec_.format.scale_dtype);
    const double change = static_cast<double>(scale) - old;
    if (!(change * (2.0 * slope + change * curvature) < 0.0)) continue;
    params[group].scale = scale;
    set_residual(row, codes, params);
  }
}

// One sweep over the codes; true where one was changed.
bool RowQuantizer::fit_codes(std::span<int8_t> codes, std::span<const AffineParams> params) {
  const double* gram = inputs_->gram.values.data();
  bool is_changed = false;
  for (int64_t i = 0; i < k_; ++i) {
    const auto at = static_cast<size_t>(i);
    const double h = gram[i * k_ + i];
    if (!(h > 0.0)) continue;
    const AffineParams& group = params[static_cast<size_t>(group_of(i))];
    const double wanted = codes[at] - gradient_[at] / (h * group.scale);
    const double code = std::clamp(std::rint(wanted), static_cast<double>(bound(false)),
                                   static_cast<double>(bound(true)));
    const double step = (code - codes[at]) * group.scale;
    if (step == 0.0 || !(step * (2.0 * gradient_[at] + step * h) < 0.0)) continue;
    codes[at] = static_cast<int8_t>(code);
    residual_[at] += step;
    for (int64_t j = 0; j < k_; ++j) gradient_[static_cast<size_t>(j)] += step * gram[i * k_ + j];
    is_changed = true;
  }
  return is_changed;
}

void RowQuantizer::refine(std::span<const float> row, std::span<int8_t> codes,
                          std::span<AffineParams> params) {
  for (int sweep = 0; sweep < spec_.method.n_refine_sweeps; ++sweep) {
    set_residual(row, codes, params);
    if (!spec_.method.sparse) fit_scales(row, codes, params);
    if (!fit_codes(codes, params)) break;
  }
}

}  // namespace llmq::quant
