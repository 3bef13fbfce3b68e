#pragma once

// Integer codes to the values that rows of x are multiplied by, for files compiled for AVX2;
// everything has internal linkage.

#include <immintrin.h>

#include <cstdint>

#include "quant/kernels/gemm_f32/lane_gemm.h"

namespace llmq::quant {
namespace {

// The offset and the scale of a row in a group, as far as there are any (a scale per row is in the
// epilogue).
template <bool kHasOffset, bool kHasGroups>
struct CodeValues {
  __m256 offset;
  __m256 scale;

  static CodeValues of(const WeightRows& w, int64_t row, int64_t group) {
    const int64_t index = row * w.n_groups + group;
    CodeValues result{};
    if constexpr (kHasOffset) result.offset = _mm256_set1_ps(w.offset[index]);
    if constexpr (kHasGroups) result.scale = _mm256_set1_ps(w.group_scale[index]);
    return result;
  }

  [[nodiscard]] __m256 operator()(__m256i codes) const {
    __m256 value = _mm256_cvtepi32_ps(codes);
    if constexpr (kHasOffset) value = _mm256_sub_ps(value, offset);
    if constexpr (kHasGroups) value = _mm256_mul_ps(value, scale);
    return value;
  }
};

}  // namespace
}  // namespace llmq::quant
