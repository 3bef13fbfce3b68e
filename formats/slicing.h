#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "formats/architecture.h"
#include "formats/dtype.h"
#include "formats/model_config.h"
#include "formats/scheme.h"

namespace llmq::formats {

/// A run of rows or columns of a rank's tensor.
struct SliceRun {
  /// source_begin of a run that has no source: padding.
  static constexpr int64_t kZeros = -1;

  int64_t source_begin = 0;  ///< first row or column of the unsharded tensor, or kZeros
  int64_t n = 0;             ///< rows or columns, above 0
  bool operator==(const SliceRun&) const = default;
};

/// What ranks share of a tensor.
enum class CutAxis : uint8_t {
  kWhole,     ///< nothing: every rank holds all of it
  kRows,      ///< its rows (a vector's elements)
  kColumns,   ///< its columns
  kRankZero,  ///< rank 0 holds all of it, the others zeros: what is added once to a sum over ranks
};

/// How a stored tensor is cut, whatever the number of ranks.
struct TensorCut {
  CutAxis axis = CutAxis::kWhole;
  Extent extent = Extent::kOne;  ///< what its rows or columns count
  /// Elements of `extent` that one stored row or column stands for: 2 for packed int4, the group
  /// size for scales of groups, head_dim for scales of heads, else 1.
  int64_t unit = 1;
  /// Rows that padding adds are copies of the first row, not zeros: consumers divide by them.
  bool pads_with_copies = false;
  bool operator==(const TensorCut&) const = default;
};

/// A rank's part of a stored tensor. Its runs cover its rows, or its columns, in their order.
struct TensorSlice {
  Shape shape;              ///< of the part
  bool by_columns = false;  ///< runs are of columns; all rows are there
  std::vector<SliceRun> runs;
};

/// What engines differ in.
enum class EmbeddingCut : uint8_t { kVocabulary, kHidden };

/// By extent, what its size must be a multiple of.
using ExtentMultiples = std::map<Extent, int64_t>;

/// How `tp` ranks share the extents of a model. Immutable but for pad(); then thread-safe.
class Partition {
 public:
  /// `multiples`: of what the engine itself makes an extent a multiple, by zeros at its end,
  /// whatever the number of ranks. Throws Error{kUsage} for a `tp` below 1 or above 1024.
  Partition(const ModelConfig& config, int64_t tp, ExtentMultiples multiples = {});

  [[nodiscard]] int64_t tp() const { return tp_; }
  [[nodiscard]] const ModelConfig& config() const { return config_; }

  /// Appends zeros to an extent until every rank's part is as large and a multiple of `unit`. Heads
  /// are left alone: they are padded within their group of queries wherever that is needed; so is
  /// the hidden size, which norms average over.
  void pad(Extent extent, int64_t unit);

  /// The extents that pad() made larger, with their sizes.
  [[nodiscard]] const std::map<Extent, int64_t>& padded() const { return padded_; }

  [[nodiscard]] const ExtentMultiples& multiples() const { return multiples_; }

  /// Whether an extent can be shared by so many ranks in multiples of `unit`. Key heads
  /// are divided, or each is held by the same number of ranks; query heads can be shared wherever
  /// key heads can and there is one for each rank, because their groups are padded.
  [[nodiscard]] bool fits(Extent extent, int64_t unit) const;

  /// Part of `rank`, in elements of the extent. Of kQuery: the heads whose key head the rank holds,
  /// or its share of those, padded to the same number on every rank. Of kFusedQkv: those of q, of
  /// k and of v. Throws Error{kInternal} where it does not fit.
  [[nodiscard]] std::vector<SliceRun> runs(Extent extent, int64_t rank) const;

  /// Elements of an extent that each rank holds, padding included.
  [[nodiscard]] int64_t share(Extent extent) const;

 private:
  [[nodiscard]] std::vector<SliceRun> head_runs(int64_t rank) const;
  [[nodiscard]] std::vector<SliceRun> even_runs(Extent extent, int64_t rank) const;
  [[nodiscard]] int64_t ranks_per_kv_head() const;
  [[nodiscard]] int64_t kv_heads_per_rank() const;
  [[nodiscard]] int64_t kv_head_begin(int64_t rank) const;
  [[nodiscard]] int64_t size_of(Extent extent) const;

