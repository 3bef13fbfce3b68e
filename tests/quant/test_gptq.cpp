#include "quant/gptq.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "tests/quant/linear_problem.h"

namespace llmq::quant {
namespace {

// Uᵀ·U·(H + damping) is the identity up to the rounding of U to float32: |Uᵀ·U·H' − 1| is at most
// a few roundings of |Uᵀ|·|U|·|H'|.
void expect_factor(const GptqFactor& factor, const Gram& gram) {
  const int64_t k = gram.k;
  ASSERT_TRUE(factor.is_usable) << factor.reason;
  ASSERT_EQ(factor.upper.size(), static_cast<size_t>(k * k));
  const std::vector<double> damped = damped_in_order(gram, factor);
  const auto u = [&](int64_t i, int64_t j) {
    return static_cast<double>(factor.upper[static_cast<size_t>(i * k + j)]);
  };
  for (int64_t i = 0; i < k; ++i) {
    EXPECT_GT(u(i, i), 0.0);
    for (int64_t j = 0; j < i; ++j) ASSERT_EQ(u(i, j), 0.0);
  }
  std::vector<double> product(static_cast<size_t>(k * k), 0.0);
  std::vector<double> magnitude(product);
  for (int64_t p = 0; p < k; ++p) {
    for (int64_t i = p; i < k; ++i) {
      for (int64_t j = p; j < k; ++j) {
        product[static_cast<size_t>(i * k + j)] += u(p, i) * u(p, j);
        magnitude[static_cast<size_t>(i * k + j)] += std::abs(u(p, i) * u(p, j));
      }
    }
  }
  for (int64_t i = 0; i < k; ++i) {
    for (int64_t j = 0; j < k; ++j) {
      double sum = 0.0;
      double bound = 0.0;
      for (int64_t p = 0; p < k; ++p) {
        const double h = damped[static_cast<size_t>(p * k + j)];
        sum += product[static_cast<size_t>(i * k + p)] * h;
        bound += magnitude[static_cast<size_t>(i * k + p)] * std::abs(h);
      }
      ASSERT_NEAR(sum, i == j ? 1.0 : 0.0, 2.5 * 0x1p-24 * bound) << i << ' ' << j;
    }
  }
}

TEST(Gptq, TheFactorIsThatOfTheInverse) {
  ThreadTeam team(2);
  for (const int64_t k : {1, 2, 40, 65, 100}) {
    for (const bool by_activation : {false, true}) {
      const Gram gram = gram_of(random_inputs(3 * k, k, static_cast<unsigned>(k)));
      const GptqFactor factor = gptq_factor(gram, {.by_activation = by_activation}, team);
      expect_factor(factor, gram);
      EXPECT_EQ(factor.damping, kFirstDamping);
      EXPECT_EQ(factor.n_dead, 0);
      EXPECT_EQ(factor.order.empty(), !by_activation);
    }
  }
}

TEST(Gptq, ThreadsChangeNothing) {
  const Gram gram = gram_of(random_inputs(200, 150, 3));
  ThreadTeam one(1);
  const GptqFactor want = gptq_factor(gram, {.by_activation = true, .group_size = 32}, one);
  for (const int n_threads : {2, 3}) {
    ThreadTeam team(n_threads);
    const GptqFactor got = gptq_factor(gram, {.by_activation = true, .group_size = 32}, team);
    EXPECT_EQ(got.upper, want.upper);
    EXPECT_EQ(got.order, want.order);
  }
}

TEST(Gptq, TheLargestChannelsComeFirst) {
  const Gram gram = gram_of(random_inputs(60, 37, 4));
  ThreadTeam team(1);
  const GptqFactor factor = gptq_factor(gram, {.by_activation = true}, team);
  ASSERT_EQ(factor.order.size(), 37U);
  for (size_t i = 1; i < 37; ++i)
    EXPECT_GE(diagonal(gram, factor.order[i - 1]), diagonal(gram, factor.order[i]));
  std::vector<int64_t> sorted = factor.order;
  std::sort(sorted.begin(), sorted.end());
  for (int64_t i = 0; i < 37; ++i) EXPECT_EQ(sorted[static_cast<size_t>(i)], i);
}

TEST(Gptq, GroupsStayTogetherInTheOrderOfTheirMeans) {
  const Gram gram = gram_of(random_inputs(60, 37, 5));  // the last group has 5 channels
  ThreadTeam team(1);
  const GptqFactor factor = gptq_factor(gram, {.by_activation = true, .group_size = 8}, team);
  expect_factor(factor, gram);
  std::vector<int64_t> groups;
  std::vector<double> means;
  for (size_t begin = 0; begin < 37;) {
    const int64_t group = factor.order[begin] / 8;
    const auto size = static_cast<size_t>(std::min<int64_t>(8, 37 - group * 8));
    ASSERT_LE(begin + size, 37U);
    double sum = 0.0;
    for (size_t i = begin; i < begin + size; ++i) {
      EXPECT_EQ(factor.order[i] / 8, group);
      sum += diagonal(gram, factor.order[i]);
      if (i > begin) {
        EXPECT_GE(diagonal(gram, factor.order[i - 1]), diagonal(gram, factor.order[i]));
      }
    }
    groups.push_back(group);
    means.push_back(sum / static_cast<double>(size));
    begin += size;
  }
  EXPECT_TRUE(std::is_sorted(means.rbegin(), means.rend()));
  std::sort(groups.begin(), groups.end());
  EXPECT_EQ(groups, (std::vector<int64_t>{0, 1, 2, 3, 4}));
}

TEST(Gptq, DeadChannelsStandOnTheirOwn) {
  OwnedMatrix x = random_inputs(60, 20, 6);
  for (int64_t row = 0; row < 60; ++row) x.at(row, 4) = x.at(row, 11) = 0.0F;
  const Gram gram = gram_of(x);
  ThreadTeam team(1);
  const GptqFactor factor = gptq_factor(gram, {}, team);
  EXPECT_EQ(factor.n_dead, 2);
  expect_factor(factor, gram);
  for (const int64_t dead : {4, 11}) {
    for (int64_t i = 0; i < 20; ++i) {
      if (i == dead) continue;
      EXPECT_EQ(factor.upper[static_cast<size_t>(dead * 20 + i)], 0.0F);
      EXPECT_EQ(factor.upper[static_cast<size_t>(i * 20 + dead)], 0.0F);
    }
  }
}

// Fewer rows than channels: H has no inverse, and damping gives it one.
TEST(Gptq, DampingMakesASingularMatrixUsable) {
  ThreadTeam team(1);
  for (const int64_t n_rows : {1, 3, 10}) {
    const Gram gram = gram_of(random_inputs(n_rows, 30, 7));
    const GptqFactor factor = gptq_factor(gram, {}, team);
    EXPECT_EQ(factor.damping, kFirstDamping);
    expect_factor(factor, gram);
  }
}

// Matrices that no inputs have, but rounding could: negative eigenvalues of growing size.
TEST(Gptq, DampingGrowsByTenUntilItIsEnough) {
  ThreadTeam team(1);
  const auto pair = [](double off) { return Gram{2, 1, {1.0, off, off, 1.0}}; };
  EXPECT_EQ(gptq_factor(pair(1.005), {}, team).damping, kFirstDamping);
  EXPECT_DOUBLE_EQ(gptq_factor(pair(1.05), {}, team).damping, 10.0 * kFirstDamping);
  const GptqFactor last = gptq_factor(pair(1.5), {}, team);
  EXPECT_DOUBLE_EQ(last.damping, kLastDamping);
  expect_factor(last, pair(1.5));
  const GptqFactor none = gptq_factor(pair(2.5), {}, team);
  EXPECT_FALSE(none.is_usable);
  EXPECT_FALSE(none.reason.empty());
  EXPECT_TRUE(none.upper.empty());
}

TEST(Gptq, InputsThatSayNothingAreNotUsable) {
  ThreadTeam team(1);
  OwnedMatrix zeros{9, 6, std::vector<float>(54, 0.0F)};
  const GptqFactor zero = gptq_factor(gram_of(zeros), {.by_activation = true}, team);
  EXPECT_FALSE(zero.is_usable);
  EXPECT_EQ(zero.reason, "all inputs were zero");
  const GptqFactor unseen = gptq_factor(Gram{6, 0, std::vector<double>(36, 0.0)}, {}, team);
  EXPECT_FALSE(unseen.is_usable);
  EXPECT_EQ(unseen.reason, "no inputs were seen");
  EXPECT_FALSE(gptq_factor(Gram{}, {}, team).is_usable);
  for (const double bad :
       {std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity()})
    EXPECT_FALSE(gptq_factor(Gram{2, 1, {bad, 0.0, 0.0, 1.0}}, {}, team).is_usable);
}

}  // namespace
}  // namespace llmq::quant
