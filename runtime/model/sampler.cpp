#include "runtime/model/sampler.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "formats/error.h"

namespace llmq::runtime {
namespace {

// Candidates sorted at first for top_p; doubled until they hold enough probability.
constexpr size_t kFirstCandidates = 256;

uint64_t split_mix_64(uint64_t state) {
  uint64_t z = state;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
  return z ^ (z >> 31);
}

void check(const SamplingOptions& options) {
  if (!(options.temperature >= 0.0) || !std::isfinite(options.temperature)) {
    throw formats::usage_error(
        fmt::format("temperature is {}; it must be 0 (greedy) or above", options.temperature));
  }
  if (options.top_k < 0) {
    throw formats::usage_error(
        fmt::format("top_k is {}; it must be 0 (all tokens) or above", options.top_k));
  }
  if (!(options.top_p > 0.0 && options.top_p <= 1.0)) {
    throw formats::usage_error(
        fmt::format("top_p is {}; it must be above 0 and at most 1", options.top_p));
  }
}

}  // namespace

int32_t argmax(std::span<const float> logits) {
  size_t best = 0;
  bool has_nan = logits.empty();
  for (size_t i = 0; i < logits.size(); ++i) {
    has_nan = has_nan || std::isnan(logits[i]);
    if (logits[i] > logits[best]) best = i;
  }
  if (has_nan || logits[best] == -std::numeric_limits<float>::infinity()) {
    throw formats::bad_input(
        "the model gives logits that are not numbers; its weights or scales are damaged, or its "
        "activations overflow");
  }
  return static_cast<int32_t>(best);
}

Sampler::Sampler(const SamplingOptions& options) : options_(options) {
  check(options);
}

int32_t Sampler::next(std::span<const float> logits) {
  const int32_t best = argmax(logits);
  if (options_.temperature == 0.0) return best;
  const float largest = logits[static_cast<size_t>(best)];
  // An infinite logit has all the probability.
  if (std::isinf(largest)) return best;
  const auto n = static_cast<int64_t>(logits.size());
  const bool takes_all = options_.top_k == 0 || options_.top_k >= n;
  return takes_all && options_.top_p == 1.0 ? draw_from_all(logits, largest)
                                            : draw_from_nucleus(logits, largest);
}

double Sampler::next_uniform() {
  ++n_drawn_;
  const uint64_t bits = split_mix_64(options_.seed + n_drawn_ * 0x9e3779b97f4a7c15ULL);
  return static_cast<double>(bits >> 11) * 0x1p-53;
}

void Sampler::keep_largest(std::span<const float> logits, size_t count) {
  candidates_.resize(logits.size());
  for (size_t i = 0; i < logits.size(); ++i) candidates_[i] = {logits[i], static_cast<int32_t>(i)};
  const auto middle = candidates_.begin() + static_cast<std::ptrdiff_t>(count);
  std::partial_sort(candidates_.begin(), middle, candidates_.end(),
                    [](const Candidate& a, const Candidate& b) {
                      return a.logit != b.logit ? a.logit > b.logit : a.id < b.id;
                    });
  candidates_.resize(count);
}

double Sampler::weight(float logit, float largest) const {
  return std::exp((static_cast<double>(logit) - largest) / options_.temperature);
}

int32_t Sampler::draw_from_all(std::span<const float> logits, float largest) {
  double total = 0.0;
  for (const float logit : logits) total += weight(logit, largest);
  const double target = next_uniform() * total;
  double sum = 0.0;
  int32_t last = 0;
  for (size_t i = 0; i < logits.size(); ++i) {
    const double w = weight(logits[i], largest);
    if (w == 0.0) continue;
    sum += w;
    last = static_cast<int32_t>(i);
    if (sum > target) break;
  }
  return last;
}

int32_t Sampler::draw_from_nucleus(std::span<const float> logits, float largest) {
  const bool has_top_k = options_.top_k > 0;
  const size_t n_kept =
      has_top_k ? std::min(static_cast<size_t>(options_.top_k), logits.size()) : logits.size();
  double total = 0.0;  // of the tokens that top_k leaves
  if (!has_top_k) {
    for (const float logit : logits) total += weight(logit, largest);
  }
  // Sorting a whole vocabulary for the few tokens that hold top_p would cost more than the head.
  size_t n_sorted = has_top_k ? n_kept : std::min(n_kept, kFirstCandidates);
  keep_largest(logits, n_sorted);
  if (has_top_k) {
    for (const Candidate& candidate : candidates_) total += weight(candidate.logit, largest);
  }
  const double wanted = options_.top_p * total;
  std::pair<size_t, double> nucleus = smallest_nucleus(wanted, largest);
  while (nucleus.second < wanted && n_sorted < n_kept) {
    n_sorted = std::min(n_kept, n_sorted * 4);
    keep_largest(logits, n_sorted);
    nucleus = smallest_nucleus(wanted, largest);
  }
  const double target = next_uniform() * nucleus.second;
  double sum = 0.0;
  for (size_t i = 0; i + 1 < nucleus.first; ++i) {
    sum += weight(candidates_[i].logit, largest);
    if (sum > target) return candidates_[i].id;
  }
  return candidates_[nucleus.first - 1].id;
}

std::pair<size_t, double> Sampler::smallest_nucleus(double wanted, float largest) const {
  size_t count = 1;
  double sum = weight(candidates_.front().logit, largest);
  while (sum < wanted && count < candidates_.size())
    sum += weight(candidates_[count++].logit, largest);
  return {count, sum};
}

}  // namespace llmq::runtime
