#pragma once

// Building blocks of the AVX-512 product kernels: one zmm register holds the kLanes accumulators of
// a sum. Only for files compiled for AVX-512; everything has internal linkage, so that no wider
// instruction can be linked into code for other machines.

#include <cstdint>

#include "quant/kernels/gemm_f32/lane_gemm.h"
#include "quant/kernels/intrinsics_avx512.h"

namespace llmq::quant {
namespace {

// Mask of the first `count` lanes, 0 <= count <= 16.
inline __mmask16 lanes_mask(int64_t count) {
  return static_cast<__mmask16>((1U << static_cast<unsigned>(count)) - 1U);
}

// One level of the canonical tree for two sums at once: lane i of the result is a[i] + a[i + kStep]
// where bit kStep of i is clear, and the like of b (same index bits) where it is set.
template <int kStep>
inline __m512 add_halves(__m512 a, __m512 b) {
  constexpr auto kSet = static_cast<__mmask16>(kStep == 8   ? 0xff00
                                               : kStep == 4 ? 0xf0f0
                                               : kStep == 2 ? 0xcccc
                                                            : 0xaaaa);
  const __m512i lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  __m512i source = _mm512_xor_si512(lane, _mm512_set1_epi32(kStep));
  source = _mm512_mask_or_epi32(source, kSet, source, _mm512_set1_epi32(16));
  return _mm512_add_ps(_mm512_mask_blend_ps(kSet, a, b), _mm512_permutex2var_ps(a, source, b));
}

// Tree sums of 16 accumulators; lane i is the sum of lanes[i].
inline __m512 tree_sums_16(const __m512 (&lanes)[16]) {
  __m512 s8[8];
  __m512 s4[4];
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) s8[i] = add_halves<8>(lanes[i], lanes[i + 8]);
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) s4[i] = add_halves<4>(s8[i], s8[i + 4]);
  return add_halves<1>(add_halves<2>(s4[0], s4[2]), add_halves<2>(s4[1], s4[3]));
}

// Tree sums of 8 accumulators in the low half.
inline __m512 tree_sums_8(const __m512 (&lanes)[8]) {
  __m512 s8[4];
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) s8[i] = add_halves<8>(lanes[i], lanes[i + 4]);
  const __m512 s2 = add_halves<2>(add_halves<4>(s8[0], s8[2]), add_halves<4>(s8[1], s8[3]));
  const __m512 s1 = add_halves<1>(s2, s2);
  const __m512i even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 0, 2, 4, 6, 8, 10, 12, 14);
  return _mm512_permutexvar_ps(even, s1);
}

// Tree sums of kCount accumulators, kCount <= 24, to sums[kCount]; sums has room for 32.
template <int kCount>
inline void store_tree_sums(const __m512 (&lanes)[kCount], float* sums) {
  if constexpr (kCount > 8) {
    __m512 part[16];
#pragma GCC unroll 16
    for (int i = 0; i < 16; ++i) part[i] = lanes[i < kCount ? i : 0];
    _mm512_storeu_ps(sums, tree_sums_16(part));
  }
  constexpr int kRest = kCount > 16 ? 16 : 0;
  if constexpr (kCount <= 8 || kCount > 16) {
    __m512 part[8];
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i) part[i] = lanes[kRest + i < kCount ? kRest + i : 0];
    _mm512_storeu_ps(sums + kRest, tree_sums_8(part));
  }
}

// The epilogue for n_rows rows of n_cols <= 16 sums at y[0.., col..]; sums_stride apart in `sums`.
inline void finish_rows(const Epilogue& e, int64_t n_rows, int64_t col, int64_t n_cols,
                        const float* sums, int64_t sums_stride) {
  const __mmask16 mask = lanes_mask(n_cols);
  for (int64_t row = 0; row < n_rows; ++row) {
    __m512 value = _mm512_maskz_loadu_ps(mask, sums + row * sums_stride);
    if (e.scale != nullptr)
      value = _mm512_mul_ps(value, _mm512_maskz_loadu_ps(mask, e.scale + col));
    if (e.bias != nullptr) value = _mm512_add_ps(value, _mm512_maskz_loadu_ps(mask, e.bias + col));
    _mm512_mask_storeu_ps(e.y + row * e.y_stride + col, mask, value);
  }
}

