#pragma once

// The products over a policy `Lines`, included by avx2.cpp and avx512vnni.cpp and compiled once for
// each with internal linkage. Lines has
//   kLanes: 32-bit sums in a register;
//   Codes load(const int8_t*): 2·kLanes codes widened to 16 bits;
//   Codes load(const int8_t*, int64_t count): the first `count` pairs of them, zeros behind;
//   Codes pair(const int16_t*): a pair of numbers for all;
//   Sums add(Sums, Codes, Codes): plus the products of pairs;
//   zero, load_sums, store_sums, the latter two also with a count;
//   Floats of as many lanes as Sums: zero_floats, all, floats_of(Sums − int32), multiply;
//   Sums weight_codes(weights, steps, carries, left): see WeightCodesTask; store_codes.

#include <cstddef>
#include <cstdint>

#include "quant/kernels/attention/code_sums.h"

namespace llmq::quant {
namespace {

// The codes of the register of keys `vec`: a register holds a group of keys or a half of one.
template <class Lines>
inline const int8_t* key_line(const KeySumsTask& task, int64_t vec) {
  const int64_t key = vec * Lines::kLanes;
  return task.keys + key / kKeysPerGroup * task.n_lane_pairs * 2 * kKeysPerGroup +
         2 * (key % kKeysPerGroup);
}

// kRows queries by kVecs registers of keys.
template <class Lines, int kRows, int kVecs>
inline void key_block(const KeySumsTask& task, int64_t row, int64_t vec) {
  using Sums = typename Lines::Sums;
  const int16_t* queries = task.queries + row * task.query_stride;
  // As far into what follows as these codes are into theirs.
  const int64_t ahead = task.next - task.keys;
  const int8_t* codes[kVecs];
  Sums sums[kRows][kVecs];
#pragma GCC unroll 2
  for (int v = 0; v < kVecs; ++v) {
    codes[v] = key_line<Lines>(task, vec + v);
#pragma GCC unroll 12
    for (int r = 0; r < kRows; ++r) sums[r][v] = Lines::zero();
  }
  for (int64_t pair = 0; pair < task.n_lane_pairs; ++pair) {
    const int64_t at = pair * 2 * kKeysPerGroup;
    typename Lines::Codes lanes[kVecs];
#pragma GCC unroll 2
    for (int v = 0; v < kVecs; ++v) {
      Lines::ask(codes[v] + (at + ahead));
      lanes[v] = Lines::load(codes[v] + at);
    }
#pragma GCC unroll 12
    for (int r = 0; r < kRows; ++r) {
      const auto both = Lines::pair(queries + r * task.query_stride + 2 * pair);
#pragma GCC unroll 2
      for (int v = 0; v < kVecs; ++v) sums[r][v] = Lines::add(sums[r][v], lanes[v], both);
    }
  }
  int32_t* out = task.sums + row * task.sums_stride + vec * Lines::kLanes;
#pragma GCC unroll 12
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 2
    for (int v = 0; v < kVecs; ++v)
      Lines::store_sums(out + r * task.sums_stride + v * Lines::kLanes, sums[r][v]);
  }
}

template <class Lines, int kRows>
inline void key_rows(const KeySumsTask& task, int64_t row) {
  const int64_t n_vecs = task.n_groups * (kKeysPerGroup / Lines::kLanes);
  int64_t vec = 0;
  for (; vec + 2 <= n_vecs; vec += 2) key_block<Lines, kRows, 2>(task, row, vec);
  if (vec < n_vecs) key_block<Lines, kRows, 1>(task, row, vec);
}

template <class Lines, int kRows>
inline void key_blocks(const KeySumsTask& task, int64_t row) {
  if constexpr (kRows > 1) {
    if (task.m - row < kRows) return key_blocks<Lines, kRows - 1>(task, row);
  }
  for (; row + kRows <= task.m; row += kRows) key_rows<Lines, kRows>(task, row);
  if constexpr (kRows > 1) {
    if (row < task.m) key_blocks<Lines, kRows - 1>(task, row);
  }
}

template <class Lines>
void key_sums(const KeySumsTask& task) {
  key_blocks<Lines, Lines::kKeyRows>(task, 0);
}

// kRows rows of weights by kVecs registers of lanes, which stay in registers over all positions.
template <class Lines, int kRows, int kVecs>
inline void value_block(const ValueSumsTask& task, int64_t row, int64_t lane) {
  using Sums = typename Lines::Sums;
  const int16_t* weights = task.weights + row * task.weight_stride;
  const int8_t* codes = task.values + 2 * lane;
  const int64_t ahead = task.next - task.values;
  int32_t* out = task.sums + row * task.sums_stride + lane;
  Sums sums[kRows][kVecs];
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < kVecs; ++v)
      sums[r][v] = Lines::load_sums(out + r * task.sums_stride + v * Lines::kLanes);
  }
  for (int64_t pair = 0; pair < task.n_position_pairs; ++pair) {
#pragma GCC unroll 4
    for (int v = 0; v < kVecs; ++v) {
      const auto lanes = Lines::load(codes + v * 2 * Lines::kLanes);
#pragma GCC unroll 8
      for (int r = 0; r < kRows; ++r)
        sums[r][v] =
            Lines::add(sums[r][v], lanes, Lines::pair(weights + r * task.weight_stride + 2 * pair));
    }
    for (int64_t line = 0; line < kVecs * 2 * Lines::kLanes; line += 64)
      Lines::ask(codes + (line + ahead));
    codes += 4 * task.n_lane_pairs;
  }
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < kVecs; ++v)
      Lines::store_sums(out + r * task.sums_stride + v * Lines::kLanes, sums[r][v]);
  }
}

