#pragma once

// The elementwise family over Vec: included by avx2.cpp after vec_avx2.h and by avx512.cpp after
// vec_avx512.h, compiled once for each with internal linkage. Since both have 16 lanes, the code is
// the same; scalar.cpp is what it must agree with, bit for bit.

#include <cstdint>

#include "quant/kernels/elementwise/elementwise.h"
#include "quant/kernels/elementwise/exp_constants.h"
#include "quant/kernels/elementwise/stored_rows.h"
#include "quant/kernels/gemm_f32/lane_gemm.h"

namespace llmq::quant {
namespace {

// x becomes exp(x). The steps of all vectors stand side by side, since one waits for its own
// results most of the time and a processor does not look far enough ahead for the next.
template <int kVecs>
inline void vec_exps(Vec (&x)[kVecs]) {
  const Vec magic = vec_set(kRoundMagic);
  Vec shifted[kVecs];
  Vec r[kVecs];
  Vec h[kVecs];
  const auto each = [](auto step) __attribute__((always_inline)) {
#pragma GCC unroll 8
    for (int v = 0; v < kVecs; ++v) step(v);
  };
  each([&](int v) { shifted[v] = vec_fma(x[v], vec_set(kLog2E), magic); });
  each([&](int v) { h[v] = vec_sub(shifted[v], magic); });
  each([&](int v) { r[v] = vec_fma(h[v], vec_set(-kLn2High), x[v]); });
  each([&](int v) { r[v] = vec_fma(h[v], vec_set(-kLn2Low), r[v]); });
  each([&](int v) { h[v] = vec_fma(vec_set(kExpH4), r[v], vec_set(kExpH3)); });
  each([&](int v) { h[v] = vec_fma(h[v], r[v], vec_set(kExpH2)); });
  each([&](int v) { h[v] = vec_fma(h[v], r[v], vec_set(kExpH1)); });
  each([&](int v) { h[v] = vec_fma(h[v], r[v], vec_set(kExpH0)); });
  each([&](int v) { h[v] = vec_fma(h[v], vec_mul(r[v], r[v]), r[v]); });
  each([&](int v) { h[v] = vec_add(vec_set(1.0F), h[v]); });
  each([&](int v) { h[v] = vec_add_exponent(x[v], vec_set(kExpMin), h[v], shifted[v]); });
  each([&](int v) {
    x[v] = vec_add_above(x[v], vec_set(kExpMax), h[v], vec_set(__builtin_inff()));
  });
}

inline Vec vec_exp(Vec x) {
  Vec one[1] = {x};
  vec_exps(one);
  return one[0];
}

// y[i] = function(x[i]), and of two inputs.
template <class Function>
inline void map_array(const float* x, float* y, int64_t n, Function function) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) vec_store(y + i, function(vec_load(x + i)));
  if (i < n) vec_store(y + i, function(vec_load(x + i, n - i)), n - i);
}

template <class Function>
inline void map_arrays(const float* a, const float* b, float* y, int64_t n, Function function) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) vec_store(y + i, function(vec_load(a + i), vec_load(b + i)));
  if (i < n) vec_store(y + i, function(vec_load(a + i, n - i), vec_load(b + i, n - i)), n - i);
}

inline void exp_array(const float* x, float* y, int64_t n) {
  map_array(x, y, n, [](Vec v) { return vec_exp(v); });
}

inline void sigmoid(const float* x, float* y, int64_t n) {
  map_array(x, y, n, [](Vec v) {
    const Vec one = vec_set(1.0F);
    return vec_div(one, vec_add(one, vec_exp(vec_negate(v))));
  });
}

inline void silu_multiply(const float* gate, const float* up, float* y, int64_t n) {
  map_arrays(gate, up, y, n, [](Vec g, Vec u) {
    return vec_mul(vec_div(g, vec_add(vec_set(1.0F), vec_exp(vec_negate(g)))), u);
  });
}

inline void add(const float* a, const float* b, float* y, int64_t n) {
  map_arrays(a, b, y, n, [](Vec u, Vec v) { return vec_add(u, v); });
}

inline void scale(const float* x, float factor, float* y, int64_t n) {
  const Vec f = vec_set(factor);
  map_array(x, y, n, [f](Vec v) { return vec_mul(v, f); });
}

inline float row_max(const float* x, int64_t n) {
  Vec max = vec_set(-__builtin_inff());
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) max = vec_larger(vec_load(x + i), max);
  if (i < n) max = vec_join(vec_larger(vec_load(x + i, n - i), max), max, n - i);
  return vec_tree_max(max);
}

