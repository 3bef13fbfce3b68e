#include <immintrin.h>

#include "quant/kernels/limits/probes.h"

namespace llmq::quant {
namespace {

// More than latency (4) × units (2).
constexpr int kChains = 12;

int64_t f32_products(int64_t n_steps) {
  __m256 acc[kChains];
  for (int c = 0; c < kChains; ++c) acc[c] = _mm256_set1_ps(static_cast<float>(c));
  const __m256 a = _mm256_set1_ps(0.5F);
  for (int64_t i = 0; i < n_steps; ++i) {
#pragma GCC unroll 12
    for (int c = 0; c < kChains; ++c) acc[c] = _mm256_fmadd_ps(acc[c], a, a);
  }
  __m256 sum = acc[0];
  for (int c = 1; c < kChains; ++c) sum = _mm256_add_ps(sum, acc[c]);
  return static_cast<int64_t>(_mm256_cvtss_f32(sum));
}

// The exact product of signed bytes: 16-bit pairs, whose sums cannot saturate.
int64_t int8_products(int64_t n_steps) {
  __m256i acc[kChains];
  for (int c = 0; c < kChains; ++c) acc[c] = _mm256_set1_epi32(c);
  __m256i a = _mm256_set1_epi16(3);
  for (int64_t i = 0; i < n_steps; ++i) {
    asm volatile("" : "+x"(a));  // else the products are taken out of the loop
#pragma GCC unroll 12
    for (int c = 0; c < kChains; ++c) acc[c] = _mm256_add_epi32(acc[c], _mm256_madd_epi16(a, a));
  }
  __m256i sum = acc[0];
  for (int c = 1; c < kChains; ++c) sum = _mm256_xor_si256(sum, acc[c]);
  return _mm256_extract_epi64(sum, 0);
}

}  // namespace

const ProductProbe kF32ProbeAvx2{LimitKind::kF32, Isa::kAvx2,   "vfmadd231ps ymm",
                                 f32_products,    kChains * 16, 32};
const ProductProbe kInt8ProbeAvx2{LimitKind::kInt8, Isa::kAvx2,   "vpmaddwd + vpaddd ymm",
                                  int8_products,    kChains * 32, 64};

int64_t read_avx2(const unsigned char* data, int64_t size_bytes) {
  __m256i sum[4] = {};
  for (int64_t i = 0; i + 128 <= size_bytes; i += 128) {
    _mm_prefetch(reinterpret_cast<const char*>(data + i + 4096), _MM_HINT_T0);
    _mm_prefetch(reinterpret_cast<const char*>(data + i + 4160), _MM_HINT_T0);
#pragma GCC unroll 4
    for (int u = 0; u < 4; ++u) {
      const auto* at = reinterpret_cast<const __m256i*>(data + i + 32 * u);
      sum[u] = _mm256_xor_si256(sum[u], _mm256_loadu_si256(at));
    }
  }
  const __m256i all =
      _mm256_xor_si256(_mm256_xor_si256(sum[0], sum[1]), _mm256_xor_si256(sum[2], sum[3]));
  return _mm256_extract_epi64(all, 0) ^ _mm256_extract_epi64(all, 3);
}

}  // namespace llmq::quant
