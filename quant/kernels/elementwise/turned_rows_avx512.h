#pragma once

// dot_rows for several queries over bf16 rows. Rows that are multiplied as they lie need a tree of
// shuffles for every sum and are widened once for every few queries. Here 32 rows are turned first:
// one register then holds an element of 16 rows, all queries pass over it, and the canonical tree
// (gemm_f32/lane_gemm.h) adds whole registers. Only for files compiled for AVX-512; everything has
// internal linkage.

#include <cstdint>

#include "quant/kernels/elementwise/stored_rows.h"
#include "quant/kernels/gemm_bf16/transpose_avx512.h"
#include "quant/kernels/gemm_f32/lanes_avx512.h"

namespace llmq::quant {
namespace {

inline constexpr int64_t kTurnedRows = 32;      // two registers
inline constexpr int64_t kMostTurned = 256;     // elements of a row; 32 KiB of the L1 or L2 cache
inline constexpr int64_t kFewestTurnedFor = 3;  // queries; turning costs as much as a few of them
inline constexpr int kTurnedQueries = 7;        // by two registers of rows

// Element i of row r goes to turned[i, r]. Meanwhile the first half of what is read next, from
// `next` on, is fetched: evenly, as in dot_turned, so that memory neither rests nor is asked for
// too much.
inline void turn_rows(const unsigned char* rows, int64_t row_size_bytes, int64_t d,
                      const char* next, float* turned) {
  const __m512i upper = _mm512_set1_epi32(static_cast<int>(0xffff0000U));
  for (int64_t begin = 0; begin < d; begin += 2 * kLanes) {
    const int64_t count = d - begin < 2 * kLanes ? d - begin : 2 * kLanes;
    const auto mask = static_cast<__mmask32>((uint64_t{1} << static_cast<unsigned>(count)) - 1);
    for (int64_t first = 0; first < kTurnedRows; first += kLanes) {
      const unsigned char* from = rows + first * row_size_bytes + 2 * begin;
      __m512i lines[kLanes];
#pragma GCC unroll 16
      for (int r = 0; r < kLanes; ++r) {
        lines[r] = _mm512_maskz_loadu_epi16(mask, from);
        _mm_prefetch(next, _MM_HINT_T0);
        next += 32;
        from += row_size_bytes;
      }
      transpose_words(lines);
      float* to = turned + begin * kTurnedRows + first;
#pragma GCC unroll 16
      for (int pair = 0; pair < kLanes; ++pair) {
        _mm512_storeu_si512(to + 2 * pair * kTurnedRows, _mm512_slli_epi32(lines[pair], 16));
        _mm512_storeu_si512(to + (2 * pair + 1) * kTurnedRows,
                            _mm512_and_si512(lines[pair], upper));
      }
    }
  }
}

// Dot products of kQueries queries with the turned rows. Meanwhile the other half of what is read
// next, from `next` on, is fetched: half a cache line for each element of a row.
template <int kQueries>
inline void dot_turned(const DotRowsTask& task, int64_t query, const float* turned,
                       const char* next, float* out) {
  constexpr int kSums = 2 * kQueries;
  const float* queries = task.queries + query * task.query_stride;
  float waiting[4][kSums][kLanes];  // sums of the tree, a level each, for their other half
  for (unsigned n = 0; n < kLanes; ++n) {
    // In this order of lanes, the bits of n turned round, each half of the tree follows the other.
    const int64_t lane = ((n & 1) << 3) | ((n & 2) << 1) | ((n & 4) >> 1) | (n >> 3);
    __m512 sums[kSums];
#pragma GCC unroll 14
    for (int s = 0; s < kSums; ++s) sums[s] = _mm512_setzero_ps();
    for (int64_t i = lane; i < task.d; i += kLanes) {
      _mm_prefetch(next, _MM_HINT_T0);
      next += 32;
      const __m512 low = _mm512_loadu_ps(turned + i * kTurnedRows);
      const __m512 high = _mm512_loadu_ps(turned + i * kTurnedRows + kLanes);
#pragma GCC unroll 7
      for (int q = 0; q < kQueries; ++q) {
        const __m512 x = _mm512_set1_ps(queries[q * task.query_stride + i]);
        sums[2 * q] = _mm512_fmadd_ps(x, low, sums[2 * q]);
        sums[2 * q + 1] = _mm512_fmadd_ps(x, high, sums[2 * q + 1]);
      }
    }
    int level = 0;
    for (; (n >> level & 1U) != 0; ++level) {
#pragma GCC unroll 14
      for (int s = 0; s < kSums; ++s)
        sums[s] = _mm512_add_ps(_mm512_loadu_ps(waiting[level][s]), sums[s]);
    }
    if (n + 1 < kLanes) {
#pragma GCC unroll 14
      for (int s = 0; s < kSums; ++s) _mm512_storeu_ps(waiting[level][s], sums[s]);
      continue;
    }
    const __m512 scale = _mm512_set1_ps(task.scale);
#pragma GCC unroll 14
    for (int s = 0; s < kSums; ++s) {
      float* to = out + (query + s / 2) * task.out_stride + s % 2 * kLanes;
      _mm512_storeu_ps(to, _mm512_mul_ps(sums[s], scale));
    }
  }
}

// Queries from `query` on, kQueries at a time and then fewer.
template <int kQueries>
inline void dot_turned_queries(const DotRowsTask& task, int64_t query, const float* turned,
                               const char* next, float* out) {
  for (; query + kQueries <= task.m; query += kQueries)
    dot_turned<kQueries>(task, query, turned, next, out);
  if constexpr (kQueries > 1) {
    if (query < task.m) dot_turned_queries<kQueries - 1>(task, query, turned, next, out);
  }
}

// The products of the first rows, as many as can be turned; returns how many.
inline int64_t dot_turned_rows(const DotRowsTask& task) {
  if (task.rows.type != RowType::kBf16 || task.m < kFewestTurnedFor || task.d > kMostTurned)
    return 0;
  alignas(64) float turned[kMostTurned * kTurnedRows];
  int64_t row = 0;
  for (; row + kTurnedRows <= task.rows.n_rows; row += kTurnedRows) {
    const StoredRows rest = rows_from(task.rows, row, kTurnedRows);
    turn_rows(static_cast<const unsigned char*>(rest.data), rest.row_size_bytes, task.d,
              static_cast<const char*>(rest.next), turned);
    dot_turned_queries<kTurnedQueries>(
        task, 0, turned, static_cast<const char*>(rest.next) + 32 * task.d, task.out + row);
  }
  return row;
}

}  // namespace
}  // namespace llmq::quant
