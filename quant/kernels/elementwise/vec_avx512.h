#pragma once

// Vec, 16 floats in one register, as elementwise_simd.h needs it. Only for files compiled for
// AVX-512; internal linkage.

#include "quant/kernels/elementwise/turned_rows_avx512.h"
#include "quant/kernels/gemm_f32/lanes_avx512.h"

namespace llmq::quant {
namespace {

struct Vec {
  __m512 v;
};

// add_rows keeps 7 accumulators of 2 vectors and 7 broadcast factors in the 32 registers: the query
// heads of a group are 7 or fewer in most models, and 2 vectors of bf16 are a cache line.
inline constexpr int kSumsPerBlock = 7;
inline constexpr int kVecsPerBlock = 2;
// vec_exps of as many at a time leaves room for its constants.
inline constexpr int kExpsTogether = 4;

template <class Values>
inline __m512 load_first(const unsigned char* p, int64_t count) {
  return Values::load(lanes_mask(count), p, {});
}

inline Vec vec_of(__m512 v) {
  return {v};
}
inline Vec vec_set(float x) {
  return {_mm512_set1_ps(x)};
}
inline Vec vec_load(const float* p) {
  return {_mm512_loadu_ps(p)};
}
inline void vec_store(float* p, Vec a) {
  _mm512_storeu_ps(p, a.v);
}

// The first `count` < 16 elements, zeros behind them; nothing else is touched.
inline Vec vec_load(const float* p, int64_t count) {
  return {_mm512_maskz_loadu_ps(lanes_mask(count), p)};
}
inline void vec_store(float* p, Vec a, int64_t count) {
  _mm512_mask_storeu_ps(p, lanes_mask(count), a.v);
}
// Lanes below count from a, the others from b.
inline Vec vec_join(Vec a, Vec b, int64_t count) {
  return {_mm512_mask_blend_ps(lanes_mask(count), b.v, a.v)};
}

inline Vec vec_add(Vec a, Vec b) {
  return {_mm512_add_ps(a.v, b.v)};
}
inline Vec vec_sub(Vec a, Vec b) {
  return {_mm512_sub_ps(a.v, b.v)};
}
inline Vec vec_mul(Vec a, Vec b) {
  return {_mm512_mul_ps(a.v, b.v)};
}
inline Vec vec_div(Vec a, Vec b) {
  return {_mm512_div_ps(a.v, b.v)};
}
inline Vec vec_fma(Vec a, Vec b, Vec c) {
  return {_mm512_fmadd_ps(a.v, b.v, c.v)};
}
inline Vec vec_negate(Vec a) {
  return {_mm512_castsi512_ps(
      _mm512_xor_si512(_mm512_castps_si512(a.v), _mm512_set1_epi32(INT32_MIN)))};
}
// a > b ? a : b
inline Vec vec_larger(Vec a, Vec b) {
  return {_mm512_max_ps(a.v, b.v)};
}
// x < limit ? 0 : the bits of a plus the bits of b shifted up by 23
inline Vec vec_add_exponent(Vec x, Vec limit, Vec a, Vec b) {
  return {_mm512_castsi512_ps(_mm512_maskz_add_epi32(
      _mm512_cmp_ps_mask(x.v, limit.v, _CMP_NLT_UQ), _mm512_castps_si512(a.v),
      _mm512_slli_epi32(_mm512_castps_si512(b.v), 23)))};
}
// x <= limit ? a : x + b
inline Vec vec_add_above(Vec x, Vec limit, Vec a, Vec b) {
  return {_mm512_mask_add_ps(a.v, _mm512_cmp_ps_mask(x.v, limit.v, _CMP_NLE_UQ), x.v, b.v)};
}

// Lane i of the result is lane i + kStep of a, for i < kStep; the rest is unspecified.
template <int kStep>
inline __m512 vec_upper(__m512 a) {
  if constexpr (kStep == 8) return _mm512_shuffle_f32x4(a, a, 0xee);
  if constexpr (kStep == 4) return _mm512_shuffle_f32x4(a, a, 0x55);
  if constexpr (kStep == 2) return _mm512_permute_ps(a, 0xee);
  return _mm512_permute_ps(a, 0x55);
}

inline float vec_tree_sum(Vec a) {
  __m512 s = _mm512_add_ps(a.v, vec_upper<8>(a.v));
  s = _mm512_add_ps(s, vec_upper<4>(s));
  s = _mm512_add_ps(s, vec_upper<2>(s));
  return _mm512_cvtss_f32(_mm512_add_ps(s, vec_upper<1>(s)));
}

// The tree of row_max: the upper lane only where it is greater.
inline float vec_tree_max(Vec a) {
  __m512 m = _mm512_max_ps(vec_upper<8>(a.v), a.v);
  m = _mm512_max_ps(vec_upper<4>(m), m);
  m = _mm512_max_ps(vec_upper<2>(m), m);
  return _mm512_cvtss_f32(_mm512_max_ps(vec_upper<1>(m), m));
}

}  // namespace
}  // namespace llmq::quant
