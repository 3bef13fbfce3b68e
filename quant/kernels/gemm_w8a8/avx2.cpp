#include <immintrin.h>

#include <cstdint>

#include "quant/kernels/gemm_w8a8/sums_avx2.h"
// After the sums, whose functions its templates use.
#include "quant/kernels/gemm_w8a8/block_multiply.h"

namespace llmq::quant {
namespace {

// Both operands widened to int16 and multiplied by VPMADDWD, which adds two products (at most 2^15
// in magnitude) to an int32 and so is exact. VPMADDUBSW would take half the instructions and
// saturate.
struct Avx2 : SumsAvx2 {
  // 12 accumulators and a line and a row of x, widened as they are used.
  static constexpr int kTileRows = 3;
  static constexpr int kTilePanels = 1;
  static constexpr int kMaxStreamRows = 3;
  static constexpr int64_t kXBytes = 2;
  static constexpr bool kShift = false;
  static constexpr int kMaxChains = 1;  // the additions that follow each other take a cycle
  // Register i holds columns 4i..4i+3, two sums for each.
  struct Products {
    __m256i columns[4];
  };
  // The same columns, four int16 for each.
  struct Line {
    __m256i columns[4];
  };
  using Codes = __m256i;

  static Products no_products() {
    const __m256i zero = _mm256_setzero_si256();
    return {{zero, zero, zero, zero}};
  }
  static __m256i widen(const int8_t* p) {
    return _mm256_cvtepi8_epi16(_mm_load_si128(reinterpret_cast<const __m128i*>(p)));
  }
  static Line load_line(const int8_t* p) {
    return {{widen(p), widen(p + 16), widen(p + 32), widen(p + 48)}};
  }
  static Codes load_codes(const unsigned char* p) {
    int64_t group;
    __builtin_memcpy(&group, p, sizeof group);
    return _mm256_set1_epi64x(group);
  }
  static void add_products(Products& products, Codes x, const Line& weights) {
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      products.columns[i] =
          _mm256_add_epi32(products.columns[i], _mm256_madd_epi16(x, weights.columns[i]));
    }
  }
  // Columns 0..7 of two registers with columns 0..3 and 4..7.
  static __m256i add_pairs(__m256i a, __m256i b) {
    return _mm256_permute4x64_epi64(_mm256_hadd_epi32(a, b), 0xd8);
  }
  static Sums sums_of(const Products& products) {
    return {add_pairs(products.columns[0], products.columns[1]),
            add_pairs(products.columns[2], products.columns[3])};
  }
};

void pack_row(const int8_t* codes, int64_t count, int64_t padded, unsigned char* out) {
  auto* widened = reinterpret_cast<int16_t*>(out);
  for (int64_t i = 0; i < count; ++i) widened[i] = static_cast<int16_t>(int{codes[i]});
  for (int64_t i = count; i < padded; ++i) widened[i] = 0;
}

}  // namespace

const Int8Kernels kGemmW8A8Avx2{.isa = Isa::kAvx2,
                                .max_stream_rows = Avx2::kMaxStreamRows,
                                .tile_panels = Avx2::kTilePanels,
                                .block_k = 1024,
                                .x_size_bytes = Avx2::kXBytes,
                                .pack_row = pack_row,
                                .multiply = multiply_block<Avx2>};

}  // namespace llmq::quant
