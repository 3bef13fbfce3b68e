#include "formats/slicing.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>
#include <set>
#include <tuple>

#include "formats/error.h"

namespace llmq::formats {
namespace {

constexpr int64_t kMaxRanks = 1024;
constexpr int64_t kLargestListedTp = 64;

int64_t divided_up(int64_t value, int64_t by) {
  return (value + by - 1) / by;
}

/// Appends a run; one that goes on where the last one ends becomes part of it.
void append_run(std::vector<SliceRun>& runs, SliceRun run) {
  if (run.n == 0) return;
  if (!runs.empty()) {
    SliceRun& last = runs.back();
    const bool are_zeros =
        last.source_begin == SliceRun::kZeros && run.source_begin == SliceRun::kZeros;
    const bool goes_on =
        last.source_begin != SliceRun::kZeros && run.source_begin == last.source_begin + last.n;
    if (are_zeros || goes_on) {
      last.n += run.n;
      return;
    }
  }
  runs.push_back(run);
}

void append_shifted(std::vector<SliceRun>& runs, const std::vector<SliceRun>& more, int64_t shift) {
  for (const SliceRun& run : more) {
    const bool is_zeros = run.source_begin == SliceRun::kZeros;
    append_run(runs, {is_zeros ? SliceRun::kZeros : run.source_begin + shift, run.n});
  }
}

/// Runs of elements as runs of stored rows or columns, each of `unit` elements.
std::vector<SliceRun> in_units(const std::vector<SliceRun>& runs, int64_t unit) {
  std::vector<SliceRun> scaled;
  for (const SliceRun& run : runs) {
    const bool is_zeros = run.source_begin == SliceRun::kZeros;
    if (run.n % unit != 0 || (!is_zeros && run.source_begin % unit != 0))
      throw Error(ErrorCode::kInternal, fmt::format("a part is no multiple of {}", unit));
    scaled.push_back({is_zeros ? SliceRun::kZeros : run.source_begin / unit, run.n / unit});
  }
  return scaled;
}

bool is_cut(const TensorCut& cut) {
  return cut.axis == CutAxis::kRows || cut.axis == CutAxis::kColumns;
}

bool is_of_heads(Extent extent) {
  return extent == Extent::kQuery || extent == Extent::kKeyValue || extent == Extent::kFusedQkv;
}

bool may_pad(Extent extent) {
  return !is_of_heads(extent) && extent != Extent::kHidden;
}

/// What of cuts decides whether they fit; models have thousands of cuts, but few kinds.
std::set<std::tuple<CutAxis, Extent, int64_t>> kinds_of(std::span<const NamedCut> cuts) {
  std::set<std::tuple<CutAxis, Extent, int64_t>> kinds;
  for (const auto& [name, cut] : cuts) {
    if (is_cut(cut)) kinds.emplace(cut.axis, cut.extent, cut.unit);
  }
  return kinds;
}

int64_t count(const std::vector<SliceRun>& runs) {
  return std::accumulate(runs.begin(), runs.end(), int64_t{0},
                         [](int64_t sum, const SliceRun& run) { return sum + run.n; });
}

}  // namespace

Partition::Partition(const ModelConfig& config, int64_t tp, ExtentMultiples multiples)
    : config_(config), tp_(tp), multiples_(std::move(multiples)) {
  if (tp < 1 || tp > kMaxRanks)
    throw usage_error(fmt::format("--tp {}: must be from 1 to {}", tp, kMaxRanks));
}

int64_t Partition::size_of(Extent extent) const {
  const auto it = padded_.find(extent);
  if (it != padded_.end()) return it->second;
  const auto multiple = multiples_.find(extent);
  const int64_t size = extent_of(extent, config_);
  return multiple == multiples_.end() ? size
                                      : divided_up(size, multiple->second) * multiple->second;
}

int64_t Partition::ranks_per_kv_head() const {
  return std::max<int64_t>(1, tp_ / config_.n_kv_heads);
}

int64_t Partition::kv_heads_per_rank() const {
  return std::max<int64_t>(1, config_.n_kv_heads / tp_);
}

int64_t Partition::kv_head_begin(int64_t rank) const {
  return rank * config_.n_kv_heads / tp_;
}

void Partition::pad(Extent extent, int64_t unit) {
  if (!may_pad(extent)) return;
  const int64_t multiple = tp_ * unit;
  const int64_t size = divided_up(size_of(extent), multiple) * multiple;
  if (size != size_of(extent)) padded_[extent] = size;
}

bool Partition::fits(Extent extent, int64_t unit) const {
  const bool shares_heads =
      tp_ <= config_.n_heads && (config_.n_kv_heads % tp_ == 0 || tp_ % config_.n_kv_heads == 0);
  const bool divides = is_of_heads(extent) ? shares_heads : size_of(extent) % tp_ == 0;
  if (!divides) return false;
  if (unit == 1) return true;
  for (int64_t rank = 0; rank < tp_; ++rank) {
    for (const SliceRun& run : runs(extent, rank)) {
      if (run.n % unit != 0) return false;
      if (run.source_begin != SliceRun::kZeros && run.source_begin % unit != 0) return false;
    }
  }
  return true;
}

std::vector<SliceRun> Partition::even_runs(Extent extent, int64_t rank) const {
  const int64_t size = extent_of(extent, config_);
  const int64_t block = size_of(extent) / tp_;
  const int64_t begin = rank * block;
  const int64_t n = std::clamp<int64_t>(size - begin, 0, block);
  std::vector<SliceRun> runs;
  append_run(runs, {begin, n});
  append_run(runs, {SliceRun::kZeros, block - n});
  return runs;
}

std::vector<SliceRun> Partition::head_runs(int64_t rank) const {
  const int64_t group = config_.n_heads / config_.n_kv_heads;
  const int64_t block = divided_up(group, ranks_per_kv_head());
  const int64_t first = (rank % ranks_per_kv_head()) * block;
  const int64_t n = std::clamp<int64_t>(group - first, 0, block);
  std::vector<SliceRun> runs;
  for (int64_t i = 0; i < kv_heads_per_rank(); ++i) {
    const int64_t head = (kv_head_begin(rank) + i) * group + first;
    append_run(runs, {head * config_.head_dim, n * config_.head_dim});
    append_run(runs, {SliceRun::kZeros, (block - n) * config_.head_dim});
  }
  return runs;
}

std::vector<SliceRun> Partition::runs(Extent extent, int64_t rank) const {
  if (!fits(extent, 1) || rank < 0 || rank >= tp_)
    throw Error(ErrorCode::kInternal, fmt::format("no part of rank {} of {}", rank, tp_));
  if (extent == Extent::kQuery) return head_runs(rank);
  std::vector<SliceRun> kv{
      {kv_head_begin(rank) * config_.head_dim, kv_heads_per_rank() * config_.head_dim}};
  if (extent == Extent::kKeyValue) return kv;
  if (extent != Extent::kFusedQkv) return even_runs(extent, rank);
  std::vector<SliceRun> runs = head_runs(rank);
  const int64_t query = extent_of(Extent::kQuery, config_);
  append_shifted(runs, kv, query);
  append_shifted(runs, kv, query + extent_of(Extent::kKeyValue, config_));
  return runs;
}

int64_t Partition::share(Extent extent) const {
  return count(runs(extent, 0));
}

ModelConfig rank_config(const Partition& partition) {
  ModelConfig config = partition.config();
  const auto share = [&](Extent extent, int64_t& size) {
    if (size > 0 && partition.fits(extent, 1)) size = partition.share(extent);
  };
  config.n_heads = partition.share(Extent::kQuery) / config.head_dim;
  config.n_kv_heads = partition.share(Extent::kKeyValue) / config.head_dim;
  share(Extent::kIntermediate, config.intermediate_size);
  share(Extent::kMoeIntermediate, config.moe_intermediate_size);
  share(Extent::kSharedIntermediate, config.shared_expert_intermediate_size);
  share(Extent::kVocabulary, config.vocab_size);
  return config;
}

std::vector<int64_t> legal_tp_sizes(const ModelConfig& config, std::span<const NamedCut> cuts,
                                    const ExtentMultiples& multiples) {
  const auto kinds = kinds_of(cuts);
  std::vector<int64_t> sizes;
  for (int64_t tp = 1; tp <= kLargestListedTp; ++tp) {
    const Partition partition(config, tp, multiples);
    const bool fits = std::all_of(kinds.begin(), kinds.end(), [&](const auto& kind) {
      return partition.fits(std::get<Extent>(kind), std::get<int64_t>(kind));
    });
    if (fits) sizes.push_back(tp);
  }
  return sizes;
}

std::vector<int64_t> legal_group_sizes(const ModelConfig& config, std::span<const NamedCut> cuts,
                                       int64_t tp) {
  const auto kinds = kinds_of(cuts);
  const Partition partition(config, tp);
  std::vector<int64_t> sizes;
  for (int64_t group_size = 16; group_size <= 512; group_size *= 2) {
    const bool fits = std::all_of(kinds.begin(), kinds.end(), [&](const auto& kind) {
      return std::get<CutAxis>(kind) != CutAxis::kColumns ||
             partition.fits(std::get<Extent>(kind), group_size);
    });
    if (fits) sizes.push_back(group_size);
  }
  return sizes;
}

void pad_to_fit(Partition& partition, std::span<const NamedCut> cuts) {
  std::map<Extent, int64_t> units;
  for (const auto& [name, cut] : cuts) {
    if (!is_cut(cut)) continue;
    int64_t& unit = units.try_emplace(cut.extent, 1).first->second;
    unit = std::lcm(unit, cut.unit);
  }
  for (const auto& [extent, unit] : units) {
    if (!partition.fits(extent, unit)) partition.pad(extent, unit);
  }
}

namespace {

std::string misfit(const Partition& partition, const TensorCut& cut) {
  const ModelConfig& config = partition.config();
  const int64_t tp = partition.tp();
  const int64_t size = extent_of(cut.extent, config);
  if (is_of_heads(cut.extent) && tp > config.n_heads)
    return fmt::format("{} heads are fewer than {} ranks", config.n_heads, tp);
  if (!partition.fits(cut.extent, 1)) {
    return is_of_heads(cut.extent)
               ? fmt::format(
                     "{} key heads can neither be divided among {} ranks nor be "
                     "held by the same number of ranks each",
                     config.n_kv_heads, tp)
               : fmt::format("its {} {} cannot be divided among {} ranks", size,
                             cut.axis == CutAxis::kRows ? "rows" : "columns", tp);
  }
  return fmt::format("of its {} {} each of {} ranks has {}, no whole number of {} of {}", size,
                     cut.axis == CutAxis::kRows ? "outputs" : "inputs", tp,
                     partition.share(cut.extent), cut.unit == 2 ? "pairs" : "groups", cut.unit);
}

std::string listed(const std::vector<int64_t>& values) {
  return values.empty() ? "none" : fmt::format("{}", fmt::join(values, ", "));
}

}  // namespace

void check_fit(const Partition& partition, std::span<const NamedCut> cuts) {
  for (const auto& [name, cut] : cuts) {
    if (!is_cut(cut) || partition.fits(cut.extent, cut.unit)) continue;
    std::string sentence =
        fmt::format("{}: {}; legal TP sizes are {}", name, misfit(partition, cut),
                    listed(legal_tp_sizes(partition.config(), cuts, partition.multiples())));
    if (cut.axis == CutAxis::kColumns && cut.unit > 2) {
      sentence += fmt::format("; group sizes that TP {} allows are {}", partition.tp(),
                              listed(legal_group_sizes(partition.config(), cuts, partition.tp())));
    }
    if (may_pad(cut.extent)) sentence += "; --pad appends zeros to what is no multiple";
    throw bad_input(sentence);
  }
}

TensorSlice slice_of(const Shape& stored, const TensorCut& cut, const Partition& partition,
                     int64_t rank) {
  TensorSlice slice{stored, cut.axis == CutAxis::kColumns, {}};
  const int64_t rows = matrix_extents(stored).rows;
  if (!is_cut(cut)) {
    const bool is_zero = cut.axis == CutAxis::kRankZero && rank > 0;
    append_run(slice.runs, {is_zero ? SliceRun::kZeros : 0, rows});
    return slice;
  }
  slice.runs = in_units(partition.runs(cut.extent, rank), cut.unit);
  slice.shape.at(slice.by_columns ? 1 : 0) = count(slice.runs);
  if (!cut.pads_with_copies) return slice;
  std::vector<SliceRun> runs;
  for (const SliceRun& run : slice.runs) {
    if (run.source_begin != SliceRun::kZeros) {
      runs.push_back(run);
    } else {
      runs.insert(runs.end(), static_cast<size_t>(run.n), SliceRun{0, 1});
    }
  }
  slice.runs = std::move(runs);
  return slice;
}

}  // namespace llmq::formats
