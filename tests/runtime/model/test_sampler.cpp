#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>
#include <random>
#include <set>
#include <vector>

#include "formats/error.h"
#include "runtime/model/sampler.h"

namespace llmq::runtime {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

std::vector<float> random_logits(size_t n) {
  std::mt19937 random(3);
  std::normal_distribution<float> normal(0.0F, 3.0F);
  std::vector<float> logits(n);
  for (float& logit : logits) logit = normal(random);
  return logits;
}

std::vector<int32_t> draw(const SamplingOptions& options, const std::vector<float>& logits,
                          size_t n) {
  Sampler sampler(options);
  std::vector<int32_t> ids(n);
  for (int32_t& id : ids) id = sampler.next(logits);
  return ids;
}

/// Probabilities after temperature, top_k and top_p, by sorting everything.
std::map<int32_t, double> filtered(const SamplingOptions& options,
                                   const std::vector<float>& logits) {
  std::vector<int32_t> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
    return logits[static_cast<size_t>(a)] > logits[static_cast<size_t>(b)];
  });
  if (options.top_k > 0) order.resize(static_cast<size_t>(options.top_k));
  const auto weight = [&](int32_t id) {
    return std::exp(logits[static_cast<size_t>(id)] / options.temperature);
  };
  double total = 0.0;
  for (const int32_t id : order) total += weight(id);
  std::map<int32_t, double> kept;
  double sum = 0.0;
  for (const int32_t id : order) {
    kept[id] = weight(id);
    sum += weight(id);
    if (sum >= options.top_p * total) break;
  }
  for (auto& [id, probability] : kept) probability /= sum;
  return kept;
}

TEST(Sampler, temperature_zero_takes_the_largest_and_the_first_of_equals) {
  EXPECT_EQ(Sampler({}).next(std::vector<float>{1, 5, 5, 2}), 1);
  EXPECT_EQ(argmax(std::vector<float>{-kInfinity, -3, -kInfinity}), 1);
}

TEST(Sampler, draws_with_the_probabilities_of_the_filtered_softmax) {
  const std::vector<float> logits = random_logits(1000);
  const size_t n = 20000;
  for (const SamplingOptions& options :
       {SamplingOptions{.temperature = 1.0, .seed = 1},
        SamplingOptions{.temperature = 0.7, .top_k = 5, .seed = 2},
        SamplingOptions{.temperature = 1.0, .top_p = 0.5, .seed = 3},
        SamplingOptions{.temperature = 2.5, .top_p = 0.95, .seed = 4},
        SamplingOptions{.temperature = 1.3, .top_k = 40, .top_p = 0.8, .seed = 5}}) {
    const std::map<int32_t, double> want = filtered(options, logits);
    std::map<int32_t, double> counts;
    for (const int32_t id : draw(options, logits, n)) counts[id] += 1.0;
    for (const auto& [id, count] : counts) EXPECT_TRUE(want.contains(id)) << id;
    for (const auto& [id, probability] : want) {
      // Six standard deviations of a binomial count, for up to a thousand tokens at once.
      const double expected = probability * static_cast<double>(n);
      EXPECT_NEAR(counts[id], expected, 6 * std::sqrt(expected) + 6) << "token " << id;
    }
  }
}

TEST(Sampler, a_flat_distribution_needs_more_candidates_than_are_sorted_at_first) {
  const std::vector<float> logits(5000, 0.5F);
  const SamplingOptions options{.temperature = 1.0, .top_p = 0.6, .seed = 9};
  const std::vector<int32_t> ids = draw(options, logits, 2000);
  const auto [smallest, largest] = std::minmax_element(ids.begin(), ids.end());
  EXPECT_LT(*smallest, 30);
  EXPECT_GT(*largest, 2970);
  EXPECT_LT(*largest, 3000);  // equals rank by id, so the first 3000 hold 0.6
}

TEST(Sampler, a_seed_gives_the_same_draws_and_another_seed_others) {
  const std::vector<float> logits = random_logits(200);
  const SamplingOptions options{.temperature = 1.5, .seed = 11};
  SamplingOptions other = options;
  other.seed = 12;
  EXPECT_EQ(draw(options, logits, 50), draw(options, logits, 50));
  EXPECT_NE(draw(options, logits, 50), draw(other, logits, 50));
}

// SplitMix64's published first outputs for state 1234567; a uniform softmax over 2^16 tokens shows
// the upper 16 bits of each.
TEST(Sampler, numbers_are_those_of_split_mix_64) {
  const std::vector<float> logits(65536, 0.0F);
  const std::vector<int32_t> ids = draw({.temperature = 1.0, .seed = 1234567}, logits, 3);
  EXPECT_EQ(ids[0], static_cast<int32_t>(6457827717110365317ULL >> 48));
  EXPECT_EQ(ids[1], static_cast<int32_t>(3203168211198807973ULL >> 48));
  EXPECT_EQ(ids[2], static_cast<int32_t>(9817491932198370423ULL >> 48));
}

TEST(Sampler, masked_tokens_are_never_drawn) {
  std::vector<float> logits(100, -kInfinity);
  logits[7] = 1.0F;
  logits[60] = 1.0F;
  std::set<int32_t> seen;
  for (const int32_t id : draw({.temperature = 1.0, .seed = 1}, logits, 200)) seen.insert(id);
  EXPECT_EQ(seen, (std::set<int32_t>{7, 60}));
}

TEST(Sampler, logits_that_are_not_numbers_are_refused) {
  Sampler sampler({.temperature = 1.0});
  EXPECT_THROW(sampler.next(std::vector<float>{1.0F, std::nanf("")}), formats::Error);
  EXPECT_THROW(argmax(std::vector<float>{std::nanf(""), 1.0F}), formats::Error);
  EXPECT_THROW(argmax(std::vector<float>{-kInfinity, -kInfinity}), formats::Error);
}

TEST(Sampler, options_out_of_range_are_usage_errors) {
  for (const SamplingOptions& options :
       {SamplingOptions{.temperature = -1.0}, SamplingOptions{.temperature = std::nan("")},
        SamplingOptions{.top_k = -1}, SamplingOptions{.top_p = 0.0},
        SamplingOptions{.top_p = 1.1}}) {
    try {
      const Sampler sampler(options);
      FAIL() << "accepted";
    } catch (const formats::Error& error) {
      EXPECT_EQ(error.code(), formats::ErrorCode::kUsage);
    }
  }
}

}  // namespace
}  // namespace llmq::runtime
