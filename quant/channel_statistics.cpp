#include "quant/channel_statistics.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "formats/error.h"

namespace llmq::quant {

float ChannelStatistics::absmax(int64_t channel) const {
  const auto at = static_cast<size_t>(channel);
  return std::max(std::abs(min[at]), std::abs(max[at]));
}

void ChannelObserver::observe(const ConstMatrixF32& x) {
  if (x.n_rows == 0) return;
  if (sum_.k == 0) {
    const auto k = static_cast<size_t>(x.n_cols);
    sum_.k = x.n_cols;
    sum_.min.assign(k, std::numeric_limits<float>::infinity());
    sum_.max.assign(k, -std::numeric_limits<float>::infinity());
    sum_.mean_abs.assign(k, 0.0);
  }
  for (int64_t row = 0; row < x.n_rows; ++row) {
    const float* values = x.data + row * x.row_stride;
    for (int64_t channel = 0; channel < sum_.k; ++channel) {
      const float value = values[channel];
      if (!std::isfinite(value)) {
        throw formats::bad_input(
            fmt::format("row {}, channel {}: the activation is {}", sum_.n_rows, channel, value));
      }
      const auto at = static_cast<size_t>(channel);
      sum_.min[at] = std::min(sum_.min[at], value);
      sum_.max[at] = std::max(sum_.max[at], value);
      sum_.mean_abs[at] += std::abs(value);
    }
    if (sum_.n_rows % step_ == 0) keep(values);
    ++sum_.n_rows;
  }
}

// Where twice as many rows as wanted are kept, every other one is dropped.
void ChannelObserver::keep(const float* row) {
  if (sum_.n_kept == 2 * n_keep_) {
    for (int64_t i = 0; i < n_keep_; ++i)
      std::copy_n(sum_.kept.begin() + 2 * i * sum_.k, sum_.k, sum_.kept.begin() + i * sum_.k);
    sum_.n_kept = n_keep_;
    sum_.kept.resize(static_cast<size_t>(n_keep_ * sum_.k));
    step_ *= 2;
    if (sum_.n_rows % step_ != 0) return;
  }
  sum_.kept.insert(sum_.kept.end(), row, row + sum_.k);
  ++sum_.n_kept;
}

ChannelStatistics ChannelObserver::statistics() const {
  ChannelStatistics result = sum_;
  for (double& value : result.mean_abs)
    value /= static_cast<double>(std::max<int64_t>(1, sum_.n_rows));
  return result;
}

}  // namespace llmq::quant
