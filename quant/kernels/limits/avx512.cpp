#include <immintrin.h>

#include "quant/kernels/limits/probes.h"

namespace llmq::quant {
namespace {

// More than latency (4) × units (2).
constexpr int kChains = 12;

int64_t f32_products(int64_t n_steps) {
  __m512 acc[kChains];
  for (int c = 0; c < kChains; ++c) acc[c] = _mm512_set1_ps(static_cast<float>(c));
  const __m512 a = _mm512_set1_ps(0.5F);
  for (int64_t i = 0; i < n_steps; ++i) {
#pragma GCC unroll 12
    for (int c = 0; c < kChains; ++c) acc[c] = _mm512_fmadd_ps(acc[c], a, a);
  }
  __m512 sum = acc[0];
  for (int c = 1; c < kChains; ++c) sum = _mm512_add_ps(sum, acc[c]);
  return static_cast<int64_t>(_mm512_cvtss_f32(sum));
}

}  // namespace

const ProductProbe kF32ProbeAvx512{LimitKind::kF32, Isa::kAvx512Vnni, "vfmadd231ps zmm",
                                   f32_products,    kChains * 32,     64};

int64_t read_avx512(const unsigned char* data, int64_t size_bytes) {
  __m512i sum[4] = {};
  for (int64_t i = 0; i + 256 <= size_bytes; i += 256) {
#pragma GCC unroll 4
    for (int u = 0; u < 4; ++u) {
      _mm_prefetch(reinterpret_cast<const char*>(data + i + 64 * u + 4096), _MM_HINT_T0);
      sum[u] = _mm512_xor_si512(sum[u], _mm512_loadu_si512(data + i + 64 * u));
    }
  }
  const __m512i all =
      _mm512_xor_si512(_mm512_xor_si512(sum[0], sum[1]), _mm512_xor_si512(sum[2], sum[3]));
  int64_t lanes[8];
  _mm512_storeu_si512(lanes, all);
  return lanes[0] ^ lanes[7];
}

}  // namespace llmq::quant
