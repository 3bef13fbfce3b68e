#include <immintrin.h>

#include <cstdint>

#include "quant/kernels/gemm_f32/lanes_avx2.h"
#include "quant/kernels/gemm_f32/tile_kernels.h"
#include "quant/kernels/gemm_w8a16/code_values_avx2.h"
#include "quant/kernels/gemm_w8a16/coded_rows.h"
#include "quant/kernels/gemm_w8a16/kernels.h"

namespace llmq::quant {
namespace {

// int8 weights with or without an offset, with a scale per group or none (per row: in the
// epilogue).
template <bool kHasOffset, bool kHasGroups>
struct Int8Weights {
  static constexpr int64_t kStepBytes = 16;
  using Row = CodeValues<kHasOffset, kHasGroups>;
  static Row row(const WeightRows& w, int64_t row, int64_t group) { return Row::of(w, row, group); }
  static __m256 widen(__m128i q, const Row& row) { return row(_mm256_cvtepi8_epi32(q)); }
  static Lanes load(const unsigned char* p, const Row& row) {
    return {widen(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)), row),
            widen(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p + 8)), row)};
  }
  static Lanes load(int64_t count, const unsigned char* p, const Row& row) {
    const __m128i bytes = load_bytes(p, count);
    return {widen(bytes, row), widen(_mm_srli_si128(bytes, 8), row)};
  }
};

void stream(const StreamTask& task) {
  const bool has_offset = task.weights->offset != nullptr;
  if (task.weights->group == 0) {
    if (has_offset) return stream_weights<Int8Weights<true, false>>(task);
    return stream_weights<Int8Weights<false, false>>(task);
  }
  if (has_offset) return stream_weights<Int8Weights<true, true>>(task);
  return stream_weights<Int8Weights<false, true>>(task);
}

void widen(const WidenTask& task) {
  const int64_t end = task.k_begin + task.count;
  const int64_t group = task.weights->group;
  const bool has_offset = task.weights->offset != nullptr;
  if (group == 0) {
    if (has_offset) return widen_range<Int8Weights<true, false>>(task, task.k_begin, end);
    return widen_range<Int8Weights<false, false>>(task, task.k_begin, end);
  }
  if (group % kLanes != 0) return widen_uneven_groups<int8_code>(task);
  for (int64_t begin = task.k_begin; begin < end;) {
    const int64_t group_end = (begin / group + 1) * group;
    const int64_t part_end = group_end < end ? group_end : end;
    if (has_offset) {
      widen_range<Int8Weights<true, true>>(task, begin, part_end);
    } else {
      widen_range<Int8Weights<false, true>>(task, begin, part_end);
    }
    begin = part_end;
  }
}

}  // namespace

const LaneGemmKernels kGemmW8A16Avx2{.isa = Isa::kAvx2,
                                     .max_stream_rows = kMaxStreamRows,
                                     .tile_rows = kTileRowsAvx2,
                                     .tile_cols = kTileColsAvx2,
                                     .stream = stream,
                                     .widen = widen,
                                     .tile = multiply_tile_avx2};

}  // namespace llmq::quant
