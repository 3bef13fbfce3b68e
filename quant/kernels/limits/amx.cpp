#include <immintrin.h>

#include "quant/kernels/limits/probes.h"

// Instructions are written as assembly where the compiler's intrinsics say too little: GCC 12's
// claim that a configuration has 8 bytes, and that tile loads read no memory.
namespace llmq::quant {
namespace {

// Palette 1 and eight tiles of 16 rows of 64 bytes.
alignas(64) constexpr unsigned char kConfig[64] = {
    1,  0, 0,  0, 0,  0,  0,  0,  0,  0,  0,  0,  0, 0, 0, 0, 64, 0, 64, 0, 64, 0,
    64, 0, 64, 0, 64, 0,  64, 0,  64, 0,  0,  0,  0, 0, 0, 0, 0,  0, 0,  0, 0,  0,
    0,  0, 0,  0, 16, 16, 16, 16, 16, 16, 16, 16, 0, 0, 0, 0, 0,  0, 0,  0};

struct alignas(64) TileBytes {
  unsigned char bytes[16][64];
};

void load_config() {
  __asm__ volatile("ldtilecfg %0" : : "m"(kConfig) : "memory");
}

// Tiles 4 to 7 from `tile`, tiles 0 to 3 zero.
void load_tiles(const TileBytes& tile) {
  const int64_t stride = 64;
  __asm__ volatile(
      "tileloadd (%0,%1,1), %%tmm4\n\ttileloadd (%0,%1,1), %%tmm5\n\t"
      "tileloadd (%0,%1,1), %%tmm6\n\ttileloadd (%0,%1,1), %%tmm7\n\t"
      "tilezero %%tmm0\n\ttilezero %%tmm1\n\ttilezero %%tmm2\n\ttilezero %%tmm3"
      :
      : "r"(&tile), "r"(stride)
      : "memory");
}

int64_t first_result() {
  TileBytes out;
  const int64_t stride = 64;
  __asm__ volatile("tilestored %%tmm0, (%0,%1,1)\n\ttilerelease"
                   :
                   : "r"(&out), "r"(stride)
                   : "memory");
  return out.bytes[0][0];
}

TileBytes filled(unsigned char value) {
  TileBytes tile;
  for (auto& row : tile.bytes) {
    for (unsigned char& byte : row) byte = value;
  }
  return tile;
}

// Two by two tiles, as the matrix kernels multiply them: four independent sums.
int64_t int8_products(int64_t n_steps) {
  const TileBytes tile = filled(3);
  load_config();
  load_tiles(tile);
  for (int64_t i = 0; i < n_steps; ++i) {
    __asm__ volatile(
        "tdpbssd %%tmm6, %%tmm4, %%tmm0\n\ttdpbssd %%tmm7, %%tmm4, %%tmm1\n\t"
        "tdpbssd %%tmm6, %%tmm5, %%tmm2\n\ttdpbssd %%tmm7, %%tmm5, %%tmm3" ::
            : "memory");
  }
  return first_result();
}

int64_t bf16_products(int64_t n_steps) {
  const TileBytes tile = filled(0x3c);  // a small normal number
  load_config();
  load_tiles(tile);
  for (int64_t i = 0; i < n_steps; ++i) {
    __asm__ volatile(
        "tdpbf16ps %%tmm6, %%tmm4, %%tmm0\n\ttdpbf16ps %%tmm7, %%tmm4, %%tmm1\n\t"
        "tdpbf16ps %%tmm6, %%tmm5, %%tmm2\n\ttdpbf16ps %%tmm7, %%tmm5, %%tmm3" ::
            : "memory");
  }
  return first_result();
}

// More than latency (6) × units (2).
constexpr int kChains = 14;

int64_t bf16_dot_products(int64_t n_steps) {
  __m512 acc[kChains];
  for (int c = 0; c < kChains; ++c) acc[c] = _mm512_set1_ps(static_cast<float>(c));
  __m512i bits = _mm512_set1_epi16(0x3c3c);
  for (int64_t i = 0; i < n_steps; ++i) {
    __asm__ volatile("" : "+v"(bits));
#pragma GCC unroll 14
    for (int c = 0; c < kChains; ++c) __asm__("vdpbf16ps %1, %1, %0" : "+v"(acc[c]) : "v"(bits));
  }
  __m512 sum = acc[0];
  for (int c = 1; c < kChains; ++c) sum = _mm512_add_ps(sum, acc[c]);
  return static_cast<int64_t>(_mm512_cvtss_f32(sum));
}

}  // namespace

const ProductProbe kInt8ProbeAmx{LimitKind::kInt8, Isa::kAmx,     "tdpbssd tmm",
                                 int8_products,    4 * 2 * 16384, 2048};
const ProductProbe kBf16ProbeAmx{LimitKind::kBf16, Isa::kAmx,    "tdpbf16ps tmm",
                                 bf16_products,    4 * 2 * 8192, 1024};
const ProductProbe kBf16ProbeAvx512{LimitKind::kBf16,  Isa::kAmx,    "vdpbf16ps zmm",
                                    bf16_dot_products, kChains * 64, 128};

}  // namespace llmq::quant
