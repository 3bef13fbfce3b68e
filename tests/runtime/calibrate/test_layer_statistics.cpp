#include "runtime/calibrate/layer_statistics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "formats/error.h"

namespace llmq::runtime {
namespace {

using formats::FusedGroup;

constexpr int64_t kRows = 9;
constexpr int64_t kChannels = 5;

std::vector<float> values_of(int seed) {
  std::vector<float> values;
  for (int i = 0; i < kRows * kChannels; ++i)
    values.push_back(std::sin(static_cast<float>(i * 7 + seed)) * 2.0F);
  return values;
}

quant::ConstMatrixF32 rows_of(const std::vector<float>& values) {
  return {values.data(), static_cast<int64_t>(values.size()) / kChannels, kChannels, kChannels};
}

/// A small dense model of two heads.
formats::ModelConfig small_config() {
  formats::ModelConfig config;
  config.n_heads = 2;
  config.n_kv_heads = 1;
  config.head_dim = 4;
  return config;
}

TEST(LayerStatistics, NothingIsGatheredThatIsNotWanted) {
  quant::ThreadTeam team(1);
  const formats::ModelConfig config = small_config();
  LayerStatisticsObserver gatherer("layer 3, ", config, {}, team);
  const auto values = values_of(1);
  const LayerObserver observer = gatherer.observer();
  if (observer.linear_input) observer.linear_input({FusedGroup::kQkv, -1, rows_of(values)});
  const LayerStatistics statistics = gatherer.statistics();
  EXPECT_TRUE(statistics.ranges.empty());
  EXPECT_TRUE(statistics.grams.empty());
  EXPECT_FALSE(statistics.attention.kv);
  EXPECT_FALSE(statistics.attention.fa);
}

TEST(LayerStatistics, SecondMomentsOfTheGroupsThatAreWantedAlone) {
  quant::ThreadTeam team(2);
  const formats::ModelConfig config = small_config();
  LayerWants wants;
  wants.gram = [](const ObservedGroup& group) { return group.expert == 1; };
  LayerStatisticsObserver gatherer("layer 3, ", config, wants, team);
  const auto first = values_of(1);
  const auto second = values_of(2);
  const LayerObserver observer = gatherer.observer();
  observer.linear_input({FusedGroup::kQkv, -1, rows_of(second)});
  observer.linear_input({FusedGroup::kGateUp, 0, rows_of(second)});
  observer.linear_input({FusedGroup::kGateUp, 1, rows_of(first)});
  observer.linear_input({FusedGroup::kGateUp, 1, rows_of(second)});
  const LayerStatistics statistics = gatherer.statistics();
  EXPECT_TRUE(statistics.ranges.empty());
  ASSERT_EQ(statistics.grams.size(), 1U);
  const quant::Gram& gram = statistics.grams.at({FusedGroup::kGateUp, 1});
  ASSERT_EQ(gram.k, kChannels);
  EXPECT_EQ(gram.n_rows, 2 * kRows);
  for (int64_t i = 0; i < kChannels; ++i) {
    for (int64_t j = 0; j < kChannels; ++j) {
      double expected = 0.0;
      double magnitude = 0.0;
      for (const auto* values : {&first, &second}) {
        for (int64_t row = 0; row < kRows; ++row) {
          const double product =
              static_cast<double>((*values)[static_cast<size_t>(row * kChannels + i)]) *
              (*values)[static_cast<size_t>(row * kChannels + j)];
          expected += product;
          magnitude += std::abs(product);
        }
      }
      // A float32 sum of kRows products: each passes at most kRows roundings.
      EXPECT_NEAR(gram.values[static_cast<size_t>(i * kChannels + j)], expected,
                  kRows * 0x1p-23 * magnitude);
    }
  }
}

TEST(LayerStatistics, RangesAreKeptPerExpert) {
  quant::ThreadTeam team(1);
  const formats::ModelConfig config = small_config();
  LayerStatisticsObserver gatherer("layer 3, ", config, {.ranges = true}, team);
  const auto first = values_of(1);
  std::vector<float> second = values_of(2);
  second[3] = 17.0F;
  const LayerObserver observer = gatherer.observer();
  observer.linear_input({FusedGroup::kGateUp, 0, rows_of(first)});
  observer.linear_input({FusedGroup::kGateUp, 4, rows_of(second)});
  const GroupStatistics ranges = gatherer.statistics().ranges;
  ASSERT_EQ(ranges.size(), 2U) << "an expert without tokens is not there";
  EXPECT_LT(ranges.at({FusedGroup::kGateUp, 0}).max, 2.0F);
  EXPECT_EQ(ranges.at({FusedGroup::kGateUp, 4}).max, 17.0F);
  EXPECT_EQ(ranges.at({FusedGroup::kGateUp, 4}).n, kRows * kChannels);
}

TEST(LayerStatistics, AnErrorNamesThePlace) {
  quant::ThreadTeam team(1);
  const formats::ModelConfig config = small_config();
  LayerStatisticsObserver gatherer("layer 3, ", config, {.ranges = true}, team);
  std::vector<float> values = values_of(1);
  values[7] = std::numeric_limits<float>::quiet_NaN();
  try {
    gatherer.observer().linear_input({FusedGroup::kDown, -1, rows_of(values)});
    FAIL() << "nothing was thrown";
  } catch (const formats::Error& error) {
    EXPECT_EQ(error.code(), formats::ErrorCode::kBadInput);
    EXPECT_THAT(error.what(), ::testing::HasSubstr("layer 3"));
  }
}

}  // namespace
}  // namespace llmq::runtime
