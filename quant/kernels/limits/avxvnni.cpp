#include <immintrin.h>

#include "quant/kernels/limits/probes.h"

namespace llmq::quant {
namespace {

// More than latency (5) × units (2).
constexpr int kChains = 12;

int64_t int8_products(int64_t n_steps) {
  __m256i acc[kChains];
  for (int c = 0; c < kChains; ++c) acc[c] = _mm256_set1_epi32(c);
  const __m256i a = _mm256_set1_epi8(3);
  for (int64_t i = 0; i < n_steps; ++i) {
#pragma GCC unroll 12
    for (int c = 0; c < kChains; ++c) acc[c] = _mm256_dpbusd_avx_epi32(acc[c], a, a);
  }
  __m256i sum = acc[0];
  for (int c = 1; c < kChains; ++c) sum = _mm256_xor_si256(sum, acc[c]);
  return _mm256_extract_epi64(sum, 0);
}

}  // namespace

const ProductProbe kInt8ProbeAvxVnni{LimitKind::kInt8, Isa::kAvxVnni, "vpdpbusd ymm",
                                     int8_products,    kChains * 64,  128};

}  // namespace llmq::quant
