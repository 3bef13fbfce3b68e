#include <gtest/gtest.h>

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "convert/report/console.h"

namespace llmq::convert {
namespace {

TEST(BytesText, HasThreeOrFourDigitsInPowersOfAThousand) {
  const std::vector<std::pair<uint64_t, std::string>> cases = {
      {0, "0 B"},
      {1, "1 B"},
      {870, "870 B"},
      {999, "999 B"},
      {1000, "1.00 kB"},
      {1500, "1.50 kB"},
      {99'994, "99.99 kB"},
      {123'456, "123.5 kB"},
      {1'500'000'000, "1.50 GB"},
      {12'300'000, "12.30 MB"},
      {2'000'000'000'000, "2.00 TB"},
      {UINT64_MAX, "18446744.1 TB"},
  };
  for (const auto& [size_bytes, text] : cases) EXPECT_EQ(bytes_text(size_bytes), text);
}

TEST(BytesText, RoundingCarriesIntoTheNextUnit) {
  EXPECT_EQ(bytes_text(999'949), "999.9 kB");
  EXPECT_EQ(bytes_text(999'950), "1.00 MB");
  EXPECT_EQ(bytes_text(999'999), "1.00 MB");
  EXPECT_EQ(bytes_text(999'999'999), "1.00 GB");
  EXPECT_EQ(bytes_text(99'999), "100.0 kB");
}

TEST(SecondsText, NamesTheTwoLargestUnits) {
  const std::vector<std::pair<double, std::string>> cases = {
      {0, "0.0s"},         {3.24, "3.2s"},  {59.94, "59.9s"}, {60, "1m 0s"},         {80, "1m 20s"},
      {3599.4, "59m 59s"}, {3600, "1h 0m"}, {5400, "1h 30m"}, {36000 + 59, "10h 0m"}};
  for (const auto& [seconds, text] : cases) EXPECT_EQ(seconds_text(seconds), text);
}

TEST(SecondsText, RoundingCarriesIntoTheNextUnit) {
  EXPECT_EQ(seconds_text(59.96), "1m 0s");
  EXPECT_EQ(seconds_text(3599.6), "1h 0m");
}

}  // namespace
}  // namespace llmq::convert
