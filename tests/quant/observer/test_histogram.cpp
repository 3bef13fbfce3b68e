#include "quant/observer/histogram.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <string>
#include <vector>

#include "formats/json.h"
#include "tests/quant/observer/observer_samples.h"

namespace llmq::quant {
namespace {

using testing::as_matrix;
using testing::observed;
using testing::samples;

Histogram histogram_of(const std::vector<float>& values) {
  ThreadTeam team(1);
  const auto [min, max] = std::minmax_element(values.begin(), values.end());
  return make_histogram(as_matrix(values, 1), *min, *max, team);
}

double total(const Histogram& histogram) {
  return std::accumulate(histogram.counts.begin(), histogram.counts.end(), 0.0);
}

// ∫ (x − level(x))² over each bin, cut wherever the level changes, in long double.
long double integrated_error(const std::vector<double>& counts, const BinWindow& window) {
  const long double step = (window.last - window.first + 1) / 256.0L;
  long double error = 0;
  for (int bin = 0; bin < kHistogramBins; ++bin) {
    const long double end = bin + 1 - window.first;
    long double at = bin - window.first;
    while (at < end) {
      // A little further on it is certain which level this is, whatever rounding did to the edge.
      const long double inside = std::min(at + 1e-9L, (at + end) / 2);
      const long double level = std::clamp(std::floor(inside / step), 0.0L, 255.0L);
      long double piece_end = end;
      if (inside < 0) piece_end = std::min(end, 0.0L);
      if (inside >= 0 && level < 255) piece_end = std::min(end, (level + 1) * step);
      const long double middle = (level + 0.5L) * step;
      const long double a = at - middle;
      const long double b = piece_end - middle;
      error += counts[bin] * (b - a) * (a * a + a * b + b * b) / 3;
      at = piece_end;
    }
  }
  return error;
}

TEST(Histogram, CountsEveryValueInTheBinThatFloat64Gives) {
  // Limits 0 and 2^11 make bins of width 1, so that every implementation must agree.
  std::vector<float> values = samples(3, 50001, "square", 0.0F, 16.0F);
  for (float& x : values) x *= 128.0F;
  std::vector<double> expected(kHistogramBins);
  for (const float x : values)
    ++expected[std::min(kHistogramBins - 1, static_cast<int>(std::floor(x)))];
  EXPECT_EQ(histogram_of(values).counts, expected);
}

TEST(Histogram, AnyRangeAndLengthIsCountedCompletely) {
  for (const size_t n : {2, 3, 5, 255, 256, 257, 1027}) {
    for (const float scale : {1e-30F, 0.3F, 1e30F}) {
      std::vector<float> values = samples(n, n, "bell", -7.3F, 5.1F);
      for (float& x : values) x *= scale;
      const Histogram histogram = histogram_of(values);
      EXPECT_EQ(total(histogram), static_cast<double>(n));
      EXPECT_GE(histogram.counts.front(), 1.0);
      EXPECT_GE(histogram.counts.back(), 1.0);
    }
  }
}

TEST(Histogram, MovingToAWiderRangeKeepsTotalAndMean) {
  const std::vector<float> values = samples(5, 30000, "bell", -6.7F, 5.3F);
  const Histogram earlier = histogram_of(values);
  for (const auto& [low, high] : {std::pair{-6.7F, 5.4F}, {-7.0F, 5.3F}, {-6.75F, 900.0F}}) {
    Histogram later{low, high, std::vector<double>(kHistogramBins)};
    add_histogram(earlier, later);
    EXPECT_EQ(total(later), total(earlier));  // sixteenths of whole numbers add up exactly
    const auto mean = [](const Histogram& histogram) {
      const double width = (static_cast<double>(histogram.max) - histogram.min) / kHistogramBins;
      double sum = 0.0;
      for (int bin = 0; bin < kHistogramBins; ++bin)
        sum += histogram.counts[bin] * (histogram.min + (bin + 0.5) * width);
      return sum / total(histogram);
    };
    // No part moves by more than half a bin of the new range.
    EXPECT_NEAR(mean(later), mean(earlier), (high - low) / kHistogramBins / 2);
  }
}

TEST(Histogram, APointMovesToTheBinThatHoldsIt) {
  const Histogram point = histogram_of({3.0F, 3.0F, 3.0F});
  EXPECT_EQ(point.counts[0], 3.0);
  Histogram later{0.0F, 2048.0F, std::vector<double>(kHistogramBins)};
  add_histogram(point, later);
  EXPECT_EQ(later.counts[3], 3.0);
  EXPECT_EQ(total(later), 3.0);
}

TEST(Histogram, ErrorOfAWindowIsTheIntegralOverItsLevels) {
  const std::vector<double> counts = histogram_of(samples(6, 20000, "bell", -8.0F, 8.0F)).counts;
  for (const auto& [first, last] :
       {std::pair{0, 2047}, {0, 2046}, {1, 2047}, {100, 1500}, {513, 768}, {900, 1000}, {7, 7}}) {
    const BinWindow window{first, last};
    const auto expected = static_cast<double>(integrated_error(counts, window));
    // A bin's error is the difference of two cubes whose bases lie one bin apart and at most 2048
    // bins from the level: 2048 times larger than what remains, some roundings each.
    EXPECT_NEAR(quantization_error(counts, window), expected, 2048 * 16 * 0x1p-53 * expected);
  }
}

// The search as it is described, on the sorted samples themselves: ends at quantiles that recede in
// steps of 10⁻⁵, errors by integration.
BinWindow searched_on_samples(std::vector<float> values) {
  const Histogram histogram = histogram_of(values);
  std::sort(values.begin(), values.end());
  const auto n_up_to_bin = [&](int bin) {
    double sum = 0;
    for (int i = 0; i <= bin; ++i) sum += histogram.counts[i];
    return sum;
  };
  const auto n = static_cast<double>(values.size());
  BinWindow window;
  double lower = 0.0;
  double upper = 1.0;
  long double least = INFINITY;
  while (lower < upper) {
    int n_first = 0;  // bins that the lower end could give up
    while (window.first + n_first < window.last &&
           n_up_to_bin(window.first + n_first) < (lower + 1e-5) * n)
      ++n_first;
    int n_last = 0;
    while (window.last - n_last > window.first &&
           n_up_to_bin(window.last - n_last) > (upper - 1e-5) * n)
      ++n_last;
    BinWindow next = window;
    if (n_first > n_last) {
      lower += 1e-5;
      next.first += n_first;
    } else {
      upper -= 1e-5;
      next.last -= n_last;
    }
    if (next.first == window.first && next.last == window.last) continue;
    const long double error = integrated_error(histogram.counts, next);
    if (error > least) return window;
    least = error;
    window = next;
  }
  return window;
}

TEST(Histogram, SearchFindsTheWindowOfADirectSearch) {
  const std::vector<std::vector<float>> all = {
      samples(31, 150000, "rare", -100.0F, 90.0F), samples(32, 150000, "rare", -90.0F, 3.0F),
      samples(33, 130000, "bell", -7.9F, 7.7F), samples(34, 3000, "outliers", -70.0F, 100.0F),
      samples(35, 5000, "uniform", -8.0F, 8.0F)};
  for (const std::vector<float>& values : all) {
    const BinWindow expected = searched_on_samples(values);
    const BinWindow window = search_window(histogram_of(values).counts);
    EXPECT_EQ(window.first, expected.first);
    EXPECT_EQ(window.last, expected.last);
  }
}

TEST(Histogram, SearchEndsOnOneFullBin) {
  std::vector<double> counts(kHistogramBins);
  counts[1200] = 5.0;
  const BinWindow window = search_window(counts);
  EXPECT_LE(window.first, 1200);
  EXPECT_GE(window.last, 1200);
}

// The search works in bins, PyTorch in values: their ends differ by the rounding of
// min + width · bin in float32 at most, which is far less than a bin.
TEST(GoldenHistogram, DecidesOnPyTorchsRanges) {
  const formats::Json golden = formats::read_json_file(std::string(LLMQ_TEST_SOURCE_DIR) +
                                                       "/quant/observer/histogram_observer.json");
  int n_clipped = 0;
  for (const formats::Json& test_case : golden.at("cases")) {
    SCOPED_TRACE(test_case.at("name").get<std::string>());
    std::vector<std::vector<float>> batches;
    for (const formats::Json& batch : test_case.at("batches")) {
      batches.push_back(samples(batch.at("seed").get<uint64_t>(), batch.at("n").get<size_t>(),
                                batch.at("kind").get<std::string>(), batch.at("low").get<float>(),
                                batch.at("high").get<float>()));
    }
    const RangeStatistics statistics = observed(batches);
    EXPECT_EQ(statistics.min, test_case.at("observed").at(0).get<float>());
    EXPECT_EQ(statistics.max, test_case.at("observed").at(1).get<float>());
    const ActivationRange range = choose_range(statistics, ActMethod::kHistogram, false);
    const double tolerance = 2 * 0x1p-23 * statistics.absmax();
    for (const char* precision : {"float32", "float64"}) {
      EXPECT_NEAR(range.min, test_case.at(precision).at(0).get<double>(), tolerance) << precision;
      EXPECT_NEAR(range.max, test_case.at(precision).at(1).get<double>(), tolerance) << precision;
    }
    if (range.max - range.min < 0.5F * (statistics.max - statistics.min)) ++n_clipped;
  }
  EXPECT_GE(n_clipped, 3);  // the goldens exercise more than the first step
}

}  // namespace
}  // namespace llmq::quant
