#include "quant/distortion.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace llmq::quant {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

TEST(Distortion, RatiosFollowTheSums) {
  Distortion distortion;
  distortion.add({100.0, 0.01, 0.05F, 3, 10}, 40);
  EXPECT_DOUBLE_EQ(distortion.sqnr_db(), 40.0);
  EXPECT_DOUBLE_EQ(distortion.clipped_share(), 3.0 / 40.0);
  EXPECT_DOUBLE_EQ(distortion.zero_share(), 0.25);
  EXPECT_EQ(distortion.max_abs_error, 0.05F);
}

TEST(Distortion, PartsAddUp) {
  Distortion first;
  first.add({4.0, 1.0, 0.5F, 1, 2}, 10);
  Distortion second;
  second.add({6.0, 1.5, 0.25F, 0, 5}, 30);
  first.merge(second);
  EXPECT_EQ(first.n, 40);
  EXPECT_EQ(first.sum_squares, 10.0);
  EXPECT_EQ(first.sum_squared_errors, 2.5);
  EXPECT_EQ(first.max_abs_error, 0.5F);
  EXPECT_EQ(first.n_clipped, 1);
  EXPECT_EQ(first.n_zeros, 7);
  EXPECT_NEAR(first.sqnr_db(), 6.0206, 1e-4);
}

TEST(Distortion, LimitsAreInfiniteOrUndefinedButNeverACrash) {
  EXPECT_EQ(Distortion{}.sqnr_db(), kInfinity);
  EXPECT_EQ(Distortion{}.clipped_share(), 0.0);
  EXPECT_EQ(Distortion{}.zero_share(), 0.0);
  EXPECT_EQ((Distortion{.n = 1, .sum_squares = 2.0}).sqnr_db(), kInfinity);
  EXPECT_EQ((Distortion{.n = 1, .sum_squared_errors = 2.0}).sqnr_db(), -kInfinity);
  EXPECT_TRUE(std::isnan(
      (Distortion{.n = 1, .sum_squares = kInfinity, .sum_squared_errors = 1.0}).sqnr_db()));
}

}  // namespace
}  // namespace llmq::quant
