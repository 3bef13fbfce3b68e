#pragma once

// The products over a policy `Lines`, included by avx2.cpp and avx512vnni.cpp and compiled once for
// each with internal linkage. Lines has
//   kLanes: 32-bit sums in a register;
//   Codes load(const int8_t*): 2·kLanes codes widened to 16 bits;
//   Codes load(const int8_t*, int64_t count): the first `count` pairs of them, zeros behind;
//   Sums add(Sums, Codes, const int16_t*): plus the products with a pair of numbers for all;
//   zero, load_sums, store_sums, the latter two also with a count.

#include <cstdint>

#include "quant/kernels/attention/code_sums.h"

namespace llmq::quant {
namespace {

// Codes this far ahead are asked for: the distance that the loads of one core take to arrive.
constexpr int64_t kAheadBytes = 2048;

template <class Lines, int kRows>
inline void key_rows(const KeySumsTask& task, int64_t row) {
  using Sums = typename Lines::Sums;
  const int16_t* queries = task.queries + row * task.query_stride;
  const int8_t* line = task.keys;
  for (int64_t group = 0; group < task.n_groups; ++group) {
    for (int64_t part = 0; part < kKeysPerGroup; part += Lines::kLanes) {
      Sums sums[kRows];
#pragma GCC unroll 12
      for (int r = 0; r < kRows; ++r) sums[r] = Lines::zero();
      const int8_t* codes = line + 2 * part;
      for (int64_t pair = 0; pair < task.n_lane_pairs; ++pair) {
        Lines::ask(codes + kAheadBytes);
        const auto lanes = Lines::load(codes);
#pragma GCC unroll 12
        for (int r = 0; r < kRows; ++r)
          sums[r] = Lines::add(sums[r], lanes, queries + r * task.query_stride + 2 * pair);
        codes += 2 * kKeysPerGroup;
      }
      int32_t* out = task.sums + row * task.sums_stride + group * kKeysPerGroup + part;
#pragma GCC unroll 12
      for (int r = 0; r < kRows; ++r) Lines::store_sums(out + r * task.sums_stride, sums[r]);
    }
    line += task.n_lane_pairs * 2 * kKeysPerGroup;
  }
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
        sums[r][v] = Lines::add(sums[r][v], lanes, weights + r * task.weight_stride + 2 * pair);
    }
    Lines::ask(codes + kAheadBytes);
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
    sums = Lines::add(sums, Lines::load(codes, count), weights + 2 * pair);
    codes += 4 * task.n_lane_pairs;
  }
  Lines::store_sums(out, sums, count);
}

template <class Lines, int kRows>
inline void value_rows(const ValueSumsTask& task, int64_t row) {
  constexpr int kVecs = 4;
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

}  // namespace
}  // namespace llmq::quant
