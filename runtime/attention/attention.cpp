#include "runtime/attention/attention.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "quant/kernels/elementwise/elementwise.h"

namespace llmq::runtime {
namespace {

using formats::DType;
using quant::ThreadTeam;

constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();

// Rows of a tile share the keys and values that are read; more of them would push the scores out of
// the L2 cache.
constexpr int64_t kRowsPerTile = 64;

/// First key that a query at `position` reads.
int64_t oldest_key(int64_t position, int64_t window) {
  return window > 0 ? std::max<int64_t>(position - window + 1, 0) : 0;
}

int64_t row_size_bytes(const KvCache& cache) {
  const KvLayout& layout = cache.layout();
  return layout.head_dim * static_cast<int64_t>(formats::dtype_size_bytes(layout.dtype));
}

/// `next` are the rows that are read after the n_rows first of `rows`.
quant::StoredRows stored_rows(const KvCache& cache, const KvRows& rows, int64_t n_rows,
                              const KvRows& next) {
  const bool is_float = cache.layout().dtype == DType::kF32;
  return {rows.data, is_float ? quant::RowType::kF32 : quant::RowType::kBf16, row_size_bytes(cache),
          n_rows, next.data};
}

bool holds_codes(const KvCache& cache) {
  return cache.layout().dtype == DType::kI8;
}

CodeHead code_head(const AttentionArgs& args, const KvCache* cache, int64_t kv_head) {
  return {cache, args.cache_layer, kv_head, args.fa};
}

}  // namespace

Attention::KeyRange Attention::visible_keys(int64_t position, int64_t window,
                                            const BlockKeys& keys) {
  return {std::max<int64_t>(oldest_key(position, window) - keys.first, 0),
          std::min(position + 1 - keys.first, keys.n)};
}

int64_t Attention::tokens_per_tile() const {
  return std::max<int64_t>(1, kRowsPerTile / group());
}

void Attention::plan(const AttentionArgs& args) {
  tiles_.clear();
  n_partials_ = 0;
  const int64_t step = tokens_per_tile();
  for (const BatchSegment& segment : args.segments) {
    // Late tokens read the most keys; starting with them keeps threads busy to the end.
    for (int64_t end = segment.n_rows; end > 0; end -= step) {
      const int64_t begin = std::max<int64_t>(0, end - step);
      const int64_t position = segment.first_position + begin;
      const int64_t first_block = oldest_key(position, args.window) / kKeysPerBlock;
      const int64_t last_block = (segment.first_position + end - 1) / kKeysPerBlock;
      for (int64_t kv_head = 0; kv_head < shape_.n_kv_heads; ++kv_head) {
        const int64_t n_blocks = last_block - first_block + 1;
        tiles_.push_back({segment.cache, segment.first_row + begin, position, end - begin, kv_head,
                          first_block, n_blocks, n_partials_});
        n_partials_ += n_blocks * (end - begin) * group();
      }
    }
  }
}

void Attention::prepare_scratch(ThreadTeam& team) {
  const auto n_rows = static_cast<size_t>(tokens_per_tile() * group());
  const auto head_dim = static_cast<size_t>(shape_.head_dim);
  scratch_.resize(static_cast<size_t>(team.n_threads()));
  for (Scratch& scratch : scratch_) {
    scratch.tile = nullptr;
    scratch.q.resize(n_rows * head_dim);
    scratch.scores.resize(n_rows * kKeysPerBlock);
    scratch.block.resize(n_rows * (head_dim + 2));
    scratch.total.resize(n_rows * (head_dim + 2));
  }
}

Attention::RowStates Attention::states_in(float* buffer, int64_t n_rows) const {
  return {buffer, buffer + n_rows, buffer + 2 * n_rows};
}

void Attention::run(const AttentionArgs& args, ThreadTeam& team) {
  plan(args);
  prepare_scratch(team);
  const auto n_tiles = static_cast<int64_t>(tiles_.size());
  const bool has_blocks = n_partials_ > args.q.n_rows * shape_.n_heads;
  if (n_tiles >= 2 * team.n_threads() || team.n_threads() == 1 || !has_blocks) {
    team.parallel_for(n_tiles, [&](int64_t index, int thread) {
      run_tile(args, tiles_[static_cast<size_t>(index)], scratch_[static_cast<size_t>(thread)]);
    });
  } else {
    run_blocks(args, team);
  }
}

void Attention::run_tile(const AttentionArgs& args, const Tile& tile, Scratch& scratch) const {
  const int64_t n_rows = tile.n_tokens * group();
  gather_queries(args, tile, scratch);
  const RowStates total = states_in(scratch.total.data(), n_rows);
  attend_block(args, tile, tile.first_block, scratch, total);
  const RowStates block = states_in(scratch.block.data(), n_rows);
  for (int64_t i = 1; i < tile.n_blocks; ++i) {
    attend_block(args, tile, tile.first_block + i, scratch, block);
    merge(block, n_rows, total);
  }
  write_out(args, tile, total);
}

void Attention::run_blocks(const AttentionArgs& args, ThreadTeam& team) {
  partials_.resize(static_cast<size_t>(n_partials_ * (shape_.head_dim + 2)));
  blocks_.clear();
  for (size_t tile = 0; tile < tiles_.size(); ++tile) {
    for (int64_t i = 0; i < tiles_[tile].n_blocks; ++i)
      blocks_.emplace_back(static_cast<int64_t>(tile), i);
  }
  const auto states_of = [&](const Tile& tile, int64_t i) {
    const int64_t n_rows = tile.n_tokens * group();
    const int64_t first = (tile.first_partial + i * n_rows) * (shape_.head_dim + 2);
    return states_in(partials_.data() + first, n_rows);
  };
  team.parallel_for(static_cast<int64_t>(blocks_.size()), [&](int64_t index, int thread) {
    const auto [tile_index, i] = blocks_[static_cast<size_t>(index)];
    const Tile& tile = tiles_[static_cast<size_t>(tile_index)];
    Scratch& scratch = scratch_[static_cast<size_t>(thread)];
    gather_queries(args, tile, scratch);
    attend_block(args, tile, tile.first_block + i, scratch, states_of(tile, i));
  });
  team.parallel_for(static_cast<int64_t>(tiles_.size()), [&](int64_t index, int) {
    const Tile& tile = tiles_[static_cast<size_t>(index)];
    const RowStates total = states_of(tile, 0);
    for (int64_t i = 1; i < tile.n_blocks; ++i)
      merge(states_of(tile, i), tile.n_tokens * group(), total);
    write_out(args, tile, total);
  });
}

void Attention::gather_queries(const AttentionArgs& args, const Tile& tile,
                               Scratch& scratch) const {
  if (scratch.tile == &tile) return;
  scratch.tile = &tile;
  const int64_t n = group() * shape_.head_dim;
  for (int64_t token = 0; token < tile.n_tokens; ++token) {
    const float* from =
        args.q.data + (tile.first_row + token) * args.q.row_stride + tile.kv_head * n;
    float* to = scratch.q.data() + token * n;
    std::copy_n(from, n, to);
  }
  if (!holds_codes(*tile.cache)) return;
  const auto n_values = static_cast<size_t>(tile.n_tokens * n);
  scratch.codes.take_queries(code_head(args, tile.cache, tile.kv_head),
                             std::span(scratch.q).first(n_values), group());
}

void Attention::attend_block(const AttentionArgs& args, const Tile& tile, int64_t block,
                             Scratch& scratch, const RowStates& states) const {
  const int64_t n_rows = tile.n_tokens * group();
  BlockKeys keys{block * kKeysPerBlock, 0};
  keys.n = std::min(kKeysPerBlock, tile.first_position + tile.n_tokens - keys.first);
  score_block(args, tile, keys, scratch);
  const quant::ElementwiseKernels& kernels = quant::elementwise_kernels();
  const bool has_codes = holds_codes(*tile.cache);
  std::fill_n(states.mix, n_rows * shape_.head_dim, 0.0F);
  for (int64_t row = 0; row < n_rows; ++row) {
    const KeyRange seen = visible_keys(tile.first_position + row / group(), args.window, keys);
    states.max[row] = kMinusInfinity;
    states.sum[row] = 0.0F;
    float* row_scores = scratch.scores.data() + row * kKeysPerBlock;
    if (has_codes) {  // keys that the row does not read have no weight
      std::fill(row_scores, row_scores + std::clamp<int64_t>(seen.begin, 0, keys.n), 0.0F);
      std::fill(row_scores + std::clamp<int64_t>(seen.end, 0, keys.n), row_scores + keys.n, 0.0F);
    }
    if (seen.empty()) continue;
    float* scores = row_scores + seen.begin;
    const int64_t n = seen.end - seen.begin;
    states.max[row] = kernels.row_max(scores, n);
    states.sum[row] = kernels.exp_sum(scores, states.max[row], scores, n);
  }
  if (has_codes) {
    scratch.codes.mix(code_head(args, tile.cache, tile.kv_head), {keys.first, keys.n},
                      scratch.scores.data(), kKeysPerBlock, states.mix);
  } else {
    mix_block(args, tile, keys, scratch, states);
  }
}

void Attention::score_block(const AttentionArgs& args, const Tile& tile, const BlockKeys& keys,
                            Scratch& scratch) const {
  const auto scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(shape_.head_dim)));
  if (holds_codes(*tile.cache)) {
    scratch.codes.score(code_head(args, tile.cache, tile.kv_head), {keys.first, keys.n},
                        scratch.scores.data(), kKeysPerBlock);
    return;
  }
  const auto keys_at = [&](int64_t key) {
    return tile.cache->keys(args.cache_layer, tile.kv_head, keys.first + key);
  };
  // The same positions' values are read next.
  const KvRows values = tile.cache->values(args.cache_layer, tile.kv_head, keys.first);
  for (int64_t done = 0; done < keys.n;) {
    const KvRows page = keys_at(done);
    const int64_t n = std::min(page.n_rows, keys.n - done);
    const KvRows next = done + n < keys.n ? keys_at(done + n) : values;
    quant::elementwise_kernels().dot_rows({.queries = scratch.q.data(),
                                           .query_stride = shape_.head_dim,
                                           .m = tile.n_tokens * group(),
                                           .d = shape_.head_dim,
                                           .rows = stored_rows(*tile.cache, page, n, next),
                                           .scale = scale,
                                           .out = scratch.scores.data() + done,
                                           .out_stride = kKeysPerBlock});
    done += n;
  }
}