// The stored kinds of float as `Weights` of the kernels below.
struct F32Values {
  static constexpr int64_t kStepBytes = 64;
  struct Row {};
  static Row row(const WeightRows&, int64_t, int64_t) { return {}; }
  static __m512 load(const unsigned char* p, Row) { return _mm512_loadu_ps(p); }
  static __m512 load(__mmask16 mask, const unsigned char* p, Row) {
    return _mm512_maskz_loadu_ps(mask, p);
  }
};

struct Bf16Values {
  static constexpr int64_t kStepBytes = 32;
  struct Row {};
  static Row row(const WeightRows&, int64_t, int64_t) { return {}; }
  static __m512 widen(__m256i bits) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
  }
  static __m512 load(const unsigned char* p, Row) {
    return widen(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  }
  static __m512 load(__mmask16 mask, const unsigned char* p, Row) {
    return widen(_mm256_maskz_loadu_epi16(mask, p));
  }
};

struct Fp16Values {
  static constexpr int64_t kStepBytes = 32;
  struct Row {};
  static Row row(const WeightRows&, int64_t, int64_t) { return {}; }
  static __m512 load(const unsigned char* p, Row) {
    return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  }
  static __m512 load(__mmask16 mask, const unsigned char* p, Row) {
    return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(mask, p));
  }
};

// kCols consecutive weight rows from col times kRows rows of x from row. While these rows are read
// side by side, the kCols rows behind them are fetched from memory, in the order in which they lie:
// memory serves one stream at its full rate, but not as many as there are rows, where each ends at
// every page. `Weights` says how
// 16 stored weights become floats:
//   kStepBytes                      bytes of 16 weights
//   Row                             what a row needs besides its bytes
//   Row row(weights, row, group)    loaded at the start of the row and of each group
//   load(const uint8_t*, Row)       16 weights
//   load(mask, const uint8_t*, Row) the first of 16
template <class Weights, int kRows, int kCols>
inline void stream_columns(const StreamTask& task, int64_t row, int64_t col) {
  const WeightRows& weights = *task.weights;
  constexpr int64_t kStep = Weights::kStepBytes;
  constexpr int64_t kCacheLineBytes = 64;
  constexpr int kUnroll = kCacheLineBytes / kStep;  // steps per cache line
  const unsigned char* w = weights.data + col * weights.row_size_bytes;
  const int64_t row_size = weights.row_size_bytes;
  const float* x_rows = task.x + row * task.x_stride;
  const int64_t n_steps = task.k / kLanes;
  const int64_t group_steps = weights.group == 0 ? n_steps : weights.group / kLanes;
  const unsigned char* ahead = w + kCols * row_size;
  __m512 acc[kRows * kCols];
#pragma GCC unroll 32
  for (int a = 0; a < kRows * kCols; ++a) acc[a] = _mm512_setzero_ps();
  typename Weights::Row rows[kCols] = {};

  const auto multiply_step = [&](int64_t step) __attribute__((always_inline)) {
    __m512 x[kRows];
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r)
      x[r] = _mm512_loadu_ps(x_rows + r * task.x_stride + step * kLanes);
#pragma GCC unroll 8
    for (int c = 0; c < kCols; ++c) {
      const __m512 value = Weights::load(w + c * row_size + step * kStep, rows[c]);
#pragma GCC unroll 4
      for (int r = 0; r < kRows; ++r)
        acc[r * kCols + c] = _mm512_fmadd_ps(x[r], value, acc[r * kCols + c]);
    }
  };

  int64_t step = 0;
  for (int64_t group = 0; group < weights.n_groups; ++group) {
#pragma GCC unroll 8
    for (int c = 0; c < kCols; ++c) rows[c] = Weights::row(weights, col + c, group);
    if (weights.group_scale != nullptr) {
      const float* scales = weights.group_scale + (col + kCols) * weights.n_groups;
      _mm_prefetch(reinterpret_cast<const char*>(scales + group * kCols), _MM_HINT_T0);
    }
    int64_t end = (group + 1) * group_steps;
    end = end < n_steps ? end : n_steps;
    for (; step + kUnroll <= end; step += kUnroll) {
#pragma GCC unroll 8
      for (int c = 0; c < kCols; ++c)
        _mm_prefetch(reinterpret_cast<const char*>(ahead + c * kCacheLineBytes), _MM_HINT_T0);
      ahead += kCols * kCacheLineBytes;
#pragma GCC unroll 4
      for (int u = 0; u < kUnroll; ++u) multiply_step(step + u);
    }
    for (; step < end; ++step) multiply_step(step);
  }
  const int64_t tail = task.k - n_steps * kLanes;
  if (tail != 0) {
    const __mmask16 mask = lanes_mask(tail);
#pragma GCC unroll 8
    for (int c = 0; c < kCols; ++c) {
      const __m512 value = Weights::load(mask, w + c * row_size + n_steps * kStep, rows[c]);
#pragma GCC unroll 4
      for (int r = 0; r < kRows; ++r) {
        const __m512 x = _mm512_maskz_loadu_ps(mask, x_rows + r * task.x_stride + n_steps * kLanes);
        acc[r * kCols + c] = _mm512_mask3_fmadd_ps(x, value, acc[r * kCols + c], mask);
      }
    }
  }
  float sums[32];
  store_tree_sums(acc, sums);
  Epilogue epilogue = task.epilogue;
  epilogue.y += row * epilogue.y_stride;
  finish_rows(epilogue, kRows, col, kCols, sums, kCols);
}

