#include <immintrin.h>

#include <cstdint>

#include "quant/kernels/gemm_w8a8/sums_avx2.h"
// After the sums, whose functions its templates use.
#include "quant/kernels/gemm_w8a8/block_multiply.h"

namespace llmq::quant {
namespace {

inline Sums16 sub_times_128(Sums16 a, Sums16 b) {
  return {_mm256_sub_epi32(a.low, _mm256_slli_epi32(b.low, 7)),
          _mm256_sub_epi32(a.high, _mm256_slli_epi32(b.high, 7))};
}

// 256-bit VPDPBUSD: x shifted to 0..255 by the signed weights, four products added to each of 8
// sums without saturation.
struct AvxVnni : SumsAvx2 {
  // 12 accumulators, one line and a row of x fill 15 of the 16 registers.
  static constexpr int kTileRows = 6;
  static constexpr int kTilePanels = 1;
  static constexpr int kMaxStreamRows = 6;
  static constexpr int64_t kXBytes = 1;
  static constexpr bool kShift = true;
  static constexpr int kMaxChains = 4;
  using Products = Sums16;
  using Line = Sums16;
  using Codes = __m256i;

  static Products no_products() { return {_mm256_setzero_si256(), _mm256_setzero_si256()}; }
  static Line load_line(const int8_t* p) {
    return {_mm256_load_si256(reinterpret_cast<const __m256i*>(p)),
            _mm256_load_si256(reinterpret_cast<const __m256i*>(p + 32))};
  }
  static Codes load_codes(const unsigned char* p) {
    int32_t group;
    __builtin_memcpy(&group, p, sizeof group);
    return _mm256_set1_epi32(group);
  }
  static void add_products(Products& products, Codes x, const Line& weights) {
    products.low = _mm256_dpbusd_avx_epi32(products.low, x, weights.low);
    products.high = _mm256_dpbusd_avx_epi32(products.high, x, weights.high);
  }
  static Sums sums_of(const Products& products) { return products; }
};

}  // namespace

const Int8Kernels kGemmW8A8AvxVnni{.isa = Isa::kAvxVnni,
                                   .max_stream_rows = AvxVnni::kMaxStreamRows,
                                   .tile_panels = AvxVnni::kTilePanels,
                                   .block_k = 1024,
                                   .x_size_bytes = AvxVnni::kXBytes,
                                   .pack_row = pack_shifted_row,
                                   .multiply = multiply_block<AvxVnni>};

}  // namespace llmq::quant
