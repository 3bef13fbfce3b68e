#include "convert/selection/choice.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <random>

namespace llmq::convert {
namespace {

using formats::FusedGroup;
using testing::ElementsAre;
using testing::IsEmpty;

SelectionGroup group(int64_t layer, FusedGroup id, double score, uint64_t bytes_float,
                     uint64_t bytes_quantized) {
  SelectionGroup made;
  made.layer = layer;
  made.group = id;
  made.score = score;
  made.bytes_float = bytes_float;
  made.bytes_quantized = bytes_quantized;
  return made;
}

/// Groups with a few sizes, as layers of a model have, and scores over four orders of magnitude.
std::vector<SelectionGroup> random_groups(std::mt19937& generator, size_t n) {
  constexpr uint64_t kExtra[] = {20, 30, 70, 110};
  std::uniform_real_distribution<double> exponent(-5.0, -1.0);
  std::vector<SelectionGroup> groups;
  for (size_t i = 0; i < n; ++i) {
    const size_t kind = generator() % 4;
    groups.push_back(group(static_cast<int64_t>(i), FusedGroup::kQkv,
                           std::pow(10.0, exponent(generator)), 100 + kExtra[kind], 100));
  }
  return groups;
}

int64_t extra_of(const std::vector<SelectionGroup>& groups, const std::vector<bool>& kept) {
  int64_t total = 0;
  for (size_t i = 0; i < groups.size(); ++i) total += kept[i] ? groups[i].extra_bytes() : 0;
  return total;
}

double saved_of(const std::vector<SelectionGroup>& groups, const std::vector<bool>& kept) {
  double total = 0.0;
  for (size_t i = 0; i < groups.size(); ++i) total += kept[i] ? groups[i].score : 0.0;
  return total;
}

/// What the best of all subsets saves.
double best_saving(const std::vector<SelectionGroup>& groups, int64_t budget) {
  double best = 0.0;
  for (uint32_t bits = 0; bits < (1U << groups.size()); ++bits) {
    std::vector<bool> kept;
    for (size_t i = 0; i < groups.size(); ++i) kept.push_back((bits >> i & 1U) != 0);
    if (extra_of(groups, kept) <= budget) best = std::max(best, saved_of(groups, kept));
  }
  return best;
}

TEST(SelectionChoice, KeepsToTheBudgetAndSavesAtLeastHalfOfTheBest) {
  std::mt19937 generator(7);
  double worst = 1.0;
  for (int trial = 0; trial < 60; ++trial) {
    const std::vector<SelectionGroup> groups = random_groups(generator, 10);
    for (const int64_t budget : {0, 19, 20, 75, 150, 260, 420, 2000}) {
      const std::vector<bool> kept = choose_within(groups, budget);
      EXPECT_LE(extra_of(groups, kept), budget);
      const double best = best_saving(groups, budget);
      if (best > 0) worst = std::min(worst, saved_of(groups, kept) / best);
    }
  }
  EXPECT_GE(worst, 0.5);
  EXPECT_LT(worst, 1.0) << "the cases are too easy to tell";
}

TEST(SelectionChoice, IsTheBestWhereAllGroupsCostTheSame) {
  std::mt19937 generator(8);
  for (int trial = 0; trial < 20; ++trial) {
    std::vector<SelectionGroup> groups = random_groups(generator, 9);
    for (SelectionGroup& one : groups) one.bytes_float = one.bytes_quantized + 50;
    for (const int64_t budget : {49, 50, 149, 150, 450}) {
      EXPECT_DOUBLE_EQ(saved_of(groups, choose_within(groups, budget)),
                       best_saving(groups, budget));
    }
  }
}

TEST(SelectionChoice, OneGroupThatSavesMostGoesBeforeManyThatSaveLittle) {
  // By damage per byte the small one is first, and leaves no room for the other.
  const std::vector<SelectionGroup> groups = {group(0, FusedGroup::kQkv, 2.0, 110, 100),
                                              group(1, FusedGroup::kQkv, 100.0, 1100, 100)};
  EXPECT_THAT(choose_within(groups, 1000), ElementsAre(false, true));
  EXPECT_THAT(choose_within(groups, 1010), ElementsAre(true, true));
}

TEST(SelectionChoice, FloatThatCostsNothingIsTakenAndGivesRoom) {
  const std::vector<SelectionGroup> groups = {group(0, FusedGroup::kQkv, 1.0, 150, 100),
                                              group(0, FusedGroup::kDown, 0.0, 90, 100),
                                              group(1, FusedGroup::kQkv, 1.0, 100, 100)};
  EXPECT_EQ(least_extra_bytes(groups), -10);
  EXPECT_THAT(choose_within(groups, -10), ElementsAre(false, true, true));
  EXPECT_THAT(choose_within(groups, 39), ElementsAre(false, true, true));
  EXPECT_THAT(choose_within(groups, 40), ElementsAre(true, true, true));
}

TEST(SelectionChoice, BytesAreNotSpentWhereNothingIsSaved) {
  const std::vector<SelectionGroup> groups = {group(0, FusedGroup::kQkv, 0.0, 150, 100),
                                              group(0, FusedGroup::kDown, 1e-9, 150, 100)};
  EXPECT_THAT(choose_within(groups, 1000), ElementsAre(false, true));
}

TEST(SelectionChoice, EqualGroupsAreTakenByLayerThenByGroup) {
  std::vector<SelectionGroup> groups;
  for (const int64_t layer : {1, 0}) {
    for (const FusedGroup id : {FusedGroup::kDown, FusedGroup::kQkv})
      groups.push_back(group(layer, id, 1.0, 150, 100));
  }
  EXPECT_THAT(order_of_keeping(groups), ElementsAre(3, 2, 1, 0));
  EXPECT_THAT(choose_within(groups, 50), ElementsAre(false, false, false, true));
}

/// Searches with damages that need not fall from number to number; [n] is with n groups float.
size_t fewest(const std::vector<double>& damage, double limit, size_t n_tries, size_t* n_passes) {
  PrefixSearch search(damage.size() - 1);
  for (*n_passes = 0; !search.is_done(); ++*n_passes) {
    const std::vector<size_t> tried = search.next(n_tries);
    std::vector<bool> was_enough;
    was_enough.reserve(tried.size());
    for (const size_t n : tried) was_enough.push_back(damage[n] <= limit);
    search.narrow(tried, was_enough);
  }
  return search.n_enough();
}

TEST(SelectionPrefixSearch, FindsTheFewestWhereDamageFalls) {
  for (const size_t n_groups : {1U, 2U, 5U, 16U, 100U, 320U}) {
    std::vector<double> damage;
    for (size_t n = 0; n <= n_groups; ++n) damage.push_back(static_cast<double>(n_groups - n));
    for (const size_t n_tries : {1U, 4U}) {
      for (size_t wanted = 1; wanted <= n_groups; ++wanted) {
        size_t n_passes = 0;
        EXPECT_EQ(fewest(damage, damage[wanted], n_tries, &n_passes), wanted);
        EXPECT_LE(n_passes, n_tries == 4 ? 4U : 9U) << "a pass leaves a fifth, or half";
      }
    }
  }
}

TEST(SelectionPrefixSearch, HarderConditionNeverEndsWithFewer) {
  std::mt19937 generator(9);
  std::uniform_real_distribution<double> any(0.0, 1.0);
  for (int trial = 0; trial < 200; ++trial) {
    std::vector<double> damage(30);
    for (double& value : damage) value = any(generator);
    size_t before = 0;
    for (double limit = 0.99; limit > 0; limit -= 0.07) {
      size_t n_passes = 0;
      const size_t n = fewest(damage, limit, 4, &n_passes);
      EXPECT_GE(n, before);
      EXPECT_TRUE(n == damage.size() - 1 || damage[n] <= limit);
      before = n;
    }
  }
}

TEST(SelectionPrefixSearch, TriesAreBetweenWhatIsKnown) {
  PrefixSearch search(5);
  EXPECT_THAT(search.next(4), ElementsAre(1, 2, 3, 4));
  EXPECT_THAT(search.next(1), ElementsAre(2));
  search.narrow(search.next(1), {false});
  EXPECT_THAT(search.next(9), ElementsAre(3, 4));
  EXPECT_TRUE(PrefixSearch(1).is_done());
  EXPECT_THAT(PrefixSearch(1).next(4), IsEmpty());
}

}  // namespace
}  // namespace llmq::convert