// All rows of x for kCols columns from col, up to kMaxRows rows at a time; from the second time on
// the weights come from a cache.
template <class Weights, int kMaxRows, int kCols>
inline void stream_rows(const StreamTask& task, int64_t col) {
  for (int64_t row = 0; row < task.m; row += kMaxRows) {
    const int64_t n_rows = task.m - row;
    if constexpr (kMaxRows >= 4) {
      if (n_rows >= 4) {
        stream_columns<Weights, 4, kCols>(task, row, col);
        continue;
      }
    }
    if (n_rows >= 3) {
      stream_columns<Weights, 3, kCols>(task, row, col);
    } else if (n_rows == 2) {
      stream_columns<Weights, 2, kCols>(task, row, col);
    } else {
      stream_columns<Weights, 1, kCols>(task, row, col);
    }
  }
}

inline constexpr int64_t kMaxStreamRows = 8;

// One row of x up to this many floats stays in the L1 cache beside weights; a longer one comes from
// the L2 cache and is shared by more weight rows.
inline constexpr int64_t kShortK = 6144;

// LaneGemmKernels::stream for one kind of weights.
template <class Weights>
inline void stream_weights(const StreamTask& task) {
  int64_t col = task.col_begin;
  // As few rows as hide the latency of the sums, so that those fetched ahead fit into a cache.
  constexpr int kFew = Weights::kStepBytes == 64 ? 2 : 4;
  if (task.m == 1) {
    if (task.k > kShortK) {
      for (; col + 2 * kFew <= task.col_end; col += 2 * kFew)
        stream_columns<Weights, 1, 2 * kFew>(task, 0, col);
    }
    for (; col + kFew <= task.col_end; col += kFew) stream_columns<Weights, 1, kFew>(task, 0, col);
  } else if (task.m <= 3) {
    for (; col + 8 <= task.col_end; col += 8) stream_rows<Weights, 3, 8>(task, col);
  } else {
    for (; col + 6 <= task.col_end; col += 6) stream_rows<Weights, 4, 6>(task, col);
  }
  for (; col < task.col_end; ++col) stream_rows<Weights, 4, 1>(task, col);
}

// LaneGemmKernels::widen of elements [begin, end) of a row whose Row does not change in between.
template <class Weights>
inline void widen_range(const WidenTask& task, int64_t begin, int64_t end) {
  constexpr int64_t kStep = Weights::kStepBytes;
  const typename Weights::Row row = Weights::row(
      *task.weights, task.row, task.weights->group == 0 ? 0 : begin / task.weights->group);
  const unsigned char* w =
      task.weights->data + task.row * task.weights->row_size_bytes + begin / kLanes * kStep;
  float* out = task.out + (begin - task.k_begin) / kLanes * task.out_step;
  const auto fetch_ahead = [&](const unsigned char* p) __attribute__((always_inline)) {
    _mm_prefetch(reinterpret_cast<const char*>(p + task.prefetch_ahead_bytes), _MM_HINT_T1);
  };
  int64_t i = begin;
  for (; i + 64 / kStep * kLanes <= end; i += 64 / kStep * kLanes) {
    fetch_ahead(w);
#pragma GCC unroll 4
    for (int u = 0; u < 64 / kStep; ++u) {
      _mm512_store_ps(out, Weights::load(w, row));
      w += kStep;
      out += task.out_step;
    }
  }
  if (i < end) fetch_ahead(w);
  for (; i + kLanes <= end; i += kLanes) {
    _mm512_store_ps(out, Weights::load(w, row));
    w += kStep;
    out += task.out_step;
  }
  if (i < end) _mm512_store_ps(out, Weights::load(lanes_mask(end - i), w, row));
}

}  // namespace
}  // namespace llmq::quant
