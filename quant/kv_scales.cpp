#include "quant/kv_scales.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <numbers>
#include <utility>

#include "formats/error.h"
#include "formats/float16.h"
#include "quant/affine.h"

namespace llmq::quant {
namespace {

using formats::DType;
using formats::Error;
using formats::ErrorCode;

/// The next greater value of `dtype`; `scale` is one, positive.
float next_value(float scale, DType dtype) {
  switch (dtype) {
    case DType::kF16:
      return formats::fp16_to_float(static_cast<uint16_t>(formats::float_to_fp16(scale) + 1));
    case DType::kBF16:
      return formats::bf16_to_float(static_cast<uint16_t>(formats::float_to_bf16(scale) + 1));
    default:
      return std::nextafter(scale, std::numeric_limits<float>::infinity());
  }
}

void check_finite(const ConstMatrixF32& x, const char* what) {
  for (int64_t row = 0; row < x.n_rows; ++row) {
    for (int64_t lane = 0; lane < x.n_cols; ++lane) {
      const float value = x.data[row * x.row_stride + lane];
      if (std::isfinite(value)) continue;
      throw formats::bad_input(
          fmt::format("{} of row {} is {} at lane {}; the weights overflow or are damaged", what,
                      row, value, lane));
    }
  }
}

/// Codes −128..127 for values from min ≤ 0 to max ≥ 0, none of which clips.
AffineParams full_range_params(float min, float max, DType dtype) {
  AffineParams params;
  params.scale = round_scale_to(std::max((max - min) / 255.0F, kScaleFloor), dtype);
  while (true) {
    params.offset = std::nearbyint(-128.0F - min / params.scale);
    const bool fits = std::nearbyint(min / params.scale + params.offset) >= -128.0F &&
                      std::nearbyint(max / params.scale + params.offset) <= 127.0F;
    if (fits) return params;
    params.scale = next_value(params.scale, dtype);
  }
}

}  // namespace

KvObserver::KvObserver(KvHeads heads) : heads_(std::move(heads)) {
  const bool fits = heads_.n_kv_heads > 0 && heads_.head_dim > 0 && heads_.rotary_dim >= 0 &&
                    heads_.rotary_dim % 2 == 0 && heads_.rotary_dim <= heads_.head_dim &&
                    (heads_.inv_freq.empty() ||
                     static_cast<int64_t>(heads_.inv_freq.size()) == heads_.rotary_dim / 2);
  if (!fits) {
    throw Error(ErrorCode::kInternal,
                fmt::format("{} KV heads of {} lanes, {} of them turning, cannot be observed",
                            heads_.n_kv_heads, heads_.head_dim, heads_.rotary_dim));
  }
  key_min_.resize(static_cast<size_t>(heads_.n_kv_heads * heads_.head_dim));
  key_max_.resize(key_min_.size());
  value_bound_.resize(key_min_.size());
}

bool KvObserver::turns_fully(int64_t pair) const {
  if (heads_.inv_freq.empty()) return true;
  const double turn = static_cast<double>(heads_.inv_freq[static_cast<size_t>(pair)]) *
                      static_cast<double>(heads_.max_positions);
  return !(turn < 2 * std::numbers::pi);
}

// The arc that starts `angle` before where the pair stands and has the whole range of positions.
void KvObserver::observe_pair(double a, double b, size_t lane, double angle) {
  const int64_t half = heads_.rotary_dim / 2;
  const auto pair = static_cast<int64_t>(lane) % heads_.head_dim;
  const size_t partner = lane + static_cast<size_t>(half);
  const double length = std::hypot(a, b);
  const double begin = std::atan2(b, a) - angle;
  const double end = begin + static_cast<double>(heads_.inv_freq[static_cast<size_t>(pair)]) *
                                 static_cast<double>(heads_.max_positions);
  const auto widen = [&](double x, double y) {
    key_min_[lane] = std::min(key_min_[lane], x);
    key_max_[lane] = std::max(key_max_[lane], x);
    key_min_[partner] = std::min(key_min_[partner], y);
    key_max_[partner] = std::max(key_max_[partner], y);
  };
  widen(a, b);
  widen(length * std::cos(begin), length * std::sin(begin));
  widen(length * std::cos(end), length * std::sin(end));
  // Where the arc crosses an axis, one lane holds the whole length.
  constexpr double kQuarter = std::numbers::pi / 2;
  for (double n = std::ceil(begin / kQuarter); n * kQuarter <= end; ++n) {
    constexpr std::array<std::array<double, 2>, 4> kAxes{{{1, 0}, {0, 1}, {-1, 0}, {0, -1}}};
    const auto& axis = kAxes[static_cast<size_t>(static_cast<int64_t>(n) & 3)];
    widen(length * axis[0], length * axis[1]);
  }
}

void KvObserver::observe(const KvBatch& batch) {
  const auto n_lanes = static_cast<int64_t>(key_min_.size());
  const ConstMatrixF32& k = batch.k;
  const ConstMatrixF32& v = batch.v;
  if (k.n_cols != n_lanes || v.n_cols != n_lanes || k.n_rows != v.n_rows ||
      (!heads_.inv_freq.empty() && static_cast<int64_t>(batch.positions.size()) != k.n_rows)) {
    throw Error(
        ErrorCode::kInternal,
        fmt::format("keys [{}, {}] and values [{}, {}] at {} positions do not fit {} lanes",
                    k.n_rows, k.n_cols, v.n_rows, v.n_cols, batch.positions.size(), n_lanes));
  }
  check_finite(k, "the key");
  check_finite(v, "the value");
  const int64_t half = heads_.rotary_dim / 2;
  for (int64_t row = 0; row < k.n_rows; ++row) {
    for (int64_t head = 0; head < heads_.n_kv_heads; ++head) {
      const int64_t first = head * heads_.head_dim;
      const float* key = k.data + row * k.row_stride + first;
      for (int64_t i = 0; i < half; ++i) {
        const auto lane = static_cast<size_t>(first + i);
        const double a = key[i];
        const double b = key[i + half];
        if (turns_fully(i)) {
          key_max_[lane] = std::max(key_max_[lane], a * a + b * b);
        } else {
          observe_pair(a, b, lane,
                       static_cast<double>(heads_.inv_freq[static_cast<size_t>(i)]) *
                           static_cast<double>(batch.positions[static_cast<size_t>(row)]));
        }
      }
      for (int64_t i = heads_.rotary_dim; i < heads_.head_dim; ++i) {
        const auto lane = static_cast<size_t>(first + i);
        key_min_[lane] = std::min<double>(key_min_[lane], key[i]);
        key_max_[lane] = std::max<double>(key_max_[lane], key[i]);
      }
    }
    const float* value = v.data + row * v.row_stride;
    for (int64_t i = 0; i < n_lanes; ++i) {
      float& bound = value_bound_[static_cast<size_t>(i)];
      bound = std::max(bound, std::abs(value[i]));
    }
  }
  n_rows_ += k.n_rows;
}

KvStatistics KvObserver::statistics() const {
  KvStatistics result;
  result.n_rows = n_rows_;
  result.value_bound = value_bound_;
  result.key_min.assign(key_min_.begin(), key_min_.end());
  result.key_max.assign(key_max_.begin(), key_max_.end());
  const int64_t half = heads_.rotary_dim / 2;
  for (int64_t lane = 0; lane < static_cast<int64_t>(key_max_.size()); ++lane) {
    const int64_t i = lane % heads_.head_dim;
    if (i >= half || !turns_fully(i)) continue;
    const auto length = static_cast<float>(std::sqrt(key_max_[static_cast<size_t>(lane)]));
    for (const auto at : {static_cast<size_t>(lane), static_cast<size_t>(lane + half)}) {
      result.key_min[at] = -length;
      result.key_max[at] = length;
    }
  }
  return result;
}

float symmetric_scale(float bound, DType dtype) {
  float scale = round_scale_to(std::max(bound / 127.0F, kScaleFloor), dtype);
  while (std::nearbyint(bound / scale) > 127.0F) scale = next_value(scale, dtype);
  return scale;
}

KvCacheScales kv_cache_scales(const KvStatistics& statistics, DType dtype) {
  if (statistics.n_rows == 0)
    throw formats::bad_input("no keys and values were observed; the KV cache cannot get scales");
  KvCacheScales scales;
  for (size_t lane = 0; lane < statistics.key_max.size(); ++lane) {
    const float min = statistics.key_min[lane];
    const float max = statistics.key_max[lane];
    const float symmetric = symmetric_scale(std::max(-min, max), dtype);
    const AffineParams whole =
        min == -max ? AffineParams{symmetric, 0.0F} : full_range_params(min, max, dtype);
    const bool is_finer = whole.scale < symmetric;
    scales.key.push_back(is_finer ? whole.scale : symmetric);
    scales.key_offset.push_back(is_finer ? whole.offset : 0.0F);
  }
  for (const float bound : statistics.value_bound)
    scales.value.push_back(symmetric_scale(bound, dtype));
  return scales;
}

}  // namespace llmq::quant