void Attention::mix_block(const AttentionArgs& args, const Tile& tile, const BlockKeys& keys,
                          Scratch& scratch, const RowStates& states) const {
  const auto seen_by = [&](int64_t token) {
    return visible_keys(tile.first_position + token, args.window, keys);
  };
  // Keys that all tokens read are taken for all rows at once; every row still adds its keys in
  // ascending order.
  KeyRange common{seen_by(tile.n_tokens - 1).begin, seen_by(0).end};
  if (common.empty()) common = {keys.n, keys.n};
  for (int64_t token = 0; token < tile.n_tokens; ++token) {
    const KeyRange seen = seen_by(token);
    mix_keys(args, tile, {token, 1, keys.first, {seen.begin, std::min(seen.end, common.begin)}},
             scratch, states);
  }
  mix_keys(args, tile, {0, tile.n_tokens, keys.first, common}, scratch, states);
  for (int64_t token = 0; token < tile.n_tokens; ++token) {
    const KeyRange seen = seen_by(token);
    mix_keys(args, tile, {token, 1, keys.first, {std::max(seen.begin, common.end), seen.end}},
             scratch, states);
  }
}

void Attention::mix_keys(const AttentionArgs& args, const Tile& tile, const MixPart& part,
                         Scratch& scratch, const RowStates& states) const {
  const int64_t head_dim = shape_.head_dim;
  const int64_t row = part.first_token * group();
  const auto values_at = [&](int64_t key) {
    return tile.cache->values(args.cache_layer, tile.kv_head, part.first_key + key);
  };
  // The keys of the positions behind are read next.
  const int64_t end = part.first_key + part.keys.end;
  const KvRows keys =
      tile.cache->has(end) ? tile.cache->keys(args.cache_layer, tile.kv_head, end) : KvRows{};
  for (int64_t at = part.keys.begin; at < part.keys.end;) {
    const KvRows page = values_at(at);
    const int64_t n = std::min(page.n_rows, part.keys.end - at);
    const KvRows next = at + n < part.keys.end ? values_at(at + n) : keys;
    quant::elementwise_kernels().add_rows({.p = scratch.scores.data() + row * kKeysPerBlock + at,
                                           .p_stride = kKeysPerBlock,
                                           .m = part.n_tokens * group(),
                                           .d = head_dim,
                                           .rows = stored_rows(*tile.cache, page, n, next),
                                           .acc = states.mix + row * head_dim,
                                           .acc_stride = head_dim});
    at += n;
  }
}

