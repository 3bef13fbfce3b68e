#include "quant/kv_scales.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "formats/error.h"
#include "quant/affine.h"
#include "quant/fa_scales.h"
#include "quant/lane_codes.h"

namespace llmq::quant {
namespace {

using formats::DType;

constexpr KvHeads kHeads{.n_kv_heads = 2, .head_dim = 10, .rotary_dim = 8};
constexpr int64_t kLanes = 20;

std::vector<float> normal_values(size_t n, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> values(n);
  for (float& value : values) value = normal(random);
  return values;
}

ConstMatrixF32 rows_of(const std::vector<float>& values, int64_t n_cols) {
  return {values.data(), static_cast<int64_t>(values.size()) / n_cols, n_cols, n_cols};
}

TEST(KvScales, bounds_are_lengths_of_pairs_and_magnitudes_of_single_lanes) {
  const std::vector<float> k = normal_values(7 * kLanes, 1);
  const std::vector<float> v = normal_values(7 * kLanes, 2);
  KvObserver whole(kHeads);
  whole.observe({rows_of(k, kLanes), rows_of(v, kLanes)});
  const KvStatistics got = whole.statistics();
  EXPECT_EQ(got.n_rows, 7);
  for (int64_t lane = 0; lane < kLanes; ++lane) {
    const int64_t in_head = lane % 10;
    double key = 0.0;
    float value = 0.0F;
    for (int64_t row = 0; row < 7; ++row) {
      const auto at = [&](int64_t l) {
        return static_cast<double>(k[static_cast<size_t>(row * kLanes + l)]);
      };
      const int64_t partner = in_head < 4 ? lane + 4 : lane - 4;
      const double other = in_head < 8 ? at(partner) : 0.0;
      key = std::max(key, std::sqrt(at(lane) * at(lane) + other * other));
      value = std::max(value, std::abs(v[static_cast<size_t>(row * kLanes + lane)]));
    }
    const auto at = static_cast<size_t>(lane);
    if (in_head < 8) {
      EXPECT_FLOAT_EQ(got.key_max[at], static_cast<float>(key)) << lane;
      EXPECT_EQ(got.key_min[at], -got.key_max[at]) << lane;
    } else {
      EXPECT_FLOAT_EQ(std::max(-got.key_min[at], got.key_max[at]), static_cast<float>(key)) << lane;
    }
    EXPECT_EQ(got.value_bound[static_cast<size_t>(lane)], value) << lane;
  }
  KvObserver pieces(kHeads);
  for (int64_t row = 6; row >= 0; --row) {
    pieces.observe({{k.data() + row * kLanes, 1, kLanes, kLanes},
                    {v.data() + row * kLanes, 1, kLanes, kLanes}});
  }
  EXPECT_EQ(pieces.statistics().key_min, got.key_min);
  EXPECT_EQ(pieces.statistics().key_max, got.key_max);
  EXPECT_EQ(pieces.statistics().value_bound, got.value_bound);
}

// At far positions a pair stands at any angle.
TEST(KvScales, no_rotation_of_observed_keys_clips) {
  const std::vector<float> k = normal_values(40 * kLanes, 3);
  KvObserver observer(kHeads);
  observer.observe({rows_of(k, kLanes), rows_of(k, kLanes)});
  for (const DType dtype : {DType::kF32, DType::kF16, DType::kBF16}) {
    const std::vector<float> scale = kv_cache_scales(observer.statistics(), dtype).key;
    double largest = 0.0;
    for (int angle = 0; angle < 3600; ++angle) {
      const double turn = angle * 1000.1;
      for (size_t row = 0; row < 40; ++row) {
        for (const size_t low : {0U, 1U, 2U, 3U, 10U, 11U, 12U, 13U}) {
          const double a = k[row * kLanes + low];
          const double b = k[row * kLanes + low + 4];
          EXPECT_EQ(scale[low], scale[low + 4]);
          const auto turned = static_cast<float>(a * std::cos(turn) - b * std::sin(turn));
          largest = std::max<double>(largest, std::nearbyint(std::abs(turned / scale[low])));
        }
      }
    }
    EXPECT_EQ(largest, 127.0);  // reached, so that no code is wasted, and never passed
  }
}

// A pair that cannot make a full turn within the model's positions reaches an arc, whose ends and
// middle are tried here in small steps; none of its codes is wasted.
TEST(KvScales, slow_pairs_have_the_codes_of_the_arc_that_they_can_reach) {
  constexpr int64_t kPositions = 1000;
  const std::vector<float> inv_freq{1.0F, 0.01F, 0.003F, 0.0001F};
  KvHeads heads = kHeads;
  heads.inv_freq = inv_freq;
  heads.max_positions = kPositions;
  const std::vector<float> start = normal_values(40 * kLanes, 7);
  std::vector<int64_t> positions(40);
  for (size_t row = 0; row < 40; ++row) positions[row] = static_cast<int64_t>(row * 3);
  const auto turned = [&](size_t row, size_t low, size_t pair, double position) {
    const double a = start[row * kLanes + low];
    const double b = start[row * kLanes + low + 4];
    const double angle = position * static_cast<double>(inv_freq[pair]);
    return std::pair(static_cast<float>(a * std::cos(angle) - b * std::sin(angle)),
                     static_cast<float>(b * std::cos(angle) + a * std::sin(angle)));
  };
  std::vector<float> k = start;
  for (size_t row = 0; row < 40; ++row) {
    for (const size_t low : {0U, 1U, 2U, 3U, 10U, 11U, 12U, 13U}) {
      const auto [a, b] = turned(row, low, low % 10, static_cast<double>(positions[row]));
      k[row * kLanes + low] = a;
      k[row * kLanes + low + 4] = b;
    }
  }
  KvObserver observer(heads);
  observer.observe({rows_of(k, kLanes), rows_of(k, kLanes), positions});
  const KvCacheScales scales = kv_cache_scales(observer.statistics(), DType::kF16);
  for (size_t low = 0; low < 14; low = low == 3 ? 10 : low + 1) {
    const size_t pair = low % 10;
    std::array<float, 2> least{};
    std::array<float, 2> most{};
    for (size_t row = 0; row < 40; ++row) {
      for (int64_t position = 0; position <= kPositions; position += 2) {
        const auto [a, b] = turned(row, low, pair, static_cast<double>(position));
        for (const auto& [lane, value] : {std::pair(0U, a), std::pair(1U, b)}) {
          const size_t at = low + 4 * lane;
          const float code = std::nearbyint(value / scales.key[at] + scales.key_offset[at]);
          least[lane] = std::min(least[lane], code);
          most[lane] = std::max(most[lane], code);
        }
      }
    }
    for (const size_t lane : {0U, 1U}) {
      EXPECT_GE(least[lane], -128.0F) << low;
      EXPECT_LE(most[lane], 127.0F) << low;
      // Both ends are reached but for one step that rounding the scale to 16 bits may cost.
      EXPECT_GE(most[lane] - least[lane], 252.0F) << low;
    }
    EXPECT_EQ(scales.key[low] == scales.key[low + 4] && scales.key_offset[low] == 0.0F,
              pair == 0 || pair == 1)
        << low;
  }
}

TEST(KvScales, a_scale_is_a_value_of_its_dtype_that_does_not_clip_its_bound) {
  std::mt19937 random(5);
  std::uniform_real_distribution<float> exponent(-24.0F, 10.0F);
  for (const DType dtype : {DType::kF32, DType::kF16, DType::kBF16}) {
    for (int i = 0; i < 2000; ++i) {
      const float bound = std::exp2(exponent(random));
      const float scale = symmetric_scale(bound, dtype);
      EXPECT_EQ(round_scale_to(scale, dtype), scale);
      EXPECT_LE(std::nearbyint(bound / scale), 127.0F) << bound;
    }
    EXPECT_EQ(symmetric_scale(0.0F, dtype), kScaleFloor);
  }
}

TEST(KvScales, what_is_not_finite_is_named_and_changes_nothing) {
  KvObserver observer(kHeads);
  EXPECT_THROW(kv_cache_scales(observer.statistics(), DType::kF16), formats::Error);
  std::vector<float> k(kLanes, 1.0F);
  const std::vector<float> v(kLanes, 1.0F);
  k[13] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_THROW(observer.observe({rows_of(k, kLanes), rows_of(v, kLanes)}), formats::Error);
  EXPECT_THROW(observer.observe({rows_of(v, kLanes), rows_of(k, kLanes)}), formats::Error);
  EXPECT_EQ(observer.statistics().n_rows, 0);
  EXPECT_EQ(observer.statistics().value_bound, std::vector<float>(kLanes, 0.0F));
}

TEST(FaScales, the_window_is_the_narrowest_of_the_sorted_values) {
  std::vector<float> values = normal_values(5000, 6);
  std::vector<float> sorted = values;
  std::sort(sorted.begin(), sorted.end());
  const int64_t left_out = 15;  // 5000 · 3000 / 10^6
  HeadWindow want{sorted[0], sorted[4999 - left_out]};
  for (size_t i = 0; i <= left_out; ++i) {
    const HeadWindow window{sorted[i], sorted[i + 4999 - left_out]};
    if (window.max - window.min < want.max - want.min) want = window;
  }
  const HeadWindow got = smallest_window(values, 3000);
  EXPECT_EQ(got.min, want.min);
  EXPECT_EQ(got.max, want.max);
  const HeadWindow all = smallest_window(values, 0);
  EXPECT_EQ(all.min, sorted.front());
  EXPECT_EQ(all.max, sorted.back());
  std::vector<float> one{-3.0F};
  EXPECT_EQ(smallest_window(one, 999999).max, -3.0F);
}

TEST(FaScales, an_outlier_of_q_is_left_out_and_one_of_v_is_not) {
  constexpr int64_t kRows = 1250;  // 10000 values a head: q and k may leave out one
  std::vector<float> q(kRows * 16);
  for (size_t i = 0; i < q.size(); ++i) q[i] = i % 2 == 0 ? 1.0F : -1.0F;
  q[8] = 1000.0F;  // head 1
  const std::vector<float> k(kRows * 8, 2.0F);
  std::vector<float> v(kRows * 8, 0.5F);
  v[77] = -64.0F;
  for (const int n_threads : {1, 3}) {
    ThreadTeam team(n_threads);
    FaObserver observer(2, 1, 8);
    observer.observe({rows_of(q, 16), rows_of(k, 8), rows_of(v, 8)}, team);
    const FaHeadScales got = fa_head_scales(observer.statistics(), DType::kF32);
    EXPECT_EQ(got.q, (std::vector<float>{1.0F / 127, 1.0F / 127}));
    EXPECT_EQ(got.k, std::vector<float>{2.0F / 127});
    EXPECT_EQ(got.v, std::vector<float>{64.0F / 127});
    const std::vector<float> later(16, 3.0F);
    const ConstMatrixF32 head{later.data(), 1, 8, 8};
    observer.observe({rows_of(later, 16), head, head}, team);
    EXPECT_EQ(observer.statistics().q[0].min, -1.0F);
    EXPECT_EQ(observer.statistics().q[0].max, 3.0F);
    EXPECT_EQ(observer.statistics().n_rows, kRows + 1);
  }
}

TEST(LaneCodes, codes_round_to_nearest_even_and_stay_within_a_byte) {
  const std::vector<float> x{0.5F,   1.5F, -2.5F,  1e30F,
                             -1e30F, 3.0F, 127.5F, std::numeric_limits<float>::quiet_NaN()};
  const std::vector<float> ones(8, 1.0F);
  const std::vector<float> zeros(8, 0.0F);
  std::vector<int8_t> codes(8);
  encode_lanes(x, {ones, zeros}, codes);
  EXPECT_EQ(codes, (std::vector<int8_t>{0, 2, -2, 127, -128, 3, 127, -128}));
  const std::vector<float> scale(8, 0.5F);
  const std::vector<float> offset(8, -7.0F);
  encode_lanes(x, {scale, offset}, codes);
  EXPECT_EQ(codes[5], -1);
  std::vector<float> y(8);
  decode_lanes(codes, {scale, offset}, y);
  EXPECT_EQ(y[5], 3.0F);
  shift_lanes(codes, offset, y);
  EXPECT_EQ(y[5], 6.0F);
  std::vector<float> weights{0.0F, 1.0F, 0.5F, 1.5F / 127};
  encode_weights(weights);
  EXPECT_EQ(weights, (std::vector<float>{0.0F, 127.0F, 64.0F, 2.0F}));
}

}  // namespace
}  // namespace llmq::quant
