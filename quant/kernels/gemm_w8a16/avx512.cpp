#include <cstdint>

#include "quant/kernels/gemm_f32/lanes_avx512.h"
#include "quant/kernels/gemm_f32/tile_kernels.h"
#include "quant/kernels/gemm_w8a16/kernels.h"

namespace llmq::quant {
namespace {

// int8 weights with or without an offset, with a scale per group or none (per row: in the
// epilogue).
template <bool kHasOffset, bool kHasGroups>
struct Int8Weights {
  static constexpr int64_t kStepBytes = 16;
  struct Row {
    __m512 offset;
    __m512 scale;
  };
  static Row row(const WeightRows& w, int64_t row, int64_t group) {
    const int64_t index = row * w.n_groups + group;
    Row result{};
    if constexpr (kHasOffset) result.offset = _mm512_set1_ps(w.offset[index]);
    if constexpr (kHasGroups) result.scale = _mm512_set1_ps(w.group_scale[index]);
    return result;
  }
  static __m512 widen(__m128i q, const Row& row) {
    __m512 value = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(q));
    if constexpr (kHasOffset) value = _mm512_sub_ps(value, row.offset);
    if constexpr (kHasGroups) value = _mm512_mul_ps(value, row.scale);
    return value;
  }
  static __m512 load(const unsigned char* p, const Row& row) {
    return widen(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)), row);
  }
  static __m512 load(__mmask16 mask, const unsigned char* p, const Row& row) {
    return widen(_mm_maskz_loadu_epi8(mask, p), row);
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

// Groups that do not begin at a multiple of kLanes.
void widen_uneven_groups(const WidenTask& task) {
  const WeightRows& w = *task.weights;
  const unsigned char* bytes = w.data + task.row * w.row_size_bytes;
  for (int64_t i = 0; i < task.count; ++i) {
    const int64_t index = task.row * w.n_groups + (task.k_begin + i) / w.group;
    float value = static_cast<float>(static_cast<int8_t>(bytes[task.k_begin + i]));
    if (w.offset != nullptr) value = value - w.offset[index];
    task.out[i] = value * w.group_scale[index];
  }
}

void widen(const WidenTask& task) {
  const int64_t end = task.k_begin + task.count;
  const int64_t group = task.weights->group;
  const bool has_offset = task.weights->offset != nullptr;
  if (group == 0) {
    if (has_offset) return widen_range<Int8Weights<true, false>>(task, task.k_begin, end);
    return widen_range<Int8Weights<false, false>>(task, task.k_begin, end);
  }
  if (group % kLanes != 0) return widen_uneven_groups(task);
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

const LaneGemmKernels kGemmW8A16Avx512{.isa = Isa::kAvx512Vnni,
                                       .max_stream_rows = kMaxStreamRows,
                                       .tile_rows = kTileRowsAvx512,
                                       .tile_cols = kTileColsAvx512,
                                       .stream = stream,
                                       .widen = widen,
                                       .tile = multiply_tile_avx512};

}  // namespace llmq::quant
