#include "quant/observer/range_observer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "formats/error.h"
#include "tests/quant/observer/observer_samples.h"
#include "tests/tools/test_files.h"

namespace llmq::quant {
namespace {

using testing::as_matrix;
using ::testing::HasSubstr;
using testing::observed;
using testing::samples;

constexpr float kInfinity = std::numeric_limits<float>::infinity();

std::string refusal(const std::function<void()>& call, formats::ErrorCode code) {
  return test::error_message(code, call);
}

void expect_equal(const RangeStatistics& a, const RangeStatistics& b) {
  EXPECT_EQ(a.n, b.n);
  EXPECT_EQ(a.min, b.min);
  EXPECT_EQ(a.max, b.max);
  EXPECT_EQ(a.mean, b.mean);
  EXPECT_EQ(a.deviation, b.deviation);
  ASSERT_EQ(a.histogram.has_value(), b.histogram.has_value());
  if (!a.histogram) return;
  EXPECT_EQ(a.histogram->min, b.histogram->min);
  EXPECT_EQ(a.histogram->max, b.histogram->max);
  EXPECT_EQ(a.histogram->counts, b.histogram->counts);
}

// Mean squared error of quantizing values with 256 codes spread over range, in float64.
double quantization_noise(const std::vector<float>& values, const ActivationRange& range) {
  const double scale = (static_cast<double>(range.max) - range.min) / 255;
  double sum = 0;
  for (const float x : values) {
    const double code = std::clamp(std::nearbyint((x - range.min) / scale), 0.0, 255.0);
    const double error = x - (range.min + code * scale);
    sum += error * error;
  }
  return sum / static_cast<double>(values.size());
}

TEST(RangeObserver, StatisticsAreThoseOfAllValuesTogether) {
  const std::vector<std::vector<float>> batches = {samples(1, 7 * 301, "bell", -3.0F, 7.5F),
                                                   samples(2, 7 * 33, "outliers", -80.0F, 60.0F),
                                                   samples(3, 7 * 1000, "square", 0.0F, 15.0F)};
  long double sum = 0;
  int64_t n = 0;
  for (const auto& batch : batches) {
    n += static_cast<int64_t>(batch.size());
    for (const float x : batch) sum += x;
  }
  const long double mean = sum / n;
  long double sum_squares = 0;
  for (const auto& batch : batches) {
    for (const float x : batch) sum_squares += (x - mean) * (x - mean);
  }
  const RangeStatistics statistics = observed(batches, 7);
  EXPECT_EQ(statistics.n, n);
  EXPECT_EQ(statistics.min, -80.0F);
  EXPECT_EQ(statistics.max, 60.0F);
  EXPECT_EQ(statistics.absmax(), 80.0F);
  // Each of n additions rounds a partial sum of magnitude 15 n at most.
  const double rounding = 0x1p-53 * static_cast<double>(n) * 15;
  EXPECT_NEAR(statistics.mean, static_cast<double>(mean), rounding);
  const auto deviation = static_cast<double>(std::sqrt(sum_squares / n));
  EXPECT_NEAR(statistics.deviation, deviation, 0x1p-53 * static_cast<double>(n) * deviation * 8);
  EXPECT_DOUBLE_EQ(statistics.max_over_std(), 80.0 / statistics.deviation);
}

TEST(RangeObserver, ResultIsTheSameForEveryNumberOfThreads) {
  const std::vector<std::vector<float>> batches = {samples(4, 37 * 517, "bell", -7.3F, 6.1F),
                                                   samples(5, 37 * 129, "outliers", -97.3F, 61.3F),
                                                   samples(6, 37 * 64, "square", 0.0F, 12.0F)};
  const RangeStatistics expected = observed(batches, 37, 1);
  for (int n_threads = 2; n_threads <= 4; ++n_threads)
    expect_equal(observed(batches, 37, n_threads), expected);
}

TEST(RangeObserver, OrderOfRowsInABatchChangesNoDecision) {
  constexpr int64_t kRows = 50;
  constexpr int64_t kCols = 211;
  const std::vector<float> first = samples(7, kRows * kCols, "bell", -7.3F, 6.1F);
  const std::vector<float> second = samples(8, kRows * kCols, "outliers", -90.0F, 70.0F);
  const auto reversed = [](const std::vector<float>& values) {
    std::vector<float> result;
    for (int64_t row = kRows - 1; row >= 0; --row)
      result.insert(result.end(), values.begin() + row * kCols, values.begin() + (row + 1) * kCols);
    return result;
  };
  const RangeStatistics a = observed({first, second}, kRows);
  const RangeStatistics b = observed({reversed(first), reversed(second)}, kRows);
  EXPECT_EQ(a.min, b.min);
  EXPECT_EQ(a.max, b.max);
  EXPECT_EQ(a.histogram->counts, b.histogram->counts);
  EXPECT_NEAR(a.deviation, b.deviation, 0x1p-53 * static_cast<double>(a.n) * a.deviation);
}

TEST(RangeObserver, ElementsBetweenRowsAreNotRead) {
  std::vector<float> padded;
  std::vector<float> dense;
  for (uint64_t row = 0; row < 9; ++row) {
    for (uint64_t col = 0; col < 13; ++col) {
      dense.push_back(testing::sample(row, col, "bell"));
      padded.push_back(dense.back());
    }
    padded.insert(padded.end(), {kInfinity, -kInfinity, std::nanf("")});
  }
  ThreadTeam team(2);
  RangeObserver observer(true);
  observer.observe({padded.data(), 9, 13, 16}, team);
  expect_equal(observer.statistics(), observed({dense}, 9));
}

TEST(RangeObserver, ValueThatIsNotFiniteIsNamedAndChangesNothing) {
  std::vector<float> values = samples(9, 6 * 40, "bell", -8.0F, 8.0F);
  ThreadTeam team(3);
  RangeObserver observer(true);
  observer.observe(as_matrix(values, 6), team);
  const RangeStatistics before = observer.statistics();
  values[1] = 100.0F;
  for (const float bad : {std::nanf(""), kInfinity, -kInfinity}) {
    std::vector<float> broken = values;
    broken[4 * 40 + 1] = bad;
    broken[2 * 40 + 33] = bad;
    const std::string message = refusal([&] { observer.observe(as_matrix(broken, 6), team); },
                                        formats::ErrorCode::kBadInput);
    EXPECT_THAT(message, HasSubstr("row 2, column 33"));
    expect_equal(observer.statistics(), before);
  }
}

TEST(RangeObserver, BatchWithoutElementsChangesNothing) {
  ThreadTeam team(1);
  RangeObserver observer(true);
  observer.observe({nullptr, 0, 8, 8}, team);
  EXPECT_EQ(observer.statistics().n, 0);
  const std::vector<float> values = {3.0F, 5.0F};
  observer.observe(as_matrix(values, 1), team);
  observer.observe({nullptr, 3, 0, 0}, team);
  EXPECT_EQ(observer.statistics().n, 2);
  EXPECT_EQ(observer.statistics().min, 3.0F);
}

TEST(RangeObserver, NoHistogramIsKeptUnlessAskedFor) {
  ThreadTeam team(1);
  RangeObserver observer(false);
  const std::vector<float> values = {-3e38F, 3e38F};
  observer.observe(as_matrix(values, 1), team);
  EXPECT_FALSE(observer.statistics().histogram.has_value());
  EXPECT_EQ(choose_range(observer.statistics(), ActMethod::kMinMax, false).max, 3e38F);
  refusal([&] { choose_range(observer.statistics(), ActMethod::kHistogram, false); },
          formats::ErrorCode::kInternal);
}

TEST(RangeObserver, HistogramWiderThanFloat32IsRefused) {
  ThreadTeam team(1);
  RangeObserver observer(true);
  const std::vector<float> values = {-3e38F, 3e38F};
  const std::string message =
      refusal([&] { observer.observe(as_matrix(values, 1), team); }, formats::ErrorCode::kBadInput);
  EXPECT_THAT(message, HasSubstr("act_method 1"));
  EXPECT_EQ(observer.statistics().n, 0);
}

TEST(RangeObserver, HistogramAccountsForEveryValueAsTheRangeGrows) {
  std::vector<std::vector<float>> batches = {{2.0F, 2.0F, 2.0F}};
  for (uint64_t i = 1; i <= 8; ++i) {
    const auto limit = static_cast<float>(i) * 1.3F;
    batches.push_back(samples(i, 1000, "bell", -limit, limit + 2.0F));
  }
  const RangeStatistics statistics = observed(batches);
  double sum = 0.0;
  for (const double count : statistics.histogram->counts) sum += count;
  EXPECT_NEAR(sum, 8003.0, 8003.0 * kHistogramBins * 0x1p-53);
  EXPECT_EQ(statistics.histogram->min, statistics.min);
  EXPECT_EQ(statistics.histogram->max, statistics.max);
}

TEST(ChooseRange, HistogramClipsRareOutliersAndLosesLess) {
  const std::vector<float> values = samples(40, 400000, "rare", -97.0F, 61.0F);
  const RangeStatistics statistics = observed({values}, 100, 2);
  const ActivationRange all = choose_range(statistics, ActMethod::kMinMax, false);
  const ActivationRange clipped = choose_range(statistics, ActMethod::kHistogram, false);
  EXPECT_EQ(all.chosen, ActMethod::kMinMax);
  EXPECT_EQ(all.min, -97.0F);
  EXPECT_EQ(all.max, 61.0F);
  EXPECT_EQ(clipped.chosen, ActMethod::kHistogram);
  EXPECT_LT(clipped.max - clipped.min, 0.75F * (all.max - all.min));
  EXPECT_LT(quantization_noise(values, clipped), quantization_noise(values, all));
}

TEST(ChooseRange, HistogramKeepsEvenlySpreadValues) {
  const RangeStatistics statistics = observed({samples(41, 400000, "uniform", -8.0F, 8.0F)});
  const ActivationRange range = choose_range(statistics, ActMethod::kHistogram, false);
  constexpr float kBin = 16.0F / kHistogramBins;  // the first step of the search is taken unseen
  EXPECT_EQ(range.min, -8.0F);
  EXPECT_GE(range.max, 8.0F - kBin);
}

TEST(ChooseRange, AutomaticTakesTheHistogramUpToFiftyDeviations) {
  RangeStatistics statistics = observed({samples(42, 200000, "rare", -50.0F, 40.0F)});
  const ActivationRange clipped = choose_range(statistics, ActMethod::kHistogram, false);
  ASSERT_LT(clipped.max, statistics.max);
  statistics.deviation = 1.0;
  EXPECT_EQ(statistics.max_over_std(), kMaxOverStdForHistogram);
  const ActivationRange at_limit = choose_range(statistics, ActMethod::kAutomatic, false);
  EXPECT_EQ(at_limit.chosen, ActMethod::kHistogram);
  EXPECT_EQ(at_limit.max, clipped.max);
  statistics.deviation = std::nextafter(1.0, 0.0);
  const ActivationRange beyond = choose_range(statistics, ActMethod::kAutomatic, false);
  EXPECT_EQ(beyond.chosen, ActMethod::kMinMax);
  EXPECT_EQ(beyond.max, 40.0F);
  statistics.histogram.reset();
  EXPECT_EQ(choose_range(statistics, ActMethod::kAutomatic, false).max, 40.0F);
}

TEST(ChooseRange, SymmetricRangeReachesAsFarOnBothSides) {
  const RangeStatistics statistics = observed({samples(43, 2000, "bell", -3.0F, 5.0F)});
  for (const ActMethod method : {ActMethod::kMinMax, ActMethod::kHistogram}) {
    const ActivationRange plain = choose_range(statistics, method, false);
    const ActivationRange symmetric = choose_range(statistics, method, true);
    EXPECT_EQ(symmetric.max, std::max(-plain.min, plain.max));
    EXPECT_EQ(symmetric.min, -symmetric.max);
  }
}

TEST(ChooseRange, EqualValuesAreTheirOwnRange) {
  for (const float value : {0.0F, -0.1F, 7.0F}) {
    const RangeStatistics statistics = observed({std::vector<float>(1000, value)});
    EXPECT_EQ(statistics.deviation, 0.0);
    EXPECT_EQ(statistics.max_over_std(), value == 0.0F ? 0.0 : kInfinity);
    for (const ActMethod method :
         {ActMethod::kMinMax, ActMethod::kHistogram, ActMethod::kAutomatic}) {
      const ActivationRange range = choose_range(statistics, method, false);
      EXPECT_EQ(range.min, value);
      EXPECT_EQ(range.max, value);
    }
  }
}

TEST(ChooseRange, NothingObservedIsRefused) {
  const std::string message =
      refusal([] { choose_range(RangeStatistics{}, ActMethod::kMinMax, false); },
              formats::ErrorCode::kBadInput);
  EXPECT_THAT(message, HasSubstr("no activations were observed"));
}

}  // namespace
}  // namespace llmq::quant
