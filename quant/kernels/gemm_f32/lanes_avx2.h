#pragma once

// Building blocks of the AVX2 product kernels: two ymm registers hold the kLanes accumulators of a
// sum. Only for files compiled for AVX2; everything has internal linkage, so that no wider
// instruction can be linked into code for other machines.

#include <immintrin.h>

#include <cstdint>

#include "quant/kernels/gemm_f32/lane_gemm.h"

namespace llmq::quant {
namespace {

// kLanes floats: lanes 0..7 and 8..15.
struct Lanes {
  __m256 low;
  __m256 high;
};

inline Lanes zero_lanes() {
  return {_mm256_setzero_ps(), _mm256_setzero_ps()};
}

inline Lanes load_lanes(const float* p) {
  return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)};
}

inline void store_lanes(float* p, Lanes v) {
  _mm256_storeu_ps(p, v.low);
  _mm256_storeu_ps(p + 8, v.high);
}

inline Lanes multiply_add(Lanes a, Lanes b, Lanes c) {
  return {_mm256_fmadd_ps(a.low, b.low, c.low), _mm256_fmadd_ps(a.high, b.high, c.high)};
}

// All bits of the first `count` lanes, 0 <= count <= 16.
struct LanesMask {
  __m256i low;
  __m256i high;
};

inline LanesMask lanes_mask(int64_t count) {
  const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  const auto n = static_cast<int>(count);
  return {_mm256_cmpgt_epi32(_mm256_set1_epi32(n), lane),
          _mm256_cmpgt_epi32(_mm256_set1_epi32(n - 8), lane)};
}

// The masked lanes of p, zeros elsewhere; nothing else is read.
inline Lanes load_lanes(const LanesMask& mask, const float* p) {
  return {_mm256_maskload_ps(p, mask.low), _mm256_maskload_ps(p + 8, mask.high)};
}

// multiply_add where the mask is set, c elsewhere.
inline Lanes multiply_add(const LanesMask& mask, Lanes a, Lanes b, Lanes c) {
  const Lanes sum = multiply_add(a, b, c);
  return {_mm256_blendv_ps(c.low, sum.low, _mm256_castsi256_ps(mask.low)),
          _mm256_blendv_ps(c.high, sum.high, _mm256_castsi256_ps(mask.high))};
}

// Canonical tree sums of four accumulators.
inline __m128 tree_sums_4(Lanes a, Lanes b, Lanes c, Lanes d) {
  const __m256 a8 = _mm256_add_ps(a.low, a.high);
  const __m256 b8 = _mm256_add_ps(b.low, b.high);
  const __m256 c8 = _mm256_add_ps(c.low, c.high);
  const __m256 d8 = _mm256_add_ps(d.low, d.high);
  const __m256 ab4 =
      _mm256_add_ps(_mm256_permute2f128_ps(a8, b8, 0x20), _mm256_permute2f128_ps(a8, b8, 0x31));
  const __m256 cd4 =
      _mm256_add_ps(_mm256_permute2f128_ps(c8, d8, 0x20), _mm256_permute2f128_ps(c8, d8, 0x31));
  // [a a' c c' | b b' d d'], the two partial sums of each side by side
  const __m256 s2 =
      _mm256_add_ps(_mm256_shuffle_ps(ab4, cd4, 0x44), _mm256_shuffle_ps(ab4, cd4, 0xee));
  const __m256 s1 = _mm256_add_ps(s2, _mm256_permute_ps(s2, 0xb1));  // [a a c c | b b d d]
  return _mm_blend_ps(_mm256_castps256_ps128(s1), _mm256_extractf128_ps(s1, 1), 0xa);
}

// Tree sums of kCount accumulators to sums[kCount]; sums has room for a multiple of 4.
template <int kCount>
inline void store_tree_sums(const Lanes (&lanes)[kCount], float* sums) {
#pragma GCC unroll 4
  for (int i = 0; i < kCount; i += 4) {
    constexpr int kLast = kCount - 1;
    _mm_storeu_ps(sums + i, tree_sums_4(lanes[i], lanes[i + 1 < kLast ? i + 1 : kLast],
                                        lanes[i + 2 < kLast ? i + 2 : kLast],
                                        lanes[i + 3 < kLast ? i + 3 : kLast]));
  }
}

// The epilogue for n_rows rows of n_cols sums at y[0.., col..]; sums_stride apart in `sums`.
inline void finish_rows(const Epilogue& e, int64_t n_rows, int64_t col, int64_t n_cols,
                        const float* sums, int64_t sums_stride) {
  for (int64_t row = 0; row < n_rows; ++row) {
    for (int64_t c = 0; c < n_cols; ++c) {
      float value = sums[row * sums_stride + c];
      if (e.scale != nullptr) value = value * e.scale[col + c];
      if (e.bias != nullptr) value = value + e.bias[col + c];
      e.y[row * e.y_stride + col + c] = value;
    }
  }
}

// The first `size` <= 16 bytes of p and zeros: nothing beyond the end of a mapped file is read.
inline __m128i load_bytes(const unsigned char* p, int64_t size) {
  alignas(16) unsigned char bytes[16] = {};
  for (int64_t i = 0; i < size; ++i) bytes[i] = p[i];
  return _mm_load_si128(reinterpret_cast<const __m128i*>(bytes));
}

