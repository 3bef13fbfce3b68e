#include "quant/channel_statistics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "formats/error.h"
#include "tests/quant/random_matrix.h"

namespace llmq::quant {
namespace {

// Row i is i in every channel.
OwnedMatrix counted(int64_t n_rows, int64_t n_cols) {
  OwnedMatrix result{n_rows, n_cols, std::vector<float>(static_cast<size_t>(n_rows * n_cols))};
  for (int64_t row = 0; row < n_rows; ++row) {
    for (int64_t column = 0; column < n_cols; ++column)
      result.at(row, column) = static_cast<float>(row);
  }
  return result;
}

TEST(ChannelStatistics, AreThoseOfFloat64) {
  const OwnedMatrix x = random_inputs(137, 23, 1);
  ChannelObserver observer;
  observer.observe(x.matrix());
  const ChannelStatistics seen = observer.statistics();
  EXPECT_EQ(seen.k, 23);
  EXPECT_EQ(seen.n_rows, 137);
  for (int64_t channel = 0; channel < 23; ++channel) {
    const auto at = static_cast<size_t>(channel);
    float min = x.at(0, channel);
    float max = min;
    double sum = 0.0;
    for (int64_t row = 0; row < 137; ++row) {
      min = std::min(min, x.at(row, channel));
      max = std::max(max, x.at(row, channel));
      sum += std::abs(static_cast<double>(x.at(row, channel)));
    }
    EXPECT_EQ(seen.min[at], min);
    EXPECT_EQ(seen.max[at], max);
    EXPECT_DOUBLE_EQ(seen.mean_abs[at], sum / 137.0);
    EXPECT_EQ(seen.absmax(channel), std::max(-min, max));
  }
}

TEST(ChannelStatistics, BatchesAndStridesChangeNothing) {
  const OwnedMatrix x = random_inputs(150, 12, 2);
  ChannelObserver whole(16);
  whole.observe({x.values.data(), 150, 10, 12});
  ChannelObserver pieces(16);
  for (int64_t row = 0; row < 150;) {
    const int64_t n = std::min<int64_t>(150 - row, row % 7);
    pieces.observe({x.values.data() + row * 12, std::max<int64_t>(n, 1), 10, 12});
    row += std::max<int64_t>(n, 1);
    pieces.observe({nullptr, 0, 10, 10});
  }
  const ChannelStatistics a = whole.statistics();
  const ChannelStatistics b = pieces.statistics();
  EXPECT_EQ(a.n_rows, b.n_rows);
  EXPECT_EQ(a.min, b.min);
  EXPECT_EQ(a.max, b.max);
  EXPECT_EQ(a.mean_abs, b.mean_abs);
  EXPECT_EQ(a.n_kept, b.n_kept);
  EXPECT_EQ(a.kept, b.kept);
}

TEST(ChannelStatistics, KeptRowsAreEvenlySpread) {
  for (const int64_t n_keep : {1, 5, 8}) {
    for (int64_t n_rows = 1; n_rows <= 120; ++n_rows) {
      const OwnedMatrix x = counted(n_rows, 3);
      ChannelObserver observer(n_keep);
      observer.observe(x.matrix());
      const ChannelStatistics seen = observer.statistics();
      EXPECT_GE(seen.n_kept, std::min(n_keep, n_rows)) << n_rows;
      EXPECT_LE(seen.n_kept, 2 * n_keep);
      ASSERT_EQ(seen.kept.size(), static_cast<size_t>(3 * seen.n_kept));
      const float step = seen.n_kept > 1 ? seen.kept[3] : static_cast<float>(n_rows);
      for (int64_t i = 0; i < seen.n_kept; ++i) {
        for (int64_t channel = 0; channel < 3; ++channel)
          EXPECT_EQ(seen.kept[static_cast<size_t>(3 * i + channel)], static_cast<float>(i) * step);
      }
      // No kept row is missing at the end.
      EXPECT_GE(static_cast<float>(seen.n_kept) * step, static_cast<float>(n_rows));
    }
  }
}

TEST(ChannelStatistics, WhatIsNotFiniteIsRefusedByRowAndChannel) {
  for (const float bad :
       {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(),
        -std::numeric_limits<float>::infinity()}) {
    OwnedMatrix x = random_matrix(6, 5, 3);
    ChannelObserver observer;
    observer.observe(x.matrix());
    x.at(2, 3) = bad;
    try {
      observer.observe(x.matrix());
      ADD_FAILURE() << "no error";
    } catch (const formats::Error& error) {
      EXPECT_EQ(error.code(), formats::ErrorCode::kBadInput);
      EXPECT_THAT(error.what(), testing::HasSubstr("row 8, channel 3"));
    }
  }
}

TEST(ChannelStatistics, NothingSeenIsNothingKnown) {
  const ChannelStatistics seen = ChannelObserver().statistics();
  EXPECT_EQ(seen.k, 0);
  EXPECT_EQ(seen.n_rows, 0);
  EXPECT_EQ(seen.n_kept, 0);
}

}  // namespace
}  // namespace llmq::quant
