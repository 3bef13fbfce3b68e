#include <immintrin.h>

#include "quant/kernels/limits/probes.h"

namespace llmq::quant {
namespace {

// More than latency (5) × units (2).
constexpr int kChains = 12;

int64_t int8_products(int64_t n_steps) {
  __m512i acc[kChains];
  for (int c = 0; c < kChains; ++c) acc[c] = _mm512_set1_epi32(c);
  const __m512i a = _mm512_set1_epi8(3);
  for (int64_t i = 0; i < n_steps; ++i) {
#pragma GCC unroll 12
    for (int c = 0; c < kChains; ++c) acc[c] = _mm512_dpbusd_epi32(acc[c], a, a);
  }
  int64_t lanes[8];
  __m512i sum = acc[0];
  for (int c = 1; c < kChains; ++c) sum = _mm512_xor_si512(sum, acc[c]);
  _mm512_storeu_si512(lanes, sum);
  return lanes[0];
}

}  // namespace

const ProductProbe kInt8ProbeAvx512Vnni{LimitKind::kInt8, Isa::kAvx512Vnni, "vpdpbusd zmm",
                                        int8_products,    kChains * 128,    256};

}  // namespace llmq::quant
