#include "quant/gptq.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "quant/cholesky.h"

namespace llmq::quant {
namespace {

std::vector<double> diagonal_of(const Gram& gram) {
  std::vector<double> diagonal(static_cast<size_t>(gram.k));
  for (int64_t i = 0; i < gram.k; ++i)
    diagonal[static_cast<size_t>(i)] = gram.values[static_cast<size_t>(i * gram.k + i)];
  return diagonal;
}

// Channels in the order of quantization: groups by mean diagonal, channels inside by diagonal.
std::vector<int64_t> channel_order(const std::vector<double>& diagonal, int64_t group_size) {
  const auto k = static_cast<int64_t>(diagonal.size());
  const int64_t size = group_size > 0 ? group_size : k;
  const auto larger = [&](int64_t a, int64_t b) {
    return diagonal[static_cast<size_t>(a)] > diagonal[static_cast<size_t>(b)];
  };
  std::vector<std::vector<int64_t>> groups;
  std::vector<double> weight;
  for (int64_t first = 0; first < k; first += size) {
    std::vector<int64_t> group(static_cast<size_t>(std::min(size, k - first)));
    std::iota(group.begin(), group.end(), first);
    double sum = 0.0;
    for (const int64_t channel : group) sum += diagonal[static_cast<size_t>(channel)];
    std::stable_sort(group.begin(), group.end(), larger);
    weight.push_back(sum / static_cast<double>(group.size()));
    groups.push_back(std::move(group));
  }
  std::vector<size_t> by_weight(groups.size());
  std::iota(by_weight.begin(), by_weight.end(), size_t{0});
  std::stable_sort(by_weight.begin(), by_weight.end(),
                   [&](size_t a, size_t b) { return weight[a] > weight[b]; });
  std::vector<int64_t> order;
  order.reserve(diagonal.size());
  for (const size_t group : by_weight)
    order.insert(order.end(), groups[group].begin(), groups[group].end());
  return order;
}

// H in the order of quantization with both axes reversed, so that its Cholesky factor, reversed
// back, is an upper one.
std::vector<double> reversed(const Gram& gram, const std::vector<int64_t>& order,
                             const std::vector<double>& added, ThreadTeam& team) {
  const int64_t k = gram.k;
  std::vector<double> result(static_cast<size_t>(k * k));
  const auto channel = [&](int64_t i) {
    return order.empty() ? k - 1 - i : order[static_cast<size_t>(k - 1 - i)];
  };
  team.parallel_for(k, [&](int64_t i, int) {
    const double* from = gram.values.data() + channel(i) * k;
    double* to = result.data() + i * k;
    for (int64_t j = 0; j <= i; ++j) to[j] = from[channel(j)];
    to[i] += added[static_cast<size_t>(channel(i))];
  });
  return result;
}

}  // namespace

GptqFactor gptq_factor(const Gram& gram, const GptqOrder& order, ThreadTeam& team) {
  GptqFactor factor;
  factor.k = gram.k;
  const std::vector<double> diagonal = diagonal_of(gram);
  const double mean = std::accumulate(diagonal.begin(), diagonal.end(), 0.0) /
                      static_cast<double>(std::max<int64_t>(1, gram.k));
  if (!(mean > 0.0) || !std::isfinite(mean)) {
    factor.reason = gram.n_rows == 0 ? "no inputs were seen" : "all inputs were zero";
    return factor;
  }
  if (order.by_activation) factor.order = channel_order(diagonal, order.group_size);
  std::vector<double> added(diagonal.size(), 0.0);
  for (size_t i = 0; i < diagonal.size(); ++i) {
    if (diagonal[i] != 0.0) continue;
    added[i] = mean;
    ++factor.n_dead;
  }
  for (double damping = kFirstDamping; damping <= kLastDamping * 1.5; damping *= 10.0) {
    std::vector<double> shifted = added;
    for (double& value : shifted) value += damping * mean;
    std::vector<double> lower = reversed(gram, factor.order, shifted, team);
    if (!cholesky_in_place(lower, gram.k, team)) continue;
    const std::vector<double> inverse = invert_lower(lower, gram.k, team);
    const int64_t k = gram.k;
    factor.upper.assign(static_cast<size_t>(k * k), 0.0F);
    for (int64_t i = 0; i < k; ++i) {
      for (int64_t j = i; j < k; ++j) {
        factor.upper[static_cast<size_t>(i * k + j)] =
            static_cast<float>(inverse[static_cast<size_t>((k - 1 - i) * k + (k - 1 - j))]);
      }
    }
    factor.damping = damping;
    factor.is_usable = true;
    return factor;
  }
  factor.reason = "the inputs' second moments cannot be factored even when damped by their mean";
  return factor;
}

}  // namespace llmq::quant
