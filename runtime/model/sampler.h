#pragma once

#include <cstdint>
#include <span>
#include <utility>
#include <vector>

namespace llmq::runtime {

/// How the next token is chosen from logits. The filters apply in the order temperature, top_k,
/// top_p, as in Hugging Face's generate.
struct SamplingOptions {
  double temperature = 0.0;  ///< 0: the largest logit (greedy); else logits are divided by it
  int64_t top_k = 0;         ///< only the k largest logits; 0: all
  double top_p = 1.0;  ///< only the fewest tokens whose probabilities reach this sum, in (0, 1]
  uint64_t seed = 0;
};

/// Chooses tokens for one sequence. Not thread-safe.
///
/// The number that draws token t (0 for the first) is a function of seed and t alone: the output of
/// SplitMix64 (Steele, Lea, Flood 2014) for state seed + (t + 1)·0x9e3779b97f4a7c15, its upper 53
/// bits scaled to [0, 1). So a seed gives the same text on every machine, for any number of threads
/// and whatever else is in the batch.
class Sampler {
 public:
  /// Throws Error{kUsage} naming the option that is out of range.
  explicit Sampler(const SamplingOptions& options);

  /// The next token for `logits` [vocab]. Equal logits rank by smaller id. Throws Error{kBadInput}
  /// when a logit is NaN, or all of them are −∞.
  int32_t next(std::span<const float> logits);

 private:
  struct Candidate {
    float logit;
    int32_t id;
  };

  [[nodiscard]] double next_uniform();
  void keep_largest(std::span<const float> logits, size_t count);
  [[nodiscard]] int32_t draw_from_all(std::span<const float> logits, float largest);
  [[nodiscard]] int32_t draw_from_nucleus(std::span<const float> logits, float largest);
  /// Unnormalized probability.
  [[nodiscard]] double weight(float logit, float largest) const;
  /// How many candidates reach `wanted` (all where none do), and their sum.
  [[nodiscard]] std::pair<size_t, double> smallest_nucleus(double wanted, float largest) const;

  SamplingOptions options_;
  uint64_t n_drawn_ = 0;
  std::vector<Candidate> candidates_;  // largest first
};

/// Index of the largest of `logits`, the smallest such index. Throws as Sampler::next.
int32_t argmax(std::span<const float> logits);

}  // namespace llmq::runtime
