#include "quant/observer/histogram.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <memory>
#include <vector>

namespace llmq::quant {
namespace {

constexpr int kParts = 16;     // into which a bin is cut before it moves to another range
constexpr int kNLevels = 256;  // of 8-bit codes

// Neighbours in a row often fall into the same bin; counting them in turn in several tables spares
// an addition the wait for the one before.
constexpr int kTables = 4;

int bin_of(float x, float min, float width) {
  const float position = (x - min) / width * static_cast<float>(kHistogramBins);
  constexpr auto kLast = static_cast<float>(kHistogramBins - 1);
  return static_cast<int>(position < kLast ? position : kLast);
}

// Counts of one thread. Tables of 32 bits stay in the L1 cache; they are emptied into the totals
// before they could overflow.
class BinCounter {
 public:
  BinCounter(float min, float width) : min_(min), width_(width) {}

  void add_row(const float* row, int64_t n) {
    constexpr int64_t kChunk = 256;
    std::array<int, kChunk> bins;
    for (int64_t first = 0; first < n; first += kChunk) {
      const int64_t count = std::min(kChunk, n - first);
      for (int64_t i = 0; i < count; ++i) bins[i] = bin_of(row[first + i], min_, width_);
      int64_t i = 0;
      for (; i + kTables <= count; i += kTables) {
        for (int table = 0; table < kTables; ++table) ++tables_[table][bins[i + table]];
      }
      for (; i < count; ++i) ++tables_[0][bins[i]];
      n_pending_ += count;
      if (n_pending_ >= kMaxPending) empty_tables();
    }
  }

  void add_to(std::vector<int64_t>& totals) {
    empty_tables();
    for (int bin = 0; bin < kHistogramBins; ++bin) totals[bin] += totals_[bin];
  }

 private:
  static constexpr int64_t kMaxPending = int64_t{1} << 30;

  void empty_tables() {
    for (auto& table : tables_) {
      for (int bin = 0; bin < kHistogramBins; ++bin) totals_[bin] += table[bin];
      table.fill(0);
    }
    n_pending_ = 0;
  }

  float min_;
  float width_;
  int64_t n_pending_ = 0;
  std::array<std::array<uint32_t, kHistogramBins>, kTables> tables_{};
  std::array<int64_t, kHistogramBins> totals_{};
};

double sum_of(std::span<const double> counts) {
  double sum = 0.0;
  for (const double count : counts) sum += count;
  return sum;
}

double cube(double x) {
  return x * x * x;
}

}  // namespace

Histogram make_histogram(const ConstMatrixF32& x, float min, float max, ThreadTeam& team) {
  Histogram histogram{min, max, std::vector<double>(kHistogramBins)};
  if (min == max) {
    histogram.counts[0] = static_cast<double>(x.n_rows) * static_cast<double>(x.n_cols);
    return histogram;
  }
  std::vector<std::unique_ptr<BinCounter>> counters(static_cast<size_t>(team.n_threads()));
  team.parallel_for(x.n_rows, [&](int64_t row, int thread) {
    std::unique_ptr<BinCounter>& counter = counters[static_cast<size_t>(thread)];
    if (counter == nullptr) counter = std::make_unique<BinCounter>(min, max - min);
    counter->add_row(x.data + row * x.row_stride, x.n_cols);
  });
  std::vector<int64_t> totals(kHistogramBins);
  for (const auto& counter : counters) {
    if (counter != nullptr) counter->add_to(totals);
  }
  std::transform(totals.begin(), totals.end(), histogram.counts.begin(),
                 [](int64_t count) { return static_cast<double>(count); });
  return histogram;
}

void add_histogram(const Histogram& earlier, Histogram& later) {
  if (earlier.min == later.min && earlier.max == later.max) {
    for (int bin = 0; bin < kHistogramBins; ++bin) later.counts[bin] += earlier.counts[bin];
    return;
  }
  if (earlier.min == earlier.max) {
    later.counts[bin_of(earlier.min, later.min, later.max - later.min)] += sum_of(earlier.counts);
    return;
  }
  const double earlier_width = static_cast<double>(earlier.max) - earlier.min;
  const double later_width = static_cast<double>(later.max) - later.min;
  const double part_width = earlier_width / (kHistogramBins * kParts);
  for (int bin = 0; bin < kHistogramBins; ++bin) {
    if (earlier.counts[bin] == 0.0) continue;
    for (int part = 0; part < kParts; ++part) {
      const double middle = earlier.min + (bin * kParts + part + 0.5) * part_width;
      const double position = (middle - later.min) / later_width * kHistogramBins;
      const int target = std::min(static_cast<int>(position), kHistogramBins - 1);
      later.counts[target] += earlier.counts[bin] / kParts;
    }
  }
}

double quantization_error(std::span<const double> counts, const BinWindow& window) {
  const int n_bins = window.last - window.first + 1;
  const double step = static_cast<double>(n_bins) / kNLevels;
  const double half_step = step / 2.0;
  // The level that contains an edge between bins, exactly: lengths are counted in bins.
  const auto level_of = [&](int edge) {
    return edge < 0 ? 0 : std::min(edge * kNLevels / n_bins, kNLevels - 1);
  };
  const auto middle_of = [&](int level) { return (level + 0.5) * step; };
  double error = 0.0;
  int begin_level = level_of(-window.first);
  for (int bin = 0; bin < kHistogramBins; ++bin) {
    // ∫ (x − level)² over the bin: from its begin to the end of that level, all levels between,
    // from the start of the last level to its end. Where both are one level, the middle term
    // subtracts what the outer ones have too much.
    const int begin = bin - window.first;
    const int end_level = level_of(begin + 1);
    const double first_part = cube(half_step) - cube(begin - middle_of(begin_level));
    const double between = (end_level - begin_level - 1) * 2.0 * cube(half_step);
    const double last_part = cube(begin + 1 - middle_of(end_level)) + cube(half_step);
    error += counts[bin] * ((first_part + between + last_part) / 3.0);
    begin_level = end_level;
  }
  return error;
}

BinWindow search_window(std::span<const double> counts) {
  constexpr double kStep = 1e-5;
  std::vector<double> cumulative(counts.size());
  double total = 0.0;
  for (size_t bin = 0; bin < counts.size(); ++bin) cumulative[bin] = total += counts[bin];

  BinWindow window;
  double lower = 0.0;  // quantiles that the ends of the window have reached
  double upper = 1.0;
  double least_error = 0.0;
  bool is_first_move = true;
  while (lower < upper) {
    int first = window.first;
    while (first < window.last && cumulative[first] < (lower + kStep) * total) ++first;
    int last = window.last;
    while (last > window.first && cumulative[last] > (upper - kStep) * total) --last;
    BinWindow next = window;
    if (first - window.first > window.last - last) {
      next.first = first;
      lower += kStep;
    } else {
      next.last = last;
      upper -= kStep;
    }
    if (next.first == window.first && next.last == window.last) continue;
    const double error = quantization_error(counts, next);
    if (!is_first_move && error > least_error) break;
    is_first_move = false;
    least_error = error;
    window = next;
  }
  return window;
}

}  // namespace llmq::quant