inline float exp_sum(const float* x, float max, float* y, int64_t n) {
  const Vec shift = vec_set(max == -__builtin_inff() ? 0.0F : max);
  Vec sum = vec_set(0.0F);
  int64_t i = 0;
  for (; i + kExpsTogether * kLanes <= n; i += kExpsTogether * kLanes) {
    Vec e[kExpsTogether];
#pragma GCC unroll 4
    for (int v = 0; v < kExpsTogether; ++v) e[v] = vec_sub(vec_load(x + i + v * kLanes), shift);
    vec_exps(e);
#pragma GCC unroll 4
    for (int v = 0; v < kExpsTogether; ++v) {
      vec_store(y + i + v * kLanes, e[v]);
      sum = vec_add(sum, e[v]);
    }
  }
  for (; i + kLanes <= n; i += kLanes) {
    const Vec e = vec_exp(vec_sub(vec_load(x + i), shift));
    vec_store(y + i, e);
    sum = vec_add(sum, e);
  }
  if (i < n) {
    const Vec e = vec_exp(vec_sub(vec_load(x + i, n - i), shift));
    vec_store(y + i, e, n - i);
    sum = vec_join(vec_add(sum, e), sum, n - i);
  }
  return vec_tree_sum(sum);
}

inline void rms_norm(const RmsNormTask& task) {
  Vec squares = vec_set(0.0F);
  int64_t i = 0;
  for (; i + kLanes <= task.n; i += kLanes) {
    const Vec x = vec_load(task.x + i);
    squares = vec_fma(x, x, squares);
  }
  if (i < task.n) {
    const Vec x = vec_load(task.x + i, task.n - i);
    squares = vec_join(vec_fma(x, x, squares), squares, task.n - i);
  }
  const float mean = vec_tree_sum(squares) / static_cast<float>(task.n);
  const float root = _mm_cvtss_f32(_mm_sqrt_ss(_mm_set_ss(mean + task.eps)));
  const Vec inverse = vec_set(1.0F / root);
  map_arrays(task.x, task.weight, task.y, task.n,
             [inverse](Vec x, Vec w) { return vec_mul(vec_mul(x, inverse), w); });
}

inline void rope(const RopeTask& task) {
  const int64_t h = task.n_pairs;
  for (int64_t i = 0; i < h; i += kLanes) {
    const int64_t count = h - i;
    const bool whole = count >= kLanes;
    const auto load = [&](const float* p) { return whole ? vec_load(p) : vec_load(p, count); };
    const Vec a = load(task.x + i);
    const Vec b = load(task.x + h + i);
    const Vec c = load(task.cos + i);
    const Vec s = load(task.sin + i);
    const Vec low = vec_fma(a, c, vec_negate(vec_mul(b, s)));
    const Vec high = vec_fma(b, c, vec_mul(a, s));
    if (whole) {
      vec_store(task.y + i, low);
      vec_store(task.y + h + i, high);
    } else {
      vec_store(task.y + i, low, count);
      vec_store(task.y + h + i, high, count);
    }
  }
}

// dot_rows is the product of few rows: out [m, n_rows] with the stored rows as weights.
template <class Values>
inline void dot_streamed_rows(const DotRowsTask& task) {
  WeightRows rows;
  rows.data = static_cast<const unsigned char*>(task.rows.data);
  rows.row_size_bytes = task.rows.row_size_bytes;
  for (int64_t row = 0; row < task.m; row += kMaxStreamRows) {
    const int64_t n_queries = task.m - row < kMaxStreamRows ? task.m - row : kMaxStreamRows;
    float* out = task.out + row * task.out_stride;
    stream_weights<Values>({task.queries + row * task.query_stride,
                            task.query_stride,
                            n_queries,
                            task.d,
                            &rows,
                            0,
                            task.rows.n_rows,
                            {nullptr, nullptr, out, task.out_stride}});
    for (int64_t r = 0; r < n_queries; ++r)
      scale(out + r * task.out_stride, task.scale, out + r * task.out_stride, task.rows.n_rows);
  }
}

inline void dot_rows(const DotRowsTask& task) {
  const int64_t n_turned = dot_turned_rows(task);
  if (n_turned == task.rows.n_rows) return;
  DotRowsTask rest = task;
  rest.rows = rows_from(task.rows, n_turned, task.rows.n_rows - n_turned);
  rest.out += n_turned;
  switch (task.rows.type) {
    case RowType::kF32:
      return dot_streamed_rows<F32Values>(rest);
    case RowType::kBf16:
      return dot_streamed_rows<Bf16Values>(rest);
    case RowType::kFp16:
      return dot_streamed_rows<Fp16Values>(rest);
  }
}

// Rows that stay in the L1 cache while all accumulators pass over them.
inline constexpr int64_t kRowsPerChunk = 64;

