// Attention over int8 codes (C8) and of codes (FAQuant), against float64 formulas.

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <random>
#include <span>
#include <vector>

#include "formats/error.h"
#include "runtime/attention/attention.h"

namespace llmq::runtime {
namespace {

using formats::DType;

constexpr AttentionShape kShape{4, 2, 24};
constexpr int64_t kKeyLanes = 48;
constexpr int64_t kQueryLanes = 96;

struct Problem {
  int64_t n_tokens;
  int64_t window = 0;
  std::vector<float> q;  // [n_tokens, 4, 24]
  std::vector<float> k;  // [n_tokens, 2, 24]
  std::vector<float> v;

  explicit Problem(int64_t tokens) : n_tokens(tokens) {
    std::mt19937 random(11);
    std::normal_distribution<float> normal;
    const auto fill = [&](std::vector<float>& values, int64_t n_lanes) {
      values.resize(static_cast<size_t>(n_tokens * n_lanes));
      for (float& value : values) value = normal(random);
    };
    fill(q, kQueryLanes);
    fill(k, kKeyLanes);
    fill(v, kKeyLanes);
  }
};

/// Scales per lane, every third of them with an offset.
KvCodeTable lane_table() {
  KvCodeTable table;
  for (int64_t lane = 0; lane < kKeyLanes; ++lane) {
    table.key_scale.push_back(0.02F + 0.001F * static_cast<float>(lane));
    table.key_offset.push_back(lane % 3 == 0 ? 5.0F : 0.0F);
    table.value_scale.push_back(0.06F - 0.0005F * static_cast<float>(lane));
    table.value_offset.push_back(lane % 3 == 1 ? -9.0F : 0.0F);
  }
  return table;
}

struct HeadScales {
  std::vector<float> q_scale{0.03F, 0.031F, 0.04F, 0.025F};
  std::vector<float> q_offset{0.0F, 3.0F, 0.0F, -2.0F};
  std::vector<float> k_scale{0.03F, 0.035F};
  std::vector<float> k_offset{0.0F, 4.0F};
  std::vector<float> v_scale{0.034F, 0.03F};
  std::vector<float> v_offset{-3.0F, 0.0F};

