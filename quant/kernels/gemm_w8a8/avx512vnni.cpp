#include <cstdint>

#include "quant/kernels/gemm_w8a8/sums_avx512.h"
// After the sums, whose functions its templates use.
#include "quant/kernels/gemm_w8a8/block_multiply.h"

namespace llmq::quant {
namespace {

// VPDPBUSD: x shifted to 0..255 by the signed weights, four products added to each of 16 sums
// without saturation.
struct Avx512Vnni : SumsAvx512 {
  // 24 accumulators, four lines and a row of x fill the 32 registers.
  static constexpr int kTileRows = 6;
  static constexpr int kTilePanels = 4;
  static constexpr int kMaxStreamRows = 8;
  static constexpr int64_t kXBytes = 1;
  static constexpr bool kShift = true;
  static constexpr bool kHasLatency = true;
  using Products = __m512i;
  using Line = __m512i;
  using Codes = __m512i;

  static Products no_products() { return _mm512_setzero_si512(); }
  static Line load_line(const int8_t* p) { return _mm512_load_si512(p); }
  static Codes load_codes(const unsigned char* p) {
    int32_t group;
    __builtin_memcpy(&group, p, sizeof group);
    return _mm512_set1_epi32(group);
  }
  static void add_products(Products& products, Codes x, Line weights) {
    products = _mm512_dpbusd_epi32(products, x, weights);
  }
  static Sums sums_of(Products products) { return products; }
};

}  // namespace

const Int8Kernels kGemmW8A8Avx512Vnni{.isa = Isa::kAvx512Vnni,
                                      .max_stream_rows = Avx512Vnni::kMaxStreamRows,
                                      .tile_panels = Avx512Vnni::kTilePanels,
                                      // 128 KiB of weights from the L2 cache cost less than
                                      // more, shorter passes over k do.
                                      .block_k = 2048,
                                      .x_size_bytes = Avx512Vnni::kXBytes,
                                      .pack_row = pack_shifted_row,
                                      .multiply = multiply_block<Avx512Vnni>};

}  // namespace llmq::quant
