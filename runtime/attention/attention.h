#pragma once

#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "quant/kernels/gemm_f32/matrix_f32.h"
#include "quant/kernels/thread_team.h"
#include "runtime/attention/code_attention.h"
#include "runtime/attention/kv_cache.h"
#include "runtime/attention/phase.h"

namespace llmq::runtime {

/// Consecutive rows of a batch that continue one sequence.
struct BatchSegment {
  KvCache* cache = nullptr;
  int64_t first_row = 0;       ///< in the batch's matrices
  int64_t n_rows = 0;          ///< new tokens
  int64_t first_position = 0;  ///< of the first of them; cache->length()
  Phase phase = Phase::kPrefill;
};

/// Heads of an attention module.
struct AttentionShape {
  int64_t n_heads = 0;
  int64_t n_kv_heads = 0;  ///< divides n_heads; query head h reads KV head h / (n_heads/n_kv_heads)
  int64_t head_dim = 0;
};

/// One layer's attention over a batch.
struct AttentionArgs {
  quant::ConstMatrixF32 q;  ///< [n_rows, n_heads·head_dim], after RoPE
  quant::MatrixF32 out;     ///< [n_rows, n_heads·head_dim], overwritten
  /// Keys and values of the new rows are already stored in the caches.
  std::span<const BatchSegment> segments;
  int64_t cache_layer = 0;
  /// A query at p reads keys p − window + 1 … p; 0: all keys up to p.
  int64_t window = 0;
  /// Quantized attention (see Attention); null for float arithmetic.
  const FaScales* fa = nullptr;
};

/// Causal softmax attention with grouped query heads: out = Σ_j softmax_j(q·k_j / √head_dim) · v_j
/// in float32.
///
/// The keys of a query are taken in blocks of kKeysPerBlock consecutive positions counted from 0.
/// Each block gives a maximum, a sum and a weighted value; blocks are merged in order. What a query
/// gets therefore depends on nothing but its position and the stored keys and values: its bits are
/// the same for every prefill chunk, page size, batch, thread count and instruction set. Memory per
/// thread does not grow with the length of a sequence.
///
/// A cache of int8 codes is read as (code − offset)·scale, by the new tokens as well, with products
/// in integers (see CodeAttention); head_dim is at most kMaxFaHeadDim then. A row's softmax weights
/// of a block, exp(score − the block's maximum) ≤ 1, are rounded to codes, while the denominator
/// sums them unrounded. Since every block has its own maximum, flat rows of any length keep their
/// weight. With AttentionArgs::fa (FAQuant) the caches must hold codes with the same scales.
class Attention {
 public:
  static constexpr int64_t kKeysPerBlock = 512;
  static constexpr int64_t kMaxFaHeadDim = 256;

  explicit Attention(const AttentionShape& shape) : shape_(shape) {}

  /// Not thread-safe; the work is divided over `team`.
  void run(const AttentionArgs& args, quant::ThreadTeam& team);

 private:
  /// Some new tokens of one sequence and the query heads that share one KV head.
  struct Tile {
    const KvCache* cache;
    int64_t first_row;  // of q and out
    int64_t first_position;
    int64_t n_tokens;
    int64_t kv_head;
    int64_t first_block;
    int64_t n_blocks;
    int64_t first_partial;  // index of the tile's first (block, row) state in partials_
  };

  /// Softmax over some keys, not normalized: Σ exp(s − max) · v and Σ exp(s − max). max is −∞ where
  /// a row saw no key. Row r is query head r mod group of token r / group of a tile.
  struct RowStates {
    float* max;  // [n_rows]
    float* sum;  // [n_rows]
    float* mix;  // [n_rows, head_dim]
  };

  /// Consecutive positions of one block.
  struct BlockKeys {
    int64_t first;
    int64_t n;  // at most kKeysPerBlock
  };

  /// Keys [begin, end) that a row reads, counted from a block's first.
  struct KeyRange {
    int64_t begin;
    int64_t end;
    [[nodiscard]] bool empty() const { return begin >= end; }
  };

  /// Some tokens of a tile and keys that all of them read.
  struct MixPart {
    int64_t first_token;
    int64_t n_tokens;
    int64_t first_key;  // position that `keys` counts from
    KeyRange keys;
  };

  struct Scratch {
    const Tile* tile = nullptr;  // whose queries are gathered
    std::vector<float> q;        // [rows_per_tile, head_dim]
    std::vector<float> scores;   // [rows_per_tile, kKeysPerBlock]
    CodeAttention codes;         // where the cache has codes
    std::vector<float> block;    // RowStates of one block
    std::vector<float> total;    // RowStates of the blocks so far
  };

  void plan(const AttentionArgs& args);
  void prepare_scratch(quant::ThreadTeam& team);
  void run_tile(const AttentionArgs& args, const Tile& tile, Scratch& scratch) const;
  void run_blocks(const AttentionArgs& args, quant::ThreadTeam& team);

  void gather_queries(const AttentionArgs& args, const Tile& tile, Scratch& scratch) const;
  void attend_block(const AttentionArgs& args, const Tile& tile, int64_t block, Scratch& scratch,
                    const RowStates& states) const;
  void score_block(const AttentionArgs& args, const Tile& tile, const BlockKeys& keys,
                   Scratch& scratch) const;
  void mix_block(const AttentionArgs& args, const Tile& tile, const BlockKeys& keys,
                 Scratch& scratch, const RowStates& states) const;
  void mix_keys(const AttentionArgs& args, const Tile& tile, const MixPart& part, Scratch& scratch,
                const RowStates& states) const;
  void merge(const RowStates& block, int64_t n_rows, const RowStates& total) const;
  void write_out(const AttentionArgs& args, const Tile& tile, const RowStates& total) const;

  static KeyRange visible_keys(int64_t position, int64_t window, const BlockKeys& keys);
  [[nodiscard]] RowStates states_in(float* buffer, int64_t n_rows) const;
  [[nodiscard]] int64_t group() const { return shape_.n_heads / shape_.n_kv_heads; }
  [[nodiscard]] int64_t tokens_per_tile() const;

  AttentionShape shape_;
  std::vector<Tile> tiles_;
  std::vector<std::pair<int64_t, int64_t>> blocks_;  // tile, block of the tile
  int64_t n_partials_ = 0;
  std::vector<Scratch> scratch_;  // one per thread
  std::vector<float> partials_;   // RowStates of every (tile, block), where blocks run in parallel
};

}  // namespace llmq::runtime