// kSums accumulators by kVecs vectors of elements, kept in registers over all rows. The first
// accumulators fetch the rows that are read next.
template <class Values, int kSums, int kVecs>
inline void add_rows_block(const AddRowsTask& task, int64_t sum, int64_t begin) {
  const auto* rows = static_cast<const unsigned char*>(task.rows.data);
  const int64_t ahead = sum == 0 ? static_cast<const unsigned char*>(task.rows.next) - rows : 0;
  const unsigned char* row = rows + begin / kLanes * Values::kStepBytes;
  float* first = task.acc + sum * task.acc_stride + begin;
  Vec acc[kSums * kVecs];
#pragma GCC unroll 7
  for (int s = 0; s < kSums; ++s) {
#pragma GCC unroll 4
    for (int v = 0; v < kVecs; ++v)
      acc[s * kVecs + v] = vec_load(first + s * task.acc_stride + v * kLanes);
  }
  for (int64_t j = 0; j < task.rows.n_rows; ++j) {
#pragma GCC unroll 4
    for (int64_t b = 0; b < kVecs * Values::kStepBytes; b += 64)
      _mm_prefetch(reinterpret_cast<const char*>(row + ahead + b), _MM_HINT_T0);
    Vec p[kSums];
#pragma GCC unroll 7
    for (int s = 0; s < kSums; ++s) p[s] = vec_set(task.p[(sum + s) * task.p_stride + j]);
#pragma GCC unroll 4
    for (int v = 0; v < kVecs; ++v) {
      const Vec value = vec_of(Values::load(row + v * Values::kStepBytes, {}));
#pragma GCC unroll 7
      for (int s = 0; s < kSums; ++s) acc[s * kVecs + v] = vec_fma(p[s], value, acc[s * kVecs + v]);
    }
    row += task.rows.row_size_bytes;
  }
#pragma GCC unroll 7
  for (int s = 0; s < kSums; ++s) {
#pragma GCC unroll 4
    for (int v = 0; v < kVecs; ++v)
      vec_store(first + s * task.acc_stride + v * kLanes, acc[s * kVecs + v]);
  }
}

// The last d mod 16 elements of one accumulator.
template <class Values>
inline void add_rows_tail(const AddRowsTask& task, int64_t sum, int64_t begin) {
  const int64_t count = task.d - begin;
  const auto* row =
      static_cast<const unsigned char*>(task.rows.data) + begin / kLanes * Values::kStepBytes;
  float* first = task.acc + sum * task.acc_stride + begin;
  Vec acc = vec_load(first, count);
  for (int64_t j = 0; j < task.rows.n_rows; ++j) {
    acc = vec_fma(vec_set(task.p[sum * task.p_stride + j]), vec_of(load_first<Values>(row, count)),
                  acc);
    row += task.rows.row_size_bytes;
  }
  vec_store(first, acc, count);
}

// Accumulators from `sum` on, kSums at a time and then fewer.
template <class Values, int kSums>
inline void add_rows_sums(const AddRowsTask& task, int64_t sum) {
  for (; sum + kSums <= task.m; sum += kSums) {
    int64_t i = 0;
    for (; i + kVecsPerBlock * kLanes <= task.d; i += kVecsPerBlock * kLanes)
      add_rows_block<Values, kSums, kVecsPerBlock>(task, sum, i);
    for (; i + kLanes <= task.d; i += kLanes) add_rows_block<Values, kSums, 1>(task, sum, i);
    if (i < task.d) {
      for (int s = 0; s < kSums; ++s) add_rows_tail<Values>(task, sum + s, i);
    }
  }
  if constexpr (kSums > 1) {
    if (sum < task.m) add_rows_sums<Values, kSums - 1>(task, sum);
  }
}

template <class Values>
inline void add_typed_rows(const AddRowsTask& task) {
  AddRowsTask chunk = task;
  for (int64_t j = 0; j < task.rows.n_rows; j += kRowsPerChunk) {
    const int64_t n_left = task.rows.n_rows - j;
    chunk.rows = rows_from(task.rows, j, n_left < kRowsPerChunk ? n_left : kRowsPerChunk);
    chunk.p = task.p + j;
    add_rows_sums<Values, kSumsPerBlock>(chunk, 0);
  }
}

inline void add_rows(const AddRowsTask& task) {
  switch (task.rows.type) {
    case RowType::kF32:
      return add_typed_rows<F32Values>(task);
    case RowType::kBf16:
      return add_typed_rows<Bf16Values>(task);
    case RowType::kFp16:
      return add_typed_rows<Fp16Values>(task);
  }
}

constexpr ElementwiseKernels simd_kernels(Isa isa) {
  return {.isa = isa,
          .rms_norm = rms_norm,
          .rope = rope,
          .dot_rows = dot_rows,
          .add_rows = add_rows,
          .exp = exp_array,
          .sigmoid = sigmoid,
          .silu_multiply = silu_multiply,
          .add = add,
          .scale = scale,
          .row_max = row_max,
          .exp_sum = exp_sum};
}

}  // namespace
}  // namespace llmq::quant
