#pragma once

// The sums of a panel in two ymm registers. Only for files compiled for AVX2; everything has
// internal linkage.

#include <immintrin.h>

#include <cstdint>

namespace llmq::quant {
namespace {

// Columns 0..7 and 8..15.
struct Sums16 {
  __m256i low;
  __m256i high;
};
struct Floats16 {
  __m256 low;
  __m256 high;
};
// All bits of the columns that exist.
struct ColsMask {
  __m256i low;
  __m256i high;
};

inline Sums16 add(Sums16 a, Sums16 b) {
  return {_mm256_add_epi32(a.low, b.low), _mm256_add_epi32(a.high, b.high)};
}
inline Floats16 add(Floats16 a, Floats16 b) {
  return {_mm256_add_ps(a.low, b.low), _mm256_add_ps(a.high, b.high)};
}
inline Floats16 multiply(Floats16 a, Floats16 b) {
  return {_mm256_mul_ps(a.low, b.low), _mm256_mul_ps(a.high, b.high)};
}
inline Floats16 to_float(Sums16 sums) {
  return {_mm256_cvtepi32_ps(sums.low), _mm256_cvtepi32_ps(sums.high)};
}
inline Sums16 load_sums(const int32_t* p) {
  return {_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)),
          _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p + 8))};
}
inline Sums16 load_sums(const int32_t* p, ColsMask mask) {
  return {_mm256_maskload_epi32(p, mask.low), _mm256_maskload_epi32(p + 8, mask.high)};
}
inline Floats16 load_floats(const float* p, ColsMask mask) {
  return {_mm256_maskload_ps(p, mask.low), _mm256_maskload_ps(p + 8, mask.high)};
}
inline void store_sums(int32_t* p, Sums16 sums) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), sums.low);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p + 8), sums.high);
}
inline void store_sums(int32_t* p, ColsMask mask, Sums16 sums) {
  _mm256_maskstore_epi32(p, mask.low, sums.low);
  _mm256_maskstore_epi32(p + 8, mask.high, sums.high);
}
inline void store_floats(float* p, ColsMask mask, Floats16 values) {
  _mm256_maskstore_ps(p, mask.low, values.low);
  _mm256_maskstore_ps(p + 8, mask.high, values.high);
}

struct SumsAvx2 {
  using Sums = Sums16;
  static ColsMask cols_mask(int64_t n_cols) {
    const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    const __m256i count = _mm256_set1_epi32(static_cast<int>(n_cols));
    return {_mm256_cmpgt_epi32(count, lane),
            _mm256_cmpgt_epi32(count, _mm256_add_epi32(lane, _mm256_set1_epi32(8)))};
  }
  static Floats16 all(float value) { return {_mm256_set1_ps(value), _mm256_set1_ps(value)}; }
};

}  // namespace
}  // namespace llmq::quant
