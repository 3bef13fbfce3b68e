#pragma once

// Vec, 16 floats in two registers, as elementwise_simd.h needs it. Only for files compiled for
// AVX2; internal linkage.

#include "quant/kernels/elementwise/elementwise.h"
#include "quant/kernels/gemm_f32/lanes_avx2.h"

namespace llmq::quant {
namespace {

using Vec = Lanes;

// add_rows keeps 2 accumulators of 2 vectors in 8 of the 16 registers.
inline constexpr int kSumsPerBlock = 2;
inline constexpr int kVecsPerBlock = 2;
// vec_exps of as many at a time leaves room for its constants.
inline constexpr int kExpsTogether = 2;

// 16 registers are too few to turn rows in.
inline int64_t dot_turned_rows(const DotRowsTask& /*task*/) {
  return 0;
}

template <class Values>
inline Lanes load_first(const unsigned char* p, int64_t count) {
  return Values::load(count, p, {});
}

inline Vec vec_of(Lanes v) {
  return v;
}
inline Vec vec_set(float x) {
  return {_mm256_set1_ps(x), _mm256_set1_ps(x)};
}
inline Vec vec_load(const float* p) {
  return load_lanes(p);
}
inline void vec_store(float* p, Vec a) {
  store_lanes(p, a);
}

// The first `count` < 16 elements, zeros behind them; nothing else is touched.
inline Vec vec_load(const float* p, int64_t count) {
  return load_lanes(lanes_mask(count), p);
}
inline void vec_store(float* p, Vec a, int64_t count) {
  const LanesMask mask = lanes_mask(count);
  _mm256_maskstore_ps(p, mask.low, a.low);
  _mm256_maskstore_ps(p + 8, mask.high, a.high);
}
// Lanes below count from a, the others from b.
inline Vec vec_join(Vec a, Vec b, int64_t count) {
  const LanesMask mask = lanes_mask(count);
  return {_mm256_blendv_ps(b.low, a.low, _mm256_castsi256_ps(mask.low)),
          _mm256_blendv_ps(b.high, a.high, _mm256_castsi256_ps(mask.high))};
}

inline Vec vec_add(Vec a, Vec b) {
  return {_mm256_add_ps(a.low, b.low), _mm256_add_ps(a.high, b.high)};
}
inline Vec vec_sub(Vec a, Vec b) {
  return {_mm256_sub_ps(a.low, b.low), _mm256_sub_ps(a.high, b.high)};
}
inline Vec vec_mul(Vec a, Vec b) {
  return {_mm256_mul_ps(a.low, b.low), _mm256_mul_ps(a.high, b.high)};
}
inline Vec vec_div(Vec a, Vec b) {
  return {_mm256_div_ps(a.low, b.low), _mm256_div_ps(a.high, b.high)};
}
inline Vec vec_fma(Vec a, Vec b, Vec c) {
  return multiply_add(a, b, c);
}
inline Vec vec_negate(Vec a) {
  const __m256 sign = _mm256_set1_ps(-0.0F);
  return {_mm256_xor_ps(a.low, sign), _mm256_xor_ps(a.high, sign)};
}
// a > b ? a : b
inline Vec vec_larger(Vec a, Vec b) {
  return {_mm256_max_ps(a.low, b.low), _mm256_max_ps(a.high, b.high)};
}
// x < limit ? 0 : the bits of a plus the bits of b shifted up by 23
inline __m256 add_exponent(__m256 x, __m256 limit, __m256 a, __m256 b) {
  const __m256i sum =
      _mm256_add_epi32(_mm256_castps_si256(a), _mm256_slli_epi32(_mm256_castps_si256(b), 23));
  return _mm256_and_ps(_mm256_cmp_ps(x, limit, _CMP_NLT_UQ), _mm256_castsi256_ps(sum));
}
inline Vec vec_add_exponent(Vec x, Vec limit, Vec a, Vec b) {
  return {add_exponent(x.low, limit.low, a.low, b.low),
          add_exponent(x.high, limit.high, a.high, b.high)};
}
// x <= limit ? a : x + b
inline Vec vec_add_above(Vec x, Vec limit, Vec a, Vec b) {
  return {_mm256_blendv_ps(_mm256_add_ps(x.low, b.low), a.low,
                           _mm256_cmp_ps(x.low, limit.low, _CMP_LE_OQ)),
          _mm256_blendv_ps(_mm256_add_ps(x.high, b.high), a.high,
                           _mm256_cmp_ps(x.high, limit.high, _CMP_LE_OQ))};
}

inline float vec_tree_sum(Vec a) {
  const __m256 s8 = _mm256_add_ps(a.low, a.high);
  const __m128 s4 = _mm_add_ps(_mm256_castps256_ps128(s8), _mm256_extractf128_ps(s8, 1));
  const __m128 s2 = _mm_add_ps(s4, _mm_permute_ps(s4, 0xee));
  return _mm_cvtss_f32(_mm_add_ps(s2, _mm_permute_ps(s2, 0x55)));
}

// The tree of row_max: the upper lane only where it is greater.
inline float vec_tree_max(Vec a) {
  const __m256 m8 = _mm256_max_ps(a.high, a.low);
  const __m128 m4 = _mm_max_ps(_mm256_extractf128_ps(m8, 1), _mm256_castps256_ps128(m8));
  const __m128 m2 = _mm_max_ps(_mm_permute_ps(m4, 0xee), m4);
  return _mm_cvtss_f32(_mm_max_ps(_mm_permute_ps(m2, 0x55), m2));
}

}  // namespace
}  // namespace llmq::quant