  [[nodiscard]] FaScales view() const {
    return {q_scale, q_offset, k_scale, k_offset, v_scale, v_offset};
  }
};

struct Cut {
  int64_t chunk = 512;
  int64_t page_size = 64;
  int n_threads = 1;
};

/// Float attention without a table, C8 with one, FAQuant with fa.
std::vector<float> run(const Problem& p, const Cut& cut,
                       const std::shared_ptr<const KvCodeTable>& codes = nullptr,
                       const FaScales* fa = nullptr) {
  quant::ThreadTeam team(cut.n_threads);
  KvCache cache({.n_layers = 1,
                 .n_kv_heads = kShape.n_kv_heads,
                 .head_dim = kShape.head_dim,
                 .page_size = cut.page_size,
                 .dtype = codes == nullptr ? DType::kF32 : DType::kI8,
                 .codes = codes});
  Attention attention(kShape);
  std::vector<float> out(p.q.size(), -1.0F);
  for (int64_t begin = 0; begin < p.n_tokens; begin += cut.chunk) {
    const int64_t n = std::min(cut.chunk, p.n_tokens - begin);
    cache.reserve(begin + n);
    for (int64_t i = begin; i < begin + n; ++i) {
      const auto at = static_cast<size_t>(i * kKeyLanes);
      cache.store(0, i, std::span(p.k).subspan(at, kKeyLanes),
                  std::span(p.v).subspan(at, kKeyLanes));
    }
    const BatchSegment segment{&cache, 0, n, begin};
    attention.run({.q = {p.q.data() + begin * kQueryLanes, n, kQueryLanes, kQueryLanes},
                   .out = {out.data() + begin * kQueryLanes, n, kQueryLanes, kQueryLanes},
                   .segments = {&segment, 1},
                   .window = p.window,
                   .fa = fa},
                  team);
    cache.advance(n);
  }
  return out;
}

std::shared_ptr<const KvCodeTable> fa_table(const HeadScales& scales) {
  KvCodeTable table;
  table.add_layer(scales.view(), kShape.head_dim);
  return std::make_shared<const KvCodeTable>(table);
}

int code_of(float x, float scale, float offset) {
  return static_cast<int>(std::clamp(std::nearbyint(x / scale + offset), -128.0F, 127.0F) - offset);
}

/// Replaces values by those of their codes.
void dequantize(std::vector<float>& values, std::span<const float> scale,
                std::span<const float> offset) {
  for (size_t i = 0; i < values.size(); ++i) {
    const size_t lane = i % scale.size();
    values[i] = static_cast<float>(code_of(values[i], scale[lane], offset[lane])) * scale[lane];
  }
}

const std::vector<Cut> kCuts{{1, 64, 1}, {7, 1, 1}, {300, 100, 3}, {1100, 48, 2}, {512, 4096, 4}};

/// How far rounding queries and softmax weights to integers may move what a token gets from exact
/// attention over the same codes.
double c8_bound(const Problem& exact, const KvCodeTable& table, int64_t token) {
  double largest_step = 0.0;
  for (int64_t i = 0; i < kQueryLanes; ++i) {
    const int64_t key_lane = i / kShape.head_dim / 2 * kShape.head_dim + i % kShape.head_dim;
    const double scaled = std::fabs(exact.q[static_cast<size_t>(token * kQueryLanes + i)]) *
                          table.key_scale[static_cast<size_t>(key_lane)];
    largest_step = std::max(largest_step, scaled / 32767);
  }
  double most_codes = 0.0;  // sum of |code - offset| of a key
  for (int64_t head = 0; head < 2 * exact.n_tokens; ++head) {
    double codes = 0.0;
    for (int64_t lane = 0; lane < kShape.head_dim; ++lane) {
      const int64_t at = head * kShape.head_dim + lane;
      codes += std::fabs(exact.k[static_cast<size_t>(at)] /
                         table.key_scale[static_cast<size_t>(at % kKeyLanes)]);
    }
    most_codes = std::max(most_codes, codes);
  }
  double largest_value = 0.0;
  for (const float value : exact.v)
    largest_value = std::max(largest_value, std::fabs(double{value}));
  const double score_error = largest_step / 2 * most_codes / std::sqrt(24.0);
  // The error of a weight's code is that of its rounding less the one carried to it: two uniform
  // halves of variance 1/12. Six deviations of the sum over a block.
  const double weight_error = 6 * std::sqrt(double{Attention::kKeysPerBlock} / 6) / 32767;
  return largest_value * (2 * score_error + weight_error);
}

TEST(QuantizedAttention, c8_is_attention_over_dequantized_keys_and_values) {
  for (const int64_t window : {0, 600}) {
    Problem p(1100);
    p.window = window;
    const auto table = std::make_shared<const KvCodeTable>(lane_table());
    const std::vector<float> got = run(p, {}, table);
    for (const Cut& cut : kCuts) EXPECT_EQ(run(p, cut, table), got) << cut.chunk;
    Problem exact = p;
    dequantize(exact.k, table->key_scale, table->key_offset);
    dequantize(exact.v, table->value_scale, table->value_offset);
    const std::vector<float> want = run(exact, {});
    const std::vector<float> float_cache = run(p, {});
    double error = 0.0;
    double distance = 0.0;
    for (int64_t token = 0; token < p.n_tokens; ++token) {
      const double bound = c8_bound(exact, *table, token);
      for (int64_t i = token * kQueryLanes; i < (token + 1) * kQueryLanes; ++i) {
        const auto at = static_cast<size_t>(i);
        EXPECT_NEAR(got[at], want[at], bound) << "token " << token;
        error += std::pow(double{got[at]} - want[at], 2);
        distance += std::pow(double{float_cache[at]} - want[at], 2);
      }
    }
    // What integers add is nothing beside what the cache's codes cost: a hundredth of the noise.
    EXPECT_LT(error, 1e-4 * distance);
  }
}

/// One head of FAQuant by its formula: integer sums, everything else in float64.
std::vector<double> formula_row(const Problem& p, const HeadScales& s, int64_t token,
                                int64_t head) {
  const auto h = static_cast<size_t>(head);
  const size_t kv = h / 2;
  const auto code = [&](const std::vector<float>& m, size_t row, size_t i, float scale,
                        float offset) { return code_of(m[row * 24 + i], scale, offset); };
  const auto t = static_cast<size_t>(token);
  const double factor = static_cast<double>(s.q_scale[h]) * s.k_scale[kv] / std::sqrt(24.0);
  std::vector<double> mix(24);
  double sum = 0.0;
  double max = -1e300;
  for (size_t first = 0; first <= t; first += Attention::kKeysPerBlock) {
    const size_t end = std::min<size_t>(t + 1, first + Attention::kKeysPerBlock);
    std::vector<double> scores;
    for (size_t j = first; j < end; ++j) {
      int64_t dot = 0;
      for (size_t i = 0; i < 24; ++i) {
        dot += int64_t{code(p.q, t * 4 + h, i, s.q_scale[h], s.q_offset[h])} *
               code(p.k, j * 2 + kv, i, s.k_scale[kv], s.k_offset[kv]);
      }
      scores.push_back(static_cast<double>(dot) * factor);
    }
    const double block_max = *std::max_element(scores.begin(), scores.end());
    std::vector<int64_t> sums(24);
    double block_sum = 0.0;
    for (size_t j = first; j < end; ++j) {
      const double weight = std::exp(scores[j - first] - block_max);
      block_sum += weight;
      const auto p_code = static_cast<int64_t>(std::nearbyint(weight * 127));
      for (size_t i = 0; i < 24; ++i)
        sums[i] += p_code * code(p.v, j * 2 + kv, i, s.v_scale[kv], s.v_offset[kv]);
    }
    const double new_max = std::max(max, block_max);
    const double keep = std::exp(max - new_max);
    const double add = std::exp(block_max - new_max);
    sum = sum * keep + block_sum * add;
    for (size_t i = 0; i < 24; ++i) {
      mix[i] = mix[i] * keep + add * static_cast<double>(sums[i]) * s.v_scale[kv] / 127.0;
    }
    max = new_max;
  }
  for (double& value : mix) value /= sum;
  return mix;
}

TEST(QuantizedAttention, faquant_is_its_formula_up_to_rare_halves) {
  const Problem p(1100);
  const HeadScales scales;
  const FaScales view = scales.view();
  const std::vector<float> got = run(p, {}, fa_table(scales), &view);
  // The float32 weight errs relatively by a few 2^-24 times the score's size (up to ~16); where it
  // lies that near to a half, its code is off by one: a part 1/127 of a value of one key. Such keys
  // are fewer than 1 in 10^4, so that at most one is to be expected in a row of 1100.
  const double one_code = 255 * 0.034 / 127;
  const double smooth = 64 * 16 * 0x1p-24 * 4;
  int n_off = 0;
  int n_values = 0;
  for (int64_t token = 0; token < p.n_tokens; token += 29) {
    for (int64_t head = 0; head < 4; ++head) {
      const std::vector<double> want = formula_row(p, scales, token, head);
      for (size_t i = 0; i < want.size(); ++i) {
        const double error = std::abs(
            want[i] - static_cast<double>(got[static_cast<size_t>(token * 4 + head) * 24 + i]));
        EXPECT_LE(error, one_code);
        n_off += error > smooth ? 1 : 0;
        ++n_values;
      }
    }
  }
  EXPECT_LE(n_off, n_values / 50);
}

TEST(QuantizedAttention, faquant_bits_do_not_depend_on_how_the_work_is_cut) {
  const HeadScales scales;
  const FaScales view = scales.view();
  for (const int64_t window : {0, 600}) {
    Problem p(1100);
    p.window = window;
    const std::vector<float> want = run(p, {}, fa_table(scales), &view);
    for (const Cut& cut : kCuts) EXPECT_EQ(run(p, cut, fa_table(scales), &view), want) << cut.chunk;
  }
}

/// Attention of one query over 100,000 keys of equal score.
std::vector<float> flat_row(const FaScales& fa, const std::shared_ptr<const KvCodeTable>& table,
                            int64_t n) {
  KvCache cache(
      {.n_layers = 1, .n_kv_heads = 2, .head_dim = 24, .dtype = DType::kI8, .codes = table});
  cache.reserve(n);
  const std::vector<float> key(kKeyLanes, 1.0F);
  const std::vector<float> value(kKeyLanes, 3.0F);
  for (int64_t i = 0; i < n; ++i) cache.store(0, i, key, value);
  cache.advance(n - 1);
  const std::vector<float> q(kQueryLanes, 1.0F);
  std::vector<float> out(kQueryLanes);
  const BatchSegment segment{&cache, 0, 1, n - 1};
  quant::ThreadTeam team(2);
  Attention attention(kShape);
  attention.run({.q = {q.data(), 1, kQueryLanes, kQueryLanes},
                 .out = {out.data(), 1, kQueryLanes, kQueryLanes},
                 .segments = {&segment, 1},
                 .fa = &fa},
                team);
  return out;
}

TEST(QuantizedAttention, faquant_keeps_the_weight_of_long_flat_rows) {
  const HeadScales scales;
  const std::vector<float> out = flat_row(scales.view(), fa_table(scales), 100'000);
  for (size_t lane = 0; lane < out.size(); ++lane) {
    const size_t kv = lane / 48;
    const float stored =
        static_cast<float>(code_of(3.0F, scales.v_scale[kv], scales.v_offset[kv])) *
        scales.v_scale[kv];
    // 196 blocks are merged, each with a few roundings.
    EXPECT_NEAR(out[lane], stored, stored * 196 * 4 * 0x1p-24);
  }
}

/// Float attention of one token and head in float64, with what bounds of its error need.
struct ExactRow {
  std::vector<double> mixed = std::vector<double>(24);
  std::vector<double> mixed_magnitudes = std::vector<double>(24);   // Σ p·|v|
  std::vector<double> summed_magnitudes = std::vector<double>(24);  // Σ |v|
  double largest_weight = 0.0;
  double query_sum = 0.0;        // Σ |q|
  double largest_key_sum = 0.0;  // max over keys of Σ |k|
};

ExactRow exact_row(const Problem& p, int64_t token, int64_t head) {
  ExactRow row;
  const auto t = static_cast<size_t>(token);
  const float* q = p.q.data() + (t * 4 + static_cast<size_t>(head)) * 24;
  for (size_t i = 0; i < 24; ++i) row.query_sum += std::abs(static_cast<double>(q[i]));
  std::vector<double> weights;
  double sum = 0.0;
  for (size_t j = 0; j <= t; ++j) {
    const float* k = p.k.data() + (j * 2 + static_cast<size_t>(head / 2)) * 24;
    double dot = 0.0;
    double key_sum = 0.0;
    for (size_t i = 0; i < 24; ++i) {
      dot += static_cast<double>(q[i]) * k[i];
      key_sum += std::abs(static_cast<double>(k[i]));
    }
    row.largest_key_sum = std::max(row.largest_key_sum, key_sum);
    weights.push_back(std::exp(dot / std::sqrt(24.0)));
    sum += weights.back();
  }
  for (size_t j = 0; j <= t; ++j) {
    const double weight = weights[j] / sum;
    row.largest_weight = std::max(row.largest_weight, weight);
    for (size_t i = 0; i < 24; ++i) {
      const double v = p.v[(j * 2 + static_cast<size_t>(head / 2)) * 24 + i];
      row.mixed[i] += weight * v;
      row.mixed_magnitudes[i] += weight * std::abs(v);
      row.summed_magnitudes[i] += std::abs(v);
    }
  }
  return row;
}

// A step that holds every one of the normal values: codes are off by half a step at most. Scores
// that are off by ε at most change no weight by a factor outside exp(±2ε), since numerator and
// denominator change by exp(±ε).
constexpr float kStep = 0.05F;

TEST(QuantizedAttention, c8_is_as_near_to_float_attention_as_its_steps_promise) {
  const Problem p(300);
  KvCodeTable table;
  table.key_scale = table.value_scale = std::vector<float>(kKeyLanes, kStep);
  table.key_offset = table.value_offset = std::vector<float>(kKeyLanes, 0.0F);
  const std::vector<float> got = run(p, {}, std::make_shared<const KvCodeTable>(table));
  double worst = 0.0;
  for (int64_t token = 0; token < p.n_tokens; token += 7) {
    for (int64_t head = 0; head < 4; ++head) {
      const ExactRow exact = exact_row(p, token, head);
      const double epsilon = exact.query_sum * kStep / 2 / std::sqrt(24.0);
      for (size_t i = 0; i < 24; ++i) {
        const double error =
            std::abs(exact.mixed[i] - got[static_cast<size_t>(token * 4 + head) * 24 + i]);
        const double bound = std::expm1(2 * epsilon) * exact.mixed_magnitudes[i] + kStep / 2;
        EXPECT_LE(error, bound + 1e-5);
        worst = std::max(worst, error / bound);
      }
    }
  }
  EXPECT_GT(worst, 0.1);  // the bound is of the error's size
}

TEST(QuantizedAttention, faquant_is_as_near_to_float_attention_as_its_steps_promise) {
  const Problem p(300);  // one block of keys
  HeadScales scales;
  for (auto* scale : {&scales.q_scale, &scales.k_scale, &scales.v_scale})
    std::fill(scale->begin(), scale->end(), kStep);
  for (auto* offset : {&scales.q_offset, &scales.k_offset, &scales.v_offset})
    std::fill(offset->begin(), offset->end(), 0.0F);
  const FaScales view = scales.view();
  const std::vector<float> got = run(p, {}, fa_table(scales), &view);
  double worst = 0.0;
  for (int64_t token = 0; token < p.n_tokens; token += 7) {
    for (int64_t head = 0; head < 4; ++head) {
      const ExactRow exact = exact_row(p, token, head);
      const double epsilon =
          (exact.query_sum + exact.largest_key_sum + 24 * kStep / 2) * kStep / 2 / std::sqrt(24.0);
      for (size_t i = 0; i < 24; ++i) {
        const double error =
            std::abs(exact.mixed[i] - got[static_cast<size_t>(token * 4 + head) * 24 + i]);
        // A weight relative to the largest is off by half of 1/127 beside.
        const double values =
            exact.summed_magnitudes[i] + static_cast<double>(token + 1) * kStep / 2;
        const double bound = std::expm1(2 * epsilon) * exact.mixed_magnitudes[i] + kStep / 2 +
                             0.5 / 127 * std::exp(2 * epsilon) * exact.largest_weight * values;
        EXPECT_LE(error, bound + 1e-5);
        worst = std::max(worst, error / bound);
      }
    }
  }
  EXPECT_GT(worst, 0.05);
}

TEST(QuantizedAttention, an_int8_cache_takes_a_quarter_of_the_memory) {
  const auto table = std::make_shared<const KvCodeTable>(lane_table());
  const KvLayout codes{
      .n_layers = 1, .n_kv_heads = 2, .head_dim = 24, .dtype = DType::kI8, .codes = table};
  KvLayout floats = codes;
  floats.dtype = DType::kF32;
  EXPECT_EQ(codes.page_size_bytes() * 4, floats.page_size_bytes());
  KvLayout wrong = codes;
  wrong.n_layers = 2;
  EXPECT_THROW(KvCache{wrong}, formats::Error);
}

}  // namespace
}  // namespace llmq::runtime
