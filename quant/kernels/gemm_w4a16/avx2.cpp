#include <immintrin.h>

#include <cstdint>

#include "quant/kernels/gemm_f32/lanes_avx2.h"
#include "quant/kernels/gemm_f32/tile_kernels.h"
#include "quant/kernels/gemm_w4a16/kernels.h"

namespace llmq::quant {
namespace {

constexpr int kBlockSteps = kInt4BlockK / kLanes;
// Lines ahead of their use are fetched from memory: about 4 KiB of the one stream that a thread
// reads.
constexpr int64_t kAheadBlocks = 8;

// What the codes of a row need to become values.
template <bool kHasOffset, bool kHasGroups>
struct Values {
  __m256 offset;
  __m256 scale;

  static Values of(const WeightRows& w, int64_t row, int64_t group) {
    const int64_t index = row * w.n_groups + group;
    Values result{};
    if constexpr (kHasOffset) result.offset = _mm256_set1_ps(w.offset[index]);
    if constexpr (kHasGroups) result.scale = _mm256_set1_ps(w.group_scale[index]);
    return result;
  }

  // Of the codes in the highest nibble of each lane.
  [[nodiscard]] __m256 operator()(__m256i high_nibbles) const {
    __m256 value = _mm256_cvtepi32_ps(_mm256_srai_epi32(high_nibbles, 28));
    if constexpr (kHasOffset) value = _mm256_sub_ps(value, offset);
    if constexpr (kHasGroups) value = _mm256_mul_ps(value, scale);
    return value;
  }
};

inline __m256i load_half(const unsigned char* line, int half) {
  return _mm256_load_si256(reinterpret_cast<const __m256i*>(line) + half);
}

// The shift that brings step `step` of a block to the highest nibble.
inline __m128i shift_of(int64_t step) {
  return _mm_cvtsi64_si128(28 - step % kBlockSteps * 4);
}

// Some columns of a panel times some rows of x.
template <bool kHasOffset, bool kHasGroups, int kRows, int kCols>
struct Columns {
  const StreamTask& task;
  const float* x;
  const unsigned char* line;  // of the first column in block 0
  int64_t col;
  int64_t last_col;  // columns past it repeat it and are not stored
  Values<kHasOffset, kHasGroups> values[kCols];
  Lanes acc[kRows * kCols];

  inline void set_values(int64_t group) {
#pragma GCC unroll 4
    for (int c = 0; c < kCols; ++c) {
      values[c] = Values<kHasOffset, kHasGroups>::of(
          *task.weights, col + c < last_col ? col + c : last_col, group);
    }
  }

  [[nodiscard]] const unsigned char* line_of(int64_t block, int c) const {
    return line + (block * kInt4PanelRows + c) * kInt4LineBytes;
  }

  // A whole block whose values are set.
  __attribute__((always_inline)) inline void multiply_block(int64_t block) {
    const float* x_block = x + block * kInt4BlockK;
#pragma GCC unroll 4
    for (int c = 0; c < kCols; ++c)
      _mm_prefetch(reinterpret_cast<const char*>(line_of(block + kAheadBlocks, c)), _MM_HINT_T0);
#pragma GCC unroll 8
    for (int s = 0; s < kBlockSteps; ++s) {
#pragma GCC unroll 4
      for (int c = 0; c < kCols; ++c) {
        const unsigned char* at = line_of(block, c);
        const Lanes w{values[c](_mm256_slli_epi32(load_half(at, 0), 28 - 4 * s)),
                      values[c](_mm256_slli_epi32(load_half(at, 1), 28 - 4 * s))};
#pragma GCC unroll 4
        for (int r = 0; r < kRows; ++r) {
          const Lanes v = load_lanes(x_block + r * task.x_stride + s * kLanes);
          acc[r * kCols + c] = multiply_add(v, w, acc[r * kCols + c]);
        }
      }
    }
  }

  // One step of 16 weights, or of the first `count` of them.
  inline void multiply_step(int64_t step, int64_t count) {
    const LanesMask mask = lanes_mask(count);
    const __m128i shift = shift_of(step);
#pragma GCC unroll 4
    for (int c = 0; c < kCols; ++c) {
      const unsigned char* at = line_of(step / kBlockSteps, c);
      const Lanes w{values[c](_mm256_sll_epi32(load_half(at, 0), shift)),
                    values[c](_mm256_sll_epi32(load_half(at, 1), shift))};
#pragma GCC unroll 4
      for (int r = 0; r < kRows; ++r) {
        const Lanes v = load_lanes(mask, x + r * task.x_stride + step * kLanes);
        acc[r * kCols + c] = multiply_add(mask, v, w, acc[r * kCols + c]);
      }
    }
  }