// The stored kinds of float as `Weights` of the kernels below.
struct F32Values {
  static constexpr int64_t kStepBytes = 64;
  struct Row {};
  static Row row(const WeightRows&, int64_t, int64_t) { return {}; }
  static Lanes load(const unsigned char* p, Row) {
    return {_mm256_castsi256_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))),
            _mm256_castsi256_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p + 32)))};
  }
  static Lanes load(int64_t count, const unsigned char* p, Row) {
    alignas(32) unsigned char bytes[64] = {};
    for (int64_t i = 0; i < count * 4; ++i) bytes[i] = p[i];
    return load(bytes, {});
  }
};

// 16-bit floats that Type::widen makes 32-bit, eight at a time.
template <class Type>
struct Float16Values {
  static constexpr int64_t kStepBytes = 32;
  struct Row {};
  static Row row(const WeightRows&, int64_t, int64_t) { return {}; }
  static Lanes load(const unsigned char* p, Row) {
    return {Type::widen(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))),
            Type::widen(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p + 16)))};
  }
  static Lanes load(int64_t count, const unsigned char* p, Row) {
    if (count <= 8) return {Type::widen(load_bytes(p, count * 2)), _mm256_setzero_ps()};
    return {Type::widen(load_bytes(p, 16)), Type::widen(load_bytes(p + 16, (count - 8) * 2))};
  }
};

struct Bf16 {
  static __m256 widen(__m128i bits) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
  }
};
using Bf16Values = Float16Values<Bf16>;

struct Fp16 {
  static __m256 widen(__m128i bits) { return _mm256_cvtph_ps(bits); }
};
using Fp16Values = Float16Values<Fp16>;

// kCols consecutive weight rows from col times kRows rows of x from row. While these rows are read
// side by side, the kCols rows behind them are fetched from memory, in the order in which they lie:
// memory serves one stream at its full rate, but not as many as there are rows, where each ends at
// every page. `Weights` says how
// 16 stored weights become floats:
//   kStepBytes                       bytes of 16 weights
//   Row                              what a row needs besides its bytes
//   Row row(weights, row, group)     loaded at the start of the row and of each group
//   load(const uint8_t*, Row)        16 weights
//   load(count, const uint8_t*, Row) the first of 16; the others are unspecified
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
  Lanes acc[kRows * kCols];
#pragma GCC unroll 8
  for (int a = 0; a < kRows * kCols; ++a) acc[a] = zero_lanes();
  typename Weights::Row rows[kCols] = {};

  const auto multiply_step = [&](int64_t step) __attribute__((always_inline)) {
#pragma GCC unroll 4
    for (int c = 0; c < kCols; ++c) {
      const Lanes value = Weights::load(w + c * row_size + step * kStep, rows[c]);
#pragma GCC unroll 4
      for (int r = 0; r < kRows; ++r) {
        const Lanes x = load_lanes(x_rows + r * task.x_stride + step * kLanes);
        acc[r * kCols + c] = multiply_add(x, value, acc[r * kCols + c]);
      }
    }
  };

  int64_t step = 0;
  for (int64_t group = 0; group < weights.n_groups; ++group) {
#pragma GCC unroll 4
    for (int c = 0; c < kCols; ++c) rows[c] = Weights::row(weights, col + c, group);
    if (weights.group_scale != nullptr) {
      const float* scales = weights.group_scale + (col + kCols) * weights.n_groups;
      _mm_prefetch(reinterpret_cast<const char*>(scales + group * kCols), _MM_HINT_T0);
    }
    int64_t end = (group + 1) * group_steps;
    end = end < n_steps ? end : n_steps;
    for (; step + kUnroll <= end; step += kUnroll) {
#pragma GCC unroll 4
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
    const LanesMask mask = lanes_mask(tail);
#pragma GCC unroll 4
    for (int c = 0; c < kCols; ++c) {
      const Lanes value = Weights::load(tail, w + c * row_size + n_steps * kStep, rows[c]);
#pragma GCC unroll 4
      for (int r = 0; r < kRows; ++r) {
        const Lanes x = load_lanes(mask, x_rows + r * task.x_stride + n_steps * kLanes);
        acc[r * kCols + c] = multiply_add(mask, x, value, acc[r * kCols + c]);
      }
    }
  }
  float sums[8];
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
    if constexpr (kMaxRows >= 3) {
      if (n_rows >= 3) {
        stream_columns<Weights, 3, kCols>(task, row, col);
        continue;
      }
    }
    if constexpr (kMaxRows >= 2) {
      if (n_rows >= 2) {
        stream_columns<Weights, 2, kCols>(task, row, col);
        continue;
      }
    }
    stream_columns<Weights, 1, kCols>(task, row, col);
  }
}

inline constexpr int64_t kMaxStreamRows = 8;

// LaneGemmKernels::stream for one kind of weights.
template <class Weights>
inline void stream_weights(const StreamTask& task) {
  int64_t col = task.col_begin;
  if (task.m == 1) {
    for (; col + 4 <= task.col_end; col += 4) stream_rows<Weights, 1, 4>(task, col);
  } else {
    for (; col + 2 <= task.col_end; col += 2) stream_rows<Weights, 3, 2>(task, col);
  }
  for (; col < task.col_end; ++col) stream_rows<Weights, 3, 1>(task, col);
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
      store_lanes(out, Weights::load(w, row));
      w += kStep;
      out += task.out_step;
    }
  }
  if (i < end) fetch_ahead(w);
  for (; i + kLanes <= end; i += kLanes) {
    store_lanes(out, Weights::load(w, row));
    w += kStep;
    out += task.out_step;
  }
  if (i < end) store_lanes(out, Weights::load(end - i, w, row));
}

}  // namespace
}  // namespace llmq::quant
