#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "formats/architecture.h"

namespace llmq::convert {

/// Linears of a decoder layer that stay float together: a fused group, or all experts of the layer
/// (group kExpertGateUp stands for them).
struct SelectionGroup {
  int64_t layer = 0;
  formats::FusedGroup group = formats::FusedGroup::kNone;
  std::vector<std::string> modules;  ///< entries of keep_float that name it
  /// Damage that quantizing it does, 0 or more; damages of different groups add up.
  double score = 0.0;
  uint64_t bytes_float = 0;      ///< of all its tensors as they are written in float
  uint64_t bytes_quantized = 0;  ///< the same, quantized

  /// Bytes that keeping it float costs; below 0 where scales outweigh what codes save.
  [[nodiscard]] int64_t extra_bytes() const {
    return static_cast<int64_t>(bytes_float) - static_cast<int64_t>(bytes_quantized);
  }
};

/// "qkv", "attention_out", "gate_up", "down", "experts", ...
std::string_view selection_group_name(formats::FusedGroup group);

/// Indices of `groups` in the order in which they are best kept float: groups that cost no bytes
/// first, then by damage saved per byte, descending; of equal ones the first by layer, then by
/// group. Scores must be finite. The order of `groups` does not matter otherwise.
std::vector<size_t> order_of_keeping(std::span<const SelectionGroup> groups);

/// Bytes that the quantized groups can save or lose at most: the sum of the extra bytes below 0.
int64_t least_extra_bytes(std::span<const SelectionGroup> groups);

/// Which groups stay float so that the damage that remains is small and Σ extra_bytes() of those
/// kept is at most `budget_bytes`: greedy in order_of_keeping, leaving out what does not fit; or,
/// where that saves more, the one group that saves most (so at least half of what the best choice
/// saves, G. Dantzig, Operations Research 5, 1957). Groups without damage stay quantized unless
/// float costs nothing. `budget_bytes` must not be below least_extra_bytes(). Returns a flag for
/// each of `groups`.
std::vector<bool> choose_within(std::span<const SelectionGroup> groups, int64_t budget_bytes);

/// The smallest number of leading groups that have to stay float.
class PrefixSearch {
 public:
  /// 0 of n groups were tried and are too few; all n are always enough.
  explicit PrefixSearch(size_t n_groups) : n_enough_(n_groups) {}

  [[nodiscard]] bool is_done() const { return n_enough_ - n_too_few_ <= 1; }
  /// The result once is_done().
  [[nodiscard]] size_t n_enough() const { return n_enough_; }

  /// Up to `n_tries` numbers between those known, ascending and evenly spread; they are to be tried
  /// at once.
  [[nodiscard]] std::vector<size_t> next(size_t n_tries) const;

  /// Narrows the search by what became of next(): the smallest that was enough counts, so that a
  /// harder condition never ends with fewer groups, whether or not damage falls with every group.
  void narrow(std::span<const size_t> tried, const std::vector<bool>& was_enough);

 private:
  size_t n_too_few_ = 0;
  size_t n_enough_ = 0;
};

}  // namespace llmq::convert
