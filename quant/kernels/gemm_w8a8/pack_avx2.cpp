#include <immintrin.h>

#include "quant/kernels/gemm_w8a8/pack_kernels.h"

namespace llmq::quant {
namespace {

// Eight rows of eight 32-bit groups become eight lines' halves of eight rows.
inline void transpose(__m256i* v) {
  const __m256i a0 = _mm256_unpacklo_epi32(v[0], v[1]);
  const __m256i a1 = _mm256_unpackhi_epi32(v[0], v[1]);
  const __m256i a2 = _mm256_unpacklo_epi32(v[2], v[3]);
  const __m256i a3 = _mm256_unpackhi_epi32(v[2], v[3]);
  const __m256i a4 = _mm256_unpacklo_epi32(v[4], v[5]);
  const __m256i a5 = _mm256_unpackhi_epi32(v[4], v[5]);
  const __m256i a6 = _mm256_unpacklo_epi32(v[6], v[7]);
  const __m256i a7 = _mm256_unpackhi_epi32(v[6], v[7]);
  const __m256i b0 = _mm256_unpacklo_epi64(a0, a2);
  const __m256i b1 = _mm256_unpackhi_epi64(a0, a2);
  const __m256i b2 = _mm256_unpacklo_epi64(a1, a3);
  const __m256i b3 = _mm256_unpackhi_epi64(a1, a3);
  const __m256i b4 = _mm256_unpacklo_epi64(a4, a6);
  const __m256i b5 = _mm256_unpackhi_epi64(a4, a6);
  const __m256i b6 = _mm256_unpacklo_epi64(a5, a7);
  const __m256i b7 = _mm256_unpackhi_epi64(a5, a7);
  v[0] = _mm256_permute2x128_si256(b0, b4, 0x20);
  v[1] = _mm256_permute2x128_si256(b1, b5, 0x20);
  v[2] = _mm256_permute2x128_si256(b2, b6, 0x20);
  v[3] = _mm256_permute2x128_si256(b3, b7, 0x20);
  v[4] = _mm256_permute2x128_si256(b0, b4, 0x31);
  v[5] = _mm256_permute2x128_si256(b1, b5, 0x31);
  v[6] = _mm256_permute2x128_si256(b2, b6, 0x31);
  v[7] = _mm256_permute2x128_si256(b3, b7, 0x31);
}

// The four codes of each 32-bit group added up.
inline __m256i group_sums(__m256i codes) {
  const __m256i pairs = _mm256_maddubs_epi16(_mm256_set1_epi8(1), codes);
  return _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
}

}  // namespace

void pack_lines_avx2(const int8_t* rows, int64_t row_stride, int64_t n_blocks, int8_t* out,
                     int32_t* sums) {
  for (int half = 0; half < 2; ++half) {
    __m256i sum = _mm256_setzero_si256();
    const int8_t* first = rows + half * 8 * row_stride;
    for (int64_t block = 0; block < n_blocks; ++block) {
      __m256i v[8];
#pragma GCC unroll 8
      for (int row = 0; row < 8; ++row) {
        const int8_t* from = first + row * row_stride + block * kPackBlockK;
        v[row] = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
      }
      transpose(v);
#pragma GCC unroll 8
      for (int line = 0; line < 8; ++line) {
        sum = _mm256_add_epi32(sum, group_sums(v[line]));
        int8_t* to = out + (block * 8 + line) * 64 + half * 32;
        _mm256_store_si256(reinterpret_cast<__m256i*>(to), v[line]);
      }
    }
    auto* at = reinterpret_cast<__m256i*>(sums + half * 8);
    _mm256_storeu_si256(at, _mm256_add_epi32(_mm256_loadu_si256(at), sum));
  }
}

}  // namespace llmq::quant
