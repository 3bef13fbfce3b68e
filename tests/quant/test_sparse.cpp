#include "quant/sparse.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <vector>

#include "formats/error.h"
#include "tests/quant/random_matrix.h"

namespace llmq::quant {
namespace {

TEST(Sparse, AShareLeavesAsManyWeightsAboveTheThreshold) {
  for (const int64_t k : {1, 9, 10, 99, 100, 257, 1000}) {
    const OwnedMatrix row = random_matrix(1, k, static_cast<unsigned>(k));
    std::vector<double> sorted(row.values.size());
    std::transform(row.values.begin(), row.values.end(), sorted.begin(),
                   [](float w) { return std::abs(static_cast<double>(w)); });
    std::sort(sorted.begin(), sorted.end(), std::greater<>());
    for (const double fraction : {0.01, 0.011, 0.05, 0.1}) {
      const auto n_above = static_cast<size_t>(
          std::min(std::ceil(fraction * static_cast<double>(k)), static_cast<double>(k - 1)));
      const double threshold = sparse_threshold(row.values, {.fraction = fraction});
      EXPECT_EQ(threshold, sorted[n_above]) << k << ' ' << fraction;
      EXPECT_EQ(
          std::count_if(sorted.begin(), sorted.end(), [&](double w) { return w > threshold; }),
          static_cast<std::ptrdiff_t>(n_above));
    }
  }
}

TEST(Sparse, SigmaIsTheDeviationAroundTheMean) {
  OwnedMatrix row = random_matrix(1, 501, 11);
  for (float& w : row.values) w += 3.0F;
  double mean = 0.0;
  for (const float w : row.values) mean += w / 501.0;
  double variance = 0.0;
  for (const float w : row.values) variance += (w - mean) * (w - mean) / 501.0;
  for (const double factor : {3.0, 3.5, 4.0}) {
    const double threshold =
        sparse_threshold(row.values, {.use_sigma = true, .sigma_factor = factor});
    EXPECT_NEAR(threshold, factor * std::sqrt(variance), 1000.0 * 0x1p-53 * threshold);
  }
}

TEST(Sparse, ARowOfZerosHasTheThresholdZero) {
  const std::vector<float> zeros(200, 0.0F);
  EXPECT_EQ(sparse_threshold(zeros, {}), 0.0);
  EXPECT_EQ(sparse_threshold(zeros, {.use_sigma = true}), 0.0);
  EXPECT_EQ(sparse_threshold({}, {}), 0.0);
  EXPECT_EQ(sparse_threshold({}, {.use_sigma = true}), 0.0);
}

void expect_refused(const SparseSpec& spec) {
  const std::vector<float> row(10, 1.0F);
  try {
    sparse_threshold(row, spec);
    ADD_FAILURE() << spec.fraction << ' ' << spec.sigma_factor;
  } catch (const formats::Error& error) {
    EXPECT_EQ(error.code(), formats::ErrorCode::kUsage);
  }
}

TEST(Sparse, SpecsOutOfRangeAreRefused) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  for (const double fraction : {0.0, 0.0099, 0.1001, 1.0, -0.05, nan})
    expect_refused({.fraction = fraction});
  for (const double factor : {0.0, 2.99, 4.01, -3.0, nan})
    expect_refused({.use_sigma = true, .sigma_factor = factor});
}

}  // namespace
}  // namespace llmq::quant
