#include <cstdint>

#include "quant/kernels/gemm_f32/lanes_avx512.h"
#include "quant/kernels/gemm_f32/tile_kernels.h"
#include "quant/kernels/gemm_w4a16/kernels.h"
#include "quant/kernels/gemm_w4a16/panel_driver.h"

namespace llmq::quant {
namespace {

// What panel_driver.h asks for.
template <bool kHasOffset, bool kHasGroupScales>
struct Codes {
  static constexpr bool kHasGroups = kHasGroupScales;
  static constexpr int kFewRows = 2;
  static constexpr int kFewCols = 8;
  static constexpr int kManyRows = 4;
  static constexpr int kManyCols = 4;
  using Lanes = __m512;
  using Mask = __mmask16;
  // The values of the 16 codes in the order of their nibbles, by which four bits of a lane choose.
  using Row = __m512;
  using Line = __m512i;

  static Row row(const WeightRows& w, int64_t row, int64_t group) {
    const int64_t index = row * w.n_groups + group;
    __m512 value = _mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, -8, -7, -6, -5, -4, -3, -2, -1);
    if constexpr (kHasOffset) value = _mm512_sub_ps(value, _mm512_set1_ps(w.offset[index]));
    if constexpr (kHasGroups) value = _mm512_mul_ps(value, _mm512_set1_ps(w.group_scale[index]));
    return value;
  }
  static Line line(const unsigned char* p) { return _mm512_load_si512(p); }

  static Line from_step(Line line, int64_t step) {
    return _mm512_srl_epi32(line, _mm_cvtsi64_si128(4 * step));
  }
  template <int kStep>
  static Lanes values(Line line, Row table) {
    if constexpr (kStep == 0) return _mm512_permutexvar_ps(line, table);
    return _mm512_permutexvar_ps(_mm512_srli_epi32(line, 4 * kStep), table);
  }
  static Lanes values(Line line, int64_t step, Row table) {
    return _mm512_permutexvar_ps(from_step(line, step), table);
  }
  static void widen(const unsigned char* line, int64_t step, int64_t end, float* out,
                    int64_t out_step, Row table) {
    __m512i q = from_step(_mm512_load_si512(line), step);
    for (; step < end; ++step) {
      _mm512_store_ps(out, _mm512_permutexvar_ps(q, table));
      q = _mm512_srli_epi32(q, 4);
      out += out_step;
    }
  }

  static Lanes zero_lanes() { return _mm512_setzero_ps(); }
  static Mask mask(int64_t count) { return lanes_mask(count); }
  static Lanes load_lanes(const float* p) { return _mm512_loadu_ps(p); }
  static Lanes load_lanes(Mask mask, const float* p) { return _mm512_maskz_loadu_ps(mask, p); }
  static Lanes multiply_add(Lanes a, Lanes b, Lanes c) { return _mm512_fmadd_ps(a, b, c); }
  static Lanes multiply_add(Mask mask, Lanes a, Lanes b, Lanes c) {
    return _mm512_mask3_fmadd_ps(a, b, c, mask);
  }
  template <int kRows, int kCols>
  static void finish(const Epilogue& epilogue, int64_t col, int64_t n_cols,
                     const Lanes (&lanes)[kRows * kCols]) {
    float sums[32];
    store_tree_sums(lanes, sums);
    finish_rows(epilogue, kRows, col, n_cols, sums, kCols);
  }
};

}  // namespace

const LaneGemmKernels kGemmW4A16Avx512{.isa = Isa::kAvx512Vnni,
                                       .max_stream_rows = kMaxStreamRows,
                                       .tile_rows = kTileRowsAvx512,
                                       .tile_cols = kTileColsAvx512,
                                       .stream = stream_int4<Codes>,
                                       .widen = widen_int4<Codes>,
                                       .tile = multiply_tile_avx512};

}  // namespace llmq::quant