void Attention::merge(const RowStates& block, int64_t n_rows, const RowStates& total) const {
  const int64_t head_dim = shape_.head_dim;
  std::array<float, 2 * kRowsPerTile> factors;
  for (int64_t first = 0; first < n_rows; first += kRowsPerTile) {
    const int64_t n = std::min(n_rows - first, kRowsPerTile);
    float* keep = factors.data();
    float* add = keep + n;
    for (int64_t i = 0; i < n; ++i) {
      const float max = std::max(block.max[first + i], total.max[first + i]);
      keep[i] = total.max[first + i] - max;
      add[i] = block.max[first + i] - max;
    }
    quant::elementwise_kernels().exp(keep, keep, 2 * n);
    for (int64_t i = 0; i < n; ++i) {
      const int64_t row = first + i;
      if (block.sum[row] == 0.0F) continue;
      total.max[row] = std::max(block.max[row], total.max[row]);
      total.sum[row] = total.sum[row] * keep[i] + block.sum[row] * add[i];
      float* mix = total.mix + row * head_dim;
      const float* more = block.mix + row * head_dim;
      for (int64_t lane = 0; lane < head_dim; ++lane)
        mix[lane] = mix[lane] * keep[i] + more[lane] * add[i];
    }
  }
}

void Attention::write_out(const AttentionArgs& args, const Tile& tile,
                          const RowStates& total) const {
  const int64_t head_dim = shape_.head_dim;
  for (int64_t row = 0; row < tile.n_tokens * group(); ++row) {
    const int64_t head = tile.kv_head * group() + row % group();
    float* out =
        args.out.data + (tile.first_row + row / group()) * args.out.row_stride + head * head_dim;
    const float* mix = total.mix + row * head_dim;
    for (int64_t i = 0; i < head_dim; ++i) out[i] = mix[i] / total.sum[row];
  }
}

}  // namespace llmq::runtime