// Lanes behind the last whole register.
template <class Lines>
inline void value_tail(const ValueSumsTask& task, int64_t row, int64_t lane) {
  const int64_t count = 2 * task.n_lane_pairs - lane;
  const int16_t* weights = task.weights + row * task.weight_stride;
  const int8_t* codes = task.values + 2 * lane;
  int32_t* out = task.sums + row * task.sums_stride + lane;
  auto sums = Lines::load_sums(out, count);
  for (int64_t pair = 0; pair < task.n_position_pairs; ++pair) {
    sums = Lines::add(sums, Lines::load(codes, count), Lines::pair(weights + 2 * pair));
    codes += 4 * task.n_lane_pairs;
  }
  Lines::store_sums(out, sums, count);
}

template <class Lines, int kRows>
inline void value_rows(const ValueSumsTask& task, int64_t row) {
  constexpr int kVecs = Lines::kValueVecs;
  const int64_t n_lanes = 2 * task.n_lane_pairs;
  int64_t lane = 0;
  for (; lane + kVecs * Lines::kLanes <= n_lanes; lane += kVecs * Lines::kLanes)
    value_block<Lines, kRows, kVecs>(task, row, lane);
  for (; lane + Lines::kLanes <= n_lanes; lane += Lines::kLanes)
    value_block<Lines, kRows, 1>(task, row, lane);
  if (lane == n_lanes) return;
  for (int r = 0; r < kRows; ++r) value_tail<Lines>(task, row + r, lane);
}

template <class Lines, int kRows>
inline void value_blocks(const ValueSumsTask& task, int64_t row) {
  for (; row + kRows <= task.m; row += kRows) value_rows<Lines, kRows>(task, row);
  if constexpr (kRows > 1) {
    if (row < task.m) value_blocks<Lines, kRows - 1>(task, row);
  }
}

template <class Lines>
void value_sums(const ValueSumsTask& task) {
  value_blocks<Lines, Lines::kValueRows>(task, 0);
}

template <class Lines>
void scores(const ScoresTask& task) {
  for (int64_t row = 0; row < task.m; ++row) {
    const int32_t* sums = task.sums + row * task.sums_stride;
    float* to = task.scores + row * task.scores_stride;
    const auto factor = Lines::all(task.factor[row]);
    int64_t i = 0;
    for (; i + Lines::kLanes <= task.n; i += Lines::kLanes) {
      const auto differences = Lines::floats_of(Lines::load_sums(sums + i), task.offset[row]);
      Lines::store_floats(to + i, Lines::multiply(differences, factor));
    }
    for (; i < task.n; ++i)
      to[i] = static_cast<float>(sums[i] - task.offset[row]) * task.factor[row];
  }
}

// kRows rows side by side, since what is left over makes a chain of each.
template <class Lines, int kRows>
inline void weight_rows(const WeightCodesTask& task, int64_t row) {
  constexpr int kParts = kWeightLanes / Lines::kLanes;
  const auto steps = Lines::all(task.steps);
  typename Lines::Floats left[kRows][kParts];
  typename Lines::Sums total[kRows];
  for (int r = 0; r < kRows; ++r) {
    total[r] = Lines::zero();
    for (int part = 0; part < kParts; ++part) left[r][part] = Lines::all(0.0F);
  }
  const auto round = [&](int r, const float* weights, int16_t* codes)
      __attribute__((always_inline)) {
#pragma GCC unroll 2
    for (int part = 0; part < kParts; ++part) {
      const auto sums = Lines::weight_codes(Lines::load_floats(weights + part * Lines::kLanes),
                                            steps, task.carries, left[r][part]);
      Lines::store_codes(codes + part * Lines::kLanes, sums);
      total[r] = Lines::plus(total[r], sums);
    }
  };
  const float* weights = task.weights + row * task.weights_stride;
  int16_t* codes = task.codes + row * task.codes_stride;
  const int64_t n_whole = task.n / kWeightLanes * kWeightLanes;
  for (int64_t i = 0; i < n_whole; i += kWeightLanes) {
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r)
      round(r, weights + r * task.weights_stride + i, codes + r * task.codes_stride + i);
  }
  for (int r = 0; r < kRows; ++r) {
    float last[kWeightLanes] = {};
    int16_t last_codes[kWeightLanes];
    const auto count = static_cast<size_t>(task.n - n_whole);
    __builtin_memcpy(last, weights + r * task.weights_stride + n_whole, count * sizeof(float));
    round(r, last, last_codes);
    __builtin_memcpy(codes + r * task.codes_stride + n_whole, last_codes, count * sizeof(int16_t));
    int32_t lanes[Lines::kLanes];
    Lines::store_sums(lanes, total[r]);
    int32_t sum = 0;
    for (const int32_t lane : lanes) sum += lane;
    task.sums[row + r] = sum;
  }
}

template <class Lines, int kRows>
inline void weight_blocks(const WeightCodesTask& task, int64_t row) {
  for (; row + kRows <= task.m; row += kRows) weight_rows<Lines, kRows>(task, row);
  if constexpr (kRows > 1) {
    if (row < task.m) weight_blocks<Lines, kRows - 1>(task, row);
  }
}

template <class Lines>
void weight_codes(const WeightCodesTask& task) {
  weight_blocks<Lines, 4>(task, 0);
}

}  // namespace
}  // namespace llmq::quant
