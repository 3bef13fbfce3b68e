#include "quant/kv_scales.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

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

}  // namespace

KvObserver::KvObserver(const KvHeads& heads) : heads_(heads) {
  const bool fits = heads.n_kv_heads > 0 && heads.head_dim > 0 && heads.rotary_dim >= 0 &&
                    heads.rotary_dim % 2 == 0 && heads.rotary_dim <= heads.head_dim;
  if (!fits) {
    throw Error(ErrorCode::kInternal,
                fmt::format("{} KV heads of {} lanes, {} of them turning, cannot be observed",
                            heads.n_kv_heads, heads.head_dim, heads.rotary_dim));
  }
  key_squares_.resize(static_cast<size_t>(heads.n_kv_heads * heads.head_dim));
  value_bound_.resize(key_squares_.size());
}

void KvObserver::observe(const ConstMatrixF32& k, const ConstMatrixF32& v) {
  const auto n_lanes = static_cast<int64_t>(key_squares_.size());
  if (k.n_cols != n_lanes || v.n_cols != n_lanes || k.n_rows != v.n_rows) {
    throw Error(ErrorCode::kInternal,
                fmt::format("keys [{}, {}] and values [{}, {}] do not fit {} lanes", k.n_rows,
                            k.n_cols, v.n_rows, v.n_cols, n_lanes));
  }
  check_finite(k, "the key");
  check_finite(v, "the value");
  const int64_t half = heads_.rotary_dim / 2;
  for (int64_t row = 0; row < k.n_rows; ++row) {
    for (int64_t head = 0; head < heads_.n_kv_heads; ++head) {
      const float* key = k.data + row * k.row_stride + head * heads_.head_dim;
      double* squares = key_squares_.data() + head * heads_.head_dim;
      const auto square = [&](int64_t lane) { return static_cast<double>(key[lane]) * key[lane]; };
      for (int64_t i = 0; i < half; ++i)
        squares[i] = std::max(squares[i], square(i) + square(i + half));
      for (int64_t i = heads_.rotary_dim; i < heads_.head_dim; ++i)
        squares[i] = std::max(squares[i], square(i));
      std::copy_n(squares, half, squares + half);
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
  KvStatistics result{.n_rows = n_rows_, .key_bound = {}, .value_bound = value_bound_};
  result.key_bound.reserve(key_squares_.size());
  for (const double squares : key_squares_)
    result.key_bound.push_back(static_cast<float>(std::sqrt(squares)));
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
  for (const float bound : statistics.key_bound)
    scales.key.push_back(symmetric_scale(bound, dtype));
  for (const float bound : statistics.value_bound)
    scales.value.push_back(symmetric_scale(bound, dtype));
  return scales;
}

}  // namespace llmq::quant