  ModelConfig config_;
  int64_t tp_ = 1;
  ExtentMultiples multiples_;
  std::map<Extent, int64_t> padded_;
};

/// The configuration of what one rank holds: its heads, and its shares of the extents that can be
/// shared (others stay whole, as those that no module of the model uses). All else is as it was.
ModelConfig rank_config(const Partition& partition);

/// What of a model, besides its table, decides how its tensors are cut.
struct CutContext {
  const ModelConfig& config;
  EmbeddingCut embedding = EmbeddingCut::kVocabulary;
  int64_t group_size = 0;  ///< of a linear with scales of groups; 0: per channel
};

/// How a tensor that `rule` describes is cut beside or as the weight of a module of `row`, stored
/// with the shape `stored`: packed pairs, groups and heads are told from it. Throws
/// Error{kBadInput} where the shape is none that the rule allows, or the tensor is compressed.
TensorCut tensor_cut(const ModuleRow& row, const TensorRule& rule, const Shape& stored,
                     const CutContext& context);

/// How a linear is stored.
struct LinearScheme {
  Scheme scheme = Scheme::kFloat;
  int64_t group_size = 0;  ///< 0: per channel
};

/// Finds the cut of every tensor of a checkpoint of one configuration.
class CutFinder {
 public:
  CutFinder(const ModelConfig& config, EmbeddingCut embedding);

  /// The cut of a tensor by its name, stored shape and the scheme of its module (`scheme_of` the
  /// module's weight; kFloat where the description has none). Tensors that the architecture table
  /// does not know are held whole. Throws Error{kBadInput} naming a tensor that belongs to a module
  /// that is cut but which no scheme has, and as the function above.
  [[nodiscard]] TensorCut find(std::string_view name, const Shape& stored,
                               const LinearScheme& scheme) const;

  /// The module that a tensor belongs to where that is a linear that may be quantized, else empty.
  [[nodiscard]] std::string linear_of(std::string_view name) const;

 private:
  struct AttentionKey {
    const ModuleRow* row;
    const TensorRule* rule;
  };
  [[nodiscard]] const ModuleRow* row_of(const std::string& module) const;

  ModelConfig config_;
  EmbeddingCut embedding_;
  std::map<std::string, const ModuleRow*, std::less<>> modules_;
  std::map<std::string, AttentionKey, std::less<>> attention_;
};

/// A cut and whose it is.
struct NamedCut {
  std::string name;
  TensorCut cut;
};

/// TP sizes from 1 to 64 at which every cut fits; `multiples` as Partition has them.
std::vector<int64_t> legal_tp_sizes(const ModelConfig& config, std::span<const NamedCut> cuts,
                                    const ExtentMultiples& multiples = {});

/// Group sizes (powers of two from 16 to 512) at which every linear whose inputs are cut has whole
/// groups on each of `tp` ranks.
std::vector<int64_t> legal_group_sizes(const ModelConfig& config, std::span<const NamedCut> cuts,
                                       int64_t tp);

/// Pads every extent that does not fit, so that all cuts do; heads are left alone.
void pad_to_fit(Partition& partition, std::span<const NamedCut> cuts);

/// Throws Error{kBadInput} naming the first tensor that does not fit, why, the legal TP sizes, and
/// for scales of groups the group sizes that this TP size allows.
void check_fit(const Partition& partition, std::span<const NamedCut> cuts);

/// The part of `rank` of a tensor of that shape. Throws Error{kInternal} where the cut does not fit
/// the partition.
TensorSlice slice_of(const Shape& stored, const TensorCut& cut, const Partition& partition,
                     int64_t rank);

/// A tensor of any rank as a matrix: its first extent, and the product of the others.
struct MatrixExtents {
  int64_t rows = 1;
  int64_t columns = 1;
};
MatrixExtents matrix_extents(const Shape& shape);

/// Rows [first, first + n) of a matrix.
struct RowRange {
  int64_t first = 0;
  int64_t n = 0;
};

/// The bytes of an unsharded tensor.
struct WholeTensor {
  MatrixExtents extents;
  size_t element_bytes = 1;  ///< size of its dtype
  std::span<const std::byte> bytes;
};

/// Copies rows of a part, counted within the part, from the unsharded tensor to `to`, which holds
/// just them. Thread-safe.
void copy_slice_rows(const WholeTensor& source, const TensorSlice& slice, RowRange rows,
                     std::span<std::byte> to);

/// One rank's part of a tensor, as it was stored.
struct RankPart {
  TensorSlice slice;
  std::span<const std::byte> bytes;
};

/// An unsharded tensor that is put together from its parts.
struct MergeTarget {
  MatrixExtents extents;
  size_t element_bytes = 1;  ///< size of its dtype
};

/// Two ranks that should hold the same rows but do not.
struct DifferingRanks {
  int64_t first = 0;
  int64_t second = 0;
  bool operator==(const DifferingRanks&) const = default;
};

/// Puts rows of an unsharded tensor together from the parts of all ranks, the exact inverse of
/// copy_slice_rows; `to` holds just these rows. Where several ranks hold the same rows these must
/// be equal: returns the first rank whose copy differs and one that it differs from, nothing where
/// all agree. Thread-safe.
std::optional<DifferingRanks> merge_rows(const MergeTarget& target, std::span<const RankPart> parts,
                                         RowRange rows, std::span<std::byte> to);

/// Whether every element that padding added to a part is zero.
bool is_padding_zero(const RankPart& part, size_t element_bytes);

}  // namespace llmq::formats
