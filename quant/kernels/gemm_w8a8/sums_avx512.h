#pragma once

// The sums of a panel in one zmm register. Only for files compiled for AVX-512; everything has
// internal linkage.

#include <cstdint>

#include "quant/kernels/intrinsics_avx512.h"

namespace llmq::quant {
namespace {

inline __m512i add(__m512i a, __m512i b) {
  return _mm512_add_epi32(a, b);
}
inline __m512 add(__m512 a, __m512 b) {
  return _mm512_add_ps(a, b);
}
inline __m512 multiply(__m512 a, __m512 b) {
  return _mm512_mul_ps(a, b);
}
// a − 128 · b modulo 2^32
inline __m512i sub_times_128(__m512i a, __m512i b) {
  return _mm512_sub_epi32(a, _mm512_slli_epi32(b, 7));
}
inline __m512 to_float(__m512i sums) {
  return _mm512_cvtepi32_ps(sums);
}
inline __m512i load_sums(const int32_t* p) {
  return _mm512_loadu_si512(p);
}
inline __m512i load_sums(const int32_t* p, __mmask16 mask) {
  return _mm512_maskz_loadu_epi32(mask, p);
}
inline __m512 load_floats(const float* p, __mmask16 mask) {
  return _mm512_maskz_loadu_ps(mask, p);
}
inline void store_sums(int32_t* p, __m512i sums) {
  _mm512_storeu_si512(p, sums);
}
inline void store_sums(int32_t* p, __mmask16 mask, __m512i sums) {
  _mm512_mask_storeu_epi32(p, mask, sums);
}
inline void store_floats(float* p, __mmask16 mask, __m512 values) {
  _mm512_mask_storeu_ps(p, mask, values);
}

struct SumsAvx512 {
  using Sums = __m512i;
  static __mmask16 cols_mask(int64_t n_cols) {
    return static_cast<__mmask16>((1U << static_cast<unsigned>(n_cols)) - 1U);
  }
  static __m512 all(float value) { return _mm512_set1_ps(value); }
};

}  // namespace
}  // namespace llmq::quant