  inline void multiply() {
    const int64_t k = task.k;
    const int64_t group = kHasGroups ? task.weights->group : k;
    int64_t group_end = 0;  // of the values that are set
    for (int64_t i = 0; i < k;) {
      if (i >= group_end) {
        set_values(kHasGroups ? i / group : 0);
        group_end = kHasGroups ? i + group : k;
      }
      const int64_t end = group_end < k ? group_end : k;
      for (; i % kInt4BlockK == 0 && i + kInt4BlockK <= end; i += kInt4BlockK)
        multiply_block(i / kInt4BlockK);
      // What is left of the group up to the next block.
      const int64_t next_block = i / kInt4BlockK * kInt4BlockK + kInt4BlockK;
      const int64_t part_end = end < next_block ? end : next_block;
      for (; i < part_end; i += kLanes)
        multiply_step(i / kLanes, part_end - i < kLanes ? part_end - i : kLanes);
    }
  }
};

template <bool kHasOffset, bool kHasGroups, int kRows, int kCols>
inline void stream_columns(const StreamTask& task, int64_t row, int64_t col) {
  Columns<kHasOffset, kHasGroups, kRows, kCols> columns{task,
                                                        task.x + row * task.x_stride,
                                                        int4_line(*task.weights, col, 0),
                                                        col,
                                                        task.col_end - 1,
                                                        {},
                                                        {}};
#pragma GCC unroll 8
  for (int a = 0; a < kRows * kCols; ++a) columns.acc[a] = zero_lanes();
  columns.multiply();
  float sums[8];
  store_tree_sums(columns.acc, sums);
  Epilogue epilogue = task.epilogue;
  epilogue.y += row * epilogue.y_stride;
  const int64_t n_cols = task.col_end - col < kCols ? task.col_end - col : kCols;
  finish_rows(epilogue, kRows, col, n_cols, sums, kCols);
}

template <bool kHasOffset, bool kHasGroups>
inline void stream_panels(const StreamTask& task) {
  if (task.m == 1) {
    for (int64_t col = task.col_begin; col < task.col_end; col += 4)
      stream_columns<kHasOffset, kHasGroups, 1, 4>(task, 0, col);
    return;
  }
  for (int64_t col = task.col_begin; col < task.col_end; col += 2) {
    int64_t row = 0;
    for (; row + 3 <= task.m; row += 3)
      stream_columns<kHasOffset, kHasGroups, 3, 2>(task, row, col);
    if (task.m - row == 2) stream_columns<kHasOffset, kHasGroups, 2, 2>(task, row, col);
    if (task.m - row == 1) stream_columns<kHasOffset, kHasGroups, 1, 2>(task, row, col);
  }
}

void stream(const StreamTask& task) {
  const bool has_offset = task.weights->offset != nullptr;
  if (task.weights->group == 0) {
    if (has_offset) return stream_panels<true, false>(task);
    return stream_panels<false, false>(task);
  }
  if (has_offset) return stream_panels<true, true>(task);
  return stream_panels<false, true>(task);
}

// Elements [begin, end) of a row in one group; begin is a multiple of kLanes.
template <bool kHasOffset, bool kHasGroups>
inline void widen_part(const WidenTask& task, int64_t begin, int64_t end) {
  const WeightRows& w = *task.weights;
  const auto values =
      Values<kHasOffset, kHasGroups>::of(w, task.row, kHasGroups ? begin / w.group : 0);
  float* out = task.out + (begin - task.k_begin) / kLanes * task.out_step;
  // Rows that will be needed soon: in another panel they do not lie as far ahead as their number.
  const int64_t row_ahead = task.row + task.prefetch_ahead_bytes / w.row_size_bytes;
  for (int64_t i = begin; i < end; i += kLanes) {
    const unsigned char* line = int4_line(w, task.row, i / kInt4BlockK);
    if (i % kInt4BlockK == 0) {
      _mm_prefetch(reinterpret_cast<const char*>(int4_line(w, row_ahead, i / kInt4BlockK)),
                   _MM_HINT_T1);
    }
    const __m128i shift = shift_of(i / kLanes);
    store_lanes(out, {values(_mm256_sll_epi32(load_half(line, 0), shift)),
                      values(_mm256_sll_epi32(load_half(line, 1), shift))});
    out += task.out_step;
  }
}

template <bool kHasOffset>
inline void widen_row(const WidenTask& task) {
  const int64_t end = task.k_begin + task.count;
  const int64_t group = task.weights->group;
  if (group == 0) return widen_part<kHasOffset, false>(task, task.k_begin, end);
  for (int64_t begin = task.k_begin; begin < end;) {
    const int64_t group_end = (begin / group + 1) * group;
    const int64_t part_end = group_end < end ? group_end : end;
    widen_part<kHasOffset, true>(task, begin, part_end);
    begin = part_end;
  }
}

// Groups that do not begin at a multiple of kLanes.
void widen_uneven_groups(const WidenTask& task) {
  const WeightRows& w = *task.weights;
  for (int64_t i = 0; i < task.count; ++i) {
    const int64_t index = task.row * w.n_groups + (task.k_begin + i) / w.group;
    auto value = static_cast<float>(int4_code(w, task.row, task.k_begin + i));
    if (w.offset != nullptr) value = value - w.offset[index];
    task.out[i / kLanes * task.out_step + i % kLanes] = value * w.group_scale[index];
  }
}

void widen(const WidenTask& task) {
  if (task.weights->group % kLanes != 0) return widen_uneven_groups(task);
  if (task.weights->offset != nullptr) return widen_row<true>(task);
  return widen_row<false>(task);
}

}  // namespace

const LaneGemmKernels kGemmW4A16Avx2{.isa = Isa::kAvx2,
                                     .max_stream_rows = kMaxStreamRows,
                                     .tile_rows = kTileRowsAvx2,
                                     .tile_cols = kTileColsAvx2,
                                     .stream = stream,
                                     .widen = widen,
                                     .tile = multiply_tile_avx2};

}  // namespace llmq::quant
