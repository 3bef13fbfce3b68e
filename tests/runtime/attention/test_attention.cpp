#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

#include "formats/error.h"
#include "formats/float16.h"
#include "runtime/attention/attention.h"
#include "runtime/attention/kv_cache.h"

namespace llmq::runtime {
namespace {

using formats::DType;

struct Problem {
  AttentionShape shape{4, 2, 24};
  int64_t n_tokens = 1100;  // three blocks of keys
  int64_t window = 0;
  std::vector<float> q;  // [n_tokens, n_heads, head_dim]
  std::vector<float> k;  // [n_tokens, n_kv_heads, head_dim]
  std::vector<float> v;

  explicit Problem(int64_t tokens = 1100) : n_tokens(tokens) {
    std::mt19937 random(7);
    std::normal_distribution<float> normal;
    const auto fill = [&](std::vector<float>& values, int64_t n_heads) {
      values.resize(static_cast<size_t>(n_tokens * n_heads * shape.head_dim));
      for (float& value : values) value = normal(random);
    };
    fill(q, shape.n_heads);
    fill(k, shape.n_kv_heads);
    fill(v, shape.n_kv_heads);
  }
};

/// How the same work is cut.
struct Cut {
  int64_t chunk = 512;
  int64_t page_size = 64;
  int n_threads = 1;
  DType dtype = DType::kF32;
};

std::vector<float> run(const Problem& p, const Cut& cut) {
  quant::ThreadTeam team(cut.n_threads);
  KvCache cache({.n_layers = 1,
                 .n_kv_heads = p.shape.n_kv_heads,
                 .head_dim = p.shape.head_dim,
                 .page_size = cut.page_size,
                 .dtype = cut.dtype});
  Attention attention(p.shape);
  const int64_t query = p.shape.n_heads * p.shape.head_dim;
  const auto key = static_cast<size_t>(p.shape.n_kv_heads * p.shape.head_dim);
  std::vector<float> out(p.q.size(), -1.0F);
  for (int64_t begin = 0; begin < p.n_tokens; begin += cut.chunk) {
    const int64_t n = std::min(cut.chunk, p.n_tokens - begin);
    cache.reserve(begin + n);
    for (int64_t i = begin; i < begin + n; ++i) {
      const size_t at = static_cast<size_t>(i) * key;
      cache.store(0, i, std::span(p.k).subspan(at, key), std::span(p.v).subspan(at, key));
    }
    const BatchSegment segment{&cache, 0, n, begin};
    attention.run({.q = {p.q.data() + begin * query, n, query, query},
                   .out = {out.data() + begin * query, n, query, query},
                   .segments = {&segment, 1},
                   .cache_layer = 0,
                   .window = p.window},
                  team);
    cache.advance(n);
  }
  return out;
}

/// Softmax attention of one query head in float64, over all keys at once.
std::vector<double> reference_row(const Problem& p, int64_t token, int64_t head) {
  const int64_t d = p.shape.head_dim;
  const int64_t kv_head = head / (p.shape.n_heads / p.shape.n_kv_heads);
  const auto row = [&](const std::vector<float>& m, int64_t t, int64_t n_heads, int64_t h) {
    return m.data() + (t * n_heads + h) * d;
  };
  const float* q = row(p.q, token, p.shape.n_heads, head);
  const int64_t first = p.window > 0 ? std::max<int64_t>(0, token - p.window + 1) : 0;
  std::vector<double> mix(static_cast<size_t>(d));
  double total = 0.0;
  for (int64_t j = first; j <= token; ++j) {
    const float* k = row(p.k, j, p.shape.n_kv_heads, kv_head);
    double score = 0.0;
    for (int64_t i = 0; i < d; ++i) score += static_cast<double>(q[i]) * k[i];
    const double weight = std::exp(score / std::sqrt(static_cast<double>(d)));
    total += weight;
    const float* v = row(p.v, j, p.shape.n_kv_heads, kv_head);
    for (int64_t i = 0; i < d; ++i) mix[static_cast<size_t>(i)] += weight * v[i];
  }
  for (double& value : mix) value /= total;
  return mix;
}

double worst_error(const Problem& p, const std::vector<float>& out) {
  double worst = 0.0;
  for (int64_t token = 0; token < p.n_tokens; token += token < 20 ? 1 : 37) {
    for (int64_t head = 0; head < p.shape.n_heads; ++head) {
      const std::vector<double> want = reference_row(p, token, head);
      const float* got = out.data() + (token * p.shape.n_heads + head) * p.shape.head_dim;
      for (size_t i = 0; i < want.size(); ++i)
        worst = std::max(worst, std::abs(static_cast<double>(got[i]) - want[i]));
    }
  }
  return worst;
}

// Scores are sums of head_dim products of magnitude up to ~4·4, each rounding relative to 2^-24;
// an error e of a score changes its weight by a factor 1 + e, and values reach ~4.
constexpr double kFloatBound = 24 * 16 * 0x1p-24 * 4 * 2;

TEST(Attention, equals_a_float64_softmax) {
  const Problem p;
  EXPECT_LE(worst_error(p, run(p, {})), kFloatBound);
}

TEST(Attention, a_window_hides_older_keys) {
  Problem p;
  for (const int64_t window : {1, 5, 512, 700}) {
    p.window = window;
    EXPECT_LE(worst_error(p, run(p, {})), kFloatBound) << window;
  }
}

TEST(Attention, bits_do_not_depend_on_chunks_pages_or_threads) {
  for (const int64_t window : {0, 600}) {
    Problem p;
    p.window = window;
    const std::vector<float> want = run(p, {});
    for (const Cut& cut : {Cut{1, 64, 1}, Cut{7, 1, 1}, Cut{7, 100, 3}, Cut{1100, 48, 2},
                           Cut{512, 4096, 4}, Cut{1, 513, 4}, Cut{300, 17, 64}}) {
      EXPECT_EQ(run(p, cut), want) << cut.chunk << " " << cut.page_size << " " << cut.n_threads;
    }
  }
}

TEST(Attention, bits_of_a_bf16_cache_are_those_of_rounded_keys_and_values) {
  Problem p(600);
  const std::vector<float> got = run(p, {.dtype = DType::kBF16});
  for (std::vector<float>* values : {&p.k, &p.v}) {
    for (float& value : *values) value = formats::bf16_to_float(formats::float_to_bf16(value));
  }
  EXPECT_EQ(got, run(p, {}));
}

TEST(Attention, a_token_does_not_see_damage_after_it) {
  Problem p(600);
  const std::vector<float> want = run(p, {});
  const size_t late = 590;
  for (size_t i = late * 2 * 24; i < p.v.size(); ++i) p.v[i] = p.k[i] = std::nanf("");
  const std::vector<float> got = run(p, {});
  const size_t n_before = late * 4 * 24;
  EXPECT_TRUE(std::equal(got.begin(), got.begin() + n_before, want.begin()));
  EXPECT_TRUE(std::isnan(got[n_before]));
}

TEST(Attention, sequences_of_a_batch_do_not_see_each_other) {
  const Problem p(40);
  const std::vector<float> want = run(p, {});
  quant::ThreadTeam team(2);
  const KvLayout layout{.n_layers = 3, .n_kv_heads = 2, .head_dim = 24, .page_size = 16};
  KvCache first(layout);
  KvCache second(layout);
  const size_t key = 2 * 24;
  for (KvCache* cache : {&first, &second}) {
    cache->reserve(40);
    for (int64_t i = 0; i < 40; ++i) {
      // The second sequence holds the same tokens backwards.
      const size_t at = static_cast<size_t>(cache == &first ? i : 39 - i) * key;
      cache->store(2, i, std::span(p.k).subspan(at, key), std::span(p.v).subspan(at, key));
    }
  }
  const int64_t query = 4 * 24;
  std::vector<float> out(p.q.size());
  Attention attention(p.shape);
  const std::vector<BatchSegment> segments{{&second, 0, 3, 5}, {&first, 3, 37, 3}};
  attention.run({.q = {p.q.data(), 40, query, query},
                 .out = {out.data(), 40, query, query},
                 .segments = segments,
                 .cache_layer = 2},
                team);
  const size_t n_second = 3 * 4 * 24;
  EXPECT_TRUE(std::equal(out.begin() + n_second, out.end(), want.begin() + n_second));
  EXPECT_FALSE(std::equal(out.begin(), out.begin() + n_second, want.begin()));
}

TEST(KvCache, pages_stay_in_place_and_empty_ones_are_freed) {
  KvCache cache({.n_layers = 2, .n_kv_heads = 3, .head_dim = 4, .page_size = 8});
  EXPECT_EQ(cache.size_bytes(), 0U);
  cache.reserve(9);
  const uint64_t page_bytes = 2 * 2 * 3 * 8 * 4 * sizeof(float);
  EXPECT_EQ(cache.size_bytes(), 2 * page_bytes);
  const std::byte* first = cache.keys(1, 2, 3).data;
  EXPECT_EQ(cache.keys(1, 2, 3).n_rows, 5);
  cache.reserve(100);
  EXPECT_EQ(cache.keys(1, 2, 3).data, first);
  cache.advance(100);
  cache.truncate(8);
  EXPECT_EQ(cache.length(), 8);
  EXPECT_EQ(cache.size_bytes(), page_bytes);
}

TEST(KvCache, impossible_layouts_are_refused) {
  EXPECT_THROW(KvCache({.n_layers = 1, .n_kv_heads = 1, .head_dim = 8, .page_size = 0}),
               formats::Error);
  EXPECT_THROW(KvCache({.n_layers = 1, .n_kv_heads = 1, .head_dim = 8, .dtype = DType::kI8}),
               formats::Error);
  EXPECT_THROW(KvCache({.n_layers = int64_t{1} << 40,
                        .n_kv_heads = int64_t{1} << 20,
                        .head_dim = 128,
                        .page_size = 64}),
               formats::Error);
}

}  // namespace
}  // namespace llmq::runtime
