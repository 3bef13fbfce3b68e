#include <immintrin.h>

#include <cstdint>

#include "quant/kernels/gemm_f32/lanes_avx2.h"
#include "quant/kernels/gemm_f32/tile_kernels.h"
#include "quant/kernels/gemm_w4a16/kernels.h"
#include "quant/kernels/gemm_w4a16/panel_driver.h"
#include "quant/kernels/gemm_w8a16/code_values_avx2.h"

namespace llmq::quant {
namespace {

// What panel_driver.h asks for.
template <bool kHasOffset, bool kHasGroupScales>
struct Codes {
  static constexpr bool kHasGroups = kHasGroupScales;
  static constexpr int kFewRows = 1;
  static constexpr int kFewCols = 4;
  static constexpr int kManyRows = 3;
  static constexpr int kManyCols = 2;
  using Lanes = quant::Lanes;
  using Mask = LanesMask;
  using Row = CodeValues<kHasOffset, kHasGroups>;
  // Lines stay in memory: registers are too few for them.
  using Line = const unsigned char*;

  static Row row(const WeightRows& w, int64_t row, int64_t group) { return Row::of(w, row, group); }
  static Line line(const unsigned char* p) { return p; }

  // Of the codes in the highest nibble of each lane.
  static __m256 widen_high(__m256i nibbles, const Row& row) {
    return row(_mm256_srai_epi32(nibbles, 28));
  }
  static __m256i half(Line line, int index) {
    return _mm256_load_si256(reinterpret_cast<const __m256i*>(line) + index);
  }
  template <int kStep>
  static Lanes values(Line line, const Row& row) {
    return {widen_high(_mm256_slli_epi32(half(line, 0), 28 - 4 * kStep), row),
            widen_high(_mm256_slli_epi32(half(line, 1), 28 - 4 * kStep), row)};
  }
  static Lanes values(Line line, int64_t step, const Row& row) {
    const __m128i shift = _mm_cvtsi64_si128(28 - 4 * step);
    return {widen_high(_mm256_sll_epi32(half(line, 0), shift), row),
            widen_high(_mm256_sll_epi32(half(line, 1), shift), row)};
  }
  static void widen(Line line, int64_t step, int64_t end, float* out, int64_t out_step,
                    const Row& row) {
    for (; step < end; ++step) {
      store_lanes(out, values(line, step, row));
      out += out_step;
    }
  }

  static Lanes zero_lanes() { return quant::zero_lanes(); }
  static Mask mask(int64_t count) { return lanes_mask(count); }
  static Lanes load_lanes(const float* p) { return quant::load_lanes(p); }
  static Lanes load_lanes(const Mask& mask, const float* p) { return quant::load_lanes(mask, p); }
  static Lanes multiply_add(Lanes a, Lanes b, Lanes c) { return quant::multiply_add(a, b, c); }
  static Lanes multiply_add(const Mask& mask, Lanes a, Lanes b, Lanes c) {
    return quant::multiply_add(mask, a, b, c);
  }
  template <int kRows, int kCols>
  static void finish(const Epilogue& epilogue, int64_t col, int64_t n_cols,
                     const Lanes (&lanes)[kRows * kCols]) {
    float sums[8];
    store_tree_sums(lanes, sums);
    finish_rows(epilogue, kRows, col, n_cols, sums, kCols);
  }
};

}  // namespace

const LaneGemmKernels kGemmW4A16Avx2{.isa = Isa::kAvx2,
                                     .max_stream_rows = kMaxStreamRows,
                                     .tile_rows = kTileRowsAvx2,
                                     .tile_cols = kTileColsAvx2,
                                     .stream = stream_int4<Codes>,
                                     .widen = widen_int4<Codes>,
                                     .tile = multiply_tile_avx2};

}  // namespace llmq::quant
