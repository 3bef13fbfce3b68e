#include "convert/selection/choice.h"

#include <algorithm>
#include <numeric>
#include <tuple>

namespace llmq::convert {

std::string_view selection_group_name(formats::FusedGroup group) {
  return group == formats::FusedGroup::kExpertGateUp ? "experts" : formats::fused_group_name(group);
}

std::vector<size_t> order_of_keeping(std::span<const SelectionGroup> groups) {
  std::vector<size_t> order(groups.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    const SelectionGroup& x = groups[a];
    const SelectionGroup& y = groups[b];
    const bool x_free = x.extra_bytes() <= 0;
    const bool y_free = y.extra_bytes() <= 0;
    if (x_free != y_free) return x_free;
    if (!x_free) {
      const double x_gain = x.score / static_cast<double>(x.extra_bytes());
      const double y_gain = y.score / static_cast<double>(y.extra_bytes());
      if (x_gain != y_gain) return x_gain > y_gain;
    }
    return std::tie(x.layer, x.group) < std::tie(y.layer, y.group);
  });
  return order;
}

int64_t least_extra_bytes(std::span<const SelectionGroup> groups) {
  int64_t total = 0;
  for (const SelectionGroup& group : groups) total += std::min<int64_t>(0, group.extra_bytes());
  return total;
}

std::vector<bool> choose_within(std::span<const SelectionGroup> groups, int64_t budget_bytes) {
  const std::vector<size_t> order = order_of_keeping(groups);
  std::vector<bool> greedy(groups.size(), false);
  std::vector<bool> single(groups.size(), false);
  int64_t left = budget_bytes;
  size_t first_costly = 0;
  for (; first_costly < order.size(); ++first_costly) {
    const SelectionGroup& group = groups[order[first_costly]];
    if (group.extra_bytes() > 0) break;
    greedy[order[first_costly]] = true;
    single[order[first_costly]] = true;
    left -= group.extra_bytes();
  }
  const int64_t left_of_single = left;
  double saved = 0.0;
  size_t best = groups.size();
  for (size_t i = first_costly; i < order.size(); ++i) {
    const SelectionGroup& group = groups[order[i]];
    if (group.score <= 0.0 || group.extra_bytes() > left_of_single) continue;
    if (best == groups.size() || group.score > groups[best].score) best = order[i];
    if (group.extra_bytes() > left) continue;
    greedy[order[i]] = true;
    left -= group.extra_bytes();
    saved += group.score;
  }
  if (best == groups.size() || groups[best].score <= saved) return greedy;
  single[best] = true;
  return single;
}

std::vector<size_t> PrefixSearch::next(size_t n_tries) const {
  const size_t n_between = n_enough_ - n_too_few_ - 1;
  const size_t n = std::min(n_tries, n_between);
  std::vector<size_t> numbers;
  for (size_t i = 1; i <= n; ++i) numbers.push_back(n_too_few_ + i * (n_between + 1) / (n + 1));
  return numbers;
}

void PrefixSearch::narrow(std::span<const size_t> tried, const std::vector<bool>& was_enough) {
  for (size_t i = 0; i < tried.size(); ++i) {
    if (was_enough.at(i)) {
      n_enough_ = tried[i];
      return;
    }
    n_too_few_ = tried[i];
  }
}

}  // namespace llmq::convert
