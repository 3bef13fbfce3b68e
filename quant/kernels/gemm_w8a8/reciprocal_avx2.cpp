#include <immintrin.h>

#include <cstdint>

#include "quant/kernels/gemm_w8a8/reciprocal_kernels.h"

namespace llmq::quant {
namespace {

// Eight codes as int32. The bound comes second: it is what both instructions return when the first
// operand is NaN.
__m256i codes_of(__m256 x, __m256 reciprocal, __m256 offset) {
  const __m256 rounded = _mm256_round_ps(_mm256_add_ps(_mm256_mul_ps(x, reciprocal), offset),
                                         _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  const __m256 at_least = _mm256_max_ps(rounded, _mm256_set1_ps(-128.0F));
  return _mm256_cvtps_epi32(_mm256_min_ps(at_least, _mm256_set1_ps(127.0F)));
}

// Eight codes in the low half; narrowing saturates nothing, since they are bytes already.
__m128i to_bytes(__m256i codes) {
  const __m128i words =
      _mm_packs_epi32(_mm256_castsi256_si128(codes), _mm256_extracti128_si256(codes, 1));
  return _mm_packs_epi16(words, words);
}

void quantize(const float* x, int64_t n, float reciprocal, float offset, int8_t* codes) {
  const __m256 r = _mm256_set1_ps(reciprocal);
  const __m256 o = _mm256_set1_ps(offset);
  int64_t i = 0;
  for (; i + 8 <= n; i += 8) {
    _mm_storel_epi64(reinterpret_cast<__m128i*>(codes + i),
                     to_bytes(codes_of(_mm256_loadu_ps(x + i), r, o)));
  }
  if (i < n) {
    float rest[8] = {};
    int8_t rest_codes[8];
    const auto count = static_cast<size_t>(n - i);
    __builtin_memcpy(rest, x + i, count * sizeof(float));
    _mm_storel_epi64(reinterpret_cast<__m128i*>(rest_codes),
                     to_bytes(codes_of(_mm256_loadu_ps(rest), r, o)));
    __builtin_memcpy(codes + i, rest_codes, count);
  }
}

}  // namespace

const ReciprocalKernels kReciprocalAvx2{.isa = Isa::kAvx2, .quantize = quantize};

}  // namespace llmq::quant
