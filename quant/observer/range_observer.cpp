#include "quant/observer/range_observer.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <utility>

#include "formats/dtype.h"
#include "formats/error.h"
#include "quant/kernels/rounding/rounding.h"
#include "quant/observer/histogram.h"

namespace llmq::quant {
namespace {

struct RowSummary {
  float min = 0.0F;
  float max = 0.0F;
  double sum = 0.0;
  double sum_squares = 0.0;
};

// Lane = column mod 8, lanes added in order at the end: the same bits on every machine.
void add_up(const float* row, int64_t n, RowSummary& summary) {
  constexpr int kLanes = 8;
  std::array<double, kLanes> sums{};
  std::array<double, kLanes> squares{};
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (int lane = 0; lane < kLanes; ++lane) {
      const double x = row[i + lane];
      sums[lane] += x;
      squares[lane] += x * x;
    }
  }
  for (int lane = 0; i < n; ++i, ++lane) {
    const double x = row[i];
    sums[lane] += x;
    squares[lane] += x * x;
  }
  for (int lane = 0; lane < kLanes; ++lane) {
    summary.sum += sums[lane];
    summary.sum_squares += squares[lane];
  }
}

std::vector<RowSummary> summarize(const ConstMatrixF32& x, ThreadTeam& team) {
  std::vector<RowSummary> rows(static_cast<size_t>(x.n_rows));
  const auto range_of = rounding_kernels().range[float_type_index(formats::DType::kF32)];
  team.parallel_for(x.n_rows, [&](int64_t row, int) {
    const float* values = x.data + row * x.row_stride;
    RowRange range{};
    range_of(values, x.n_cols, &range);
    if (range.first_non_finite >= 0) {
      throw formats::bad_input(fmt::format("the activation in row {}, column {} is {}", row,
                                           range.first_non_finite, values[range.first_non_finite]));
    }
    RowSummary& summary = rows[static_cast<size_t>(row)];
    summary.min = range.min;
    summary.max = range.max;
    add_up(values, x.n_cols, summary);
  });
  return rows;
}

ActivationRange clipped_range(const Histogram& histogram) {
  const BinWindow window = search_window(histogram.counts);
  const double width = (static_cast<double>(histogram.max) - histogram.min) / kHistogramBins;
  ActivationRange range{histogram.min, histogram.max, ActMethod::kHistogram};
  if (window.first > 0) range.min = static_cast<float>(histogram.min + width * window.first);
  if (window.last < kHistogramBins - 1)
    range.max = static_cast<float>(histogram.min + width * (window.last + 1));
  return range;
}

}  // namespace

float RangeStatistics::absmax() const {
  return std::max(std::abs(min), std::abs(max));
}

double RangeStatistics::max_over_std() const {
  const double largest = absmax();
  if (largest == 0.0) return 0.0;
  return deviation > 0.0 ? largest / deviation : std::numeric_limits<double>::infinity();
}

RangeObserver::RangeObserver(bool with_histogram) {
  if (with_histogram) histogram_.emplace();
}

void RangeObserver::observe(const ConstMatrixF32& x, ThreadTeam& team) {
  if (x.n_rows <= 0 || x.n_cols <= 0) return;
  const std::vector<RowSummary> rows = summarize(x, team);
  float min = n_ > 0 ? min_ : rows.front().min;
  float max = n_ > 0 ? max_ : rows.front().max;
  for (const RowSummary& row : rows) {
    min = std::min(min, row.min);
    max = std::max(max, row.max);
  }
  if (histogram_) {
    if (!std::isfinite(max - min)) {
      throw formats::bad_input(fmt::format(
          "activations from {:g} to {:g} span more than float32 holds; use act_method 1", min,
          max));
    }
    Histogram histogram = make_histogram(x, min, max, team);
    if (n_ > 0) add_histogram(*histogram_, histogram);
    histogram_ = std::move(histogram);
  }
  min_ = min;
  max_ = max;
  n_ += x.n_rows * x.n_cols;
  for (const RowSummary& row : rows) {
    sum_ += row.sum;
    sum_squares_ += row.sum_squares;
  }
}

RangeStatistics RangeObserver::statistics() const {
  RangeStatistics statistics;
  if (n_ == 0) return statistics;
  const auto n = static_cast<double>(n_);
  statistics.n = n_;
  statistics.min = min_;
  statistics.max = max_;
  statistics.mean = sum_ / n;
  // Rounding may leave less than nothing of values that are all alike.
  if (min_ != max_) {
    const double variance = sum_squares_ / n - statistics.mean * statistics.mean;
    statistics.deviation = std::sqrt(std::max(variance, 0.0));
  }
  statistics.histogram = histogram_;
  return statistics;
}

ActivationRange choose_range(const RangeStatistics& statistics, ActMethod method, bool symmetric) {
  if (statistics.n <= 0) {
    throw formats::bad_input(
        "no activations were observed, so that their range is unknown; calibrate with more samples "
        "or keep this layer in float");
  }
  const bool clips =
      method == ActMethod::kHistogram ||
      (method == ActMethod::kAutomatic && statistics.max_over_std() <= kMaxOverStdForHistogram);
  ActivationRange range{statistics.min, statistics.max, ActMethod::kMinMax};
  if (clips) {
    if (!statistics.histogram) {
      throw formats::Error(formats::ErrorCode::kInternal,
                           "the histogram method was asked for, but no histogram was kept");
    }
    range = clipped_range(*statistics.histogram);
  }
  if (symmetric) {
    range.max = std::max(std::abs(range.min), std::abs(range.max));
    range.min = -range.max;
  }
  return range;
}

}  // namespace llmq::quant
