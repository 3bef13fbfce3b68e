#include <cstdint>

#include "quant/kernels/gemm_f32/lanes_avx512.h"
#include "quant/kernels/gemm_f32/tile_kernels.h"
#include "quant/kernels/gemm_w4a16/kernels.h"

namespace llmq::quant {
namespace {

constexpr int kBlockSteps = kInt4BlockK / kLanes;
// Lines ahead of their use are fetched from memory: about 4 KiB of the one stream that a thread
// reads.
constexpr int64_t kAheadBlocks = 8;

// The values of the 16 codes in the order of their nibbles, by which four bits of a lane choose.
template <bool kHasOffset, bool kHasGroups>
inline __m512 value_table(const WeightRows& w, int64_t row, int64_t group) {
  const int64_t index = row * w.n_groups + group;
  __m512 value = _mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, -8, -7, -6, -5, -4, -3, -2, -1);
  if constexpr (kHasOffset) value = _mm512_sub_ps(value, _mm512_set1_ps(w.offset[index]));
  if constexpr (kHasGroups) value = _mm512_mul_ps(value, _mm512_set1_ps(w.group_scale[index]));
  return value;
}

// Some columns of a panel times some rows of x.
template <bool kHasOffset, bool kHasGroups, int kRows, int kCols>
struct Columns {
  const StreamTask& task;
  const float* x;
  const unsigned char* line;  // of the first column in block 0
  int64_t col;
  int64_t last_col;  // columns past it repeat it and are not stored
  __m512 table[kCols];
  __m512 acc[kRows * kCols];

  __attribute__((always_inline)) inline void set_tables(int64_t group) {
#pragma GCC unroll 8
    for (int c = 0; c < kCols; ++c) {
      table[c] = value_table<kHasOffset, kHasGroups>(
          *task.weights, col + c < last_col ? col + c : last_col, group);
    }
  }

  [[nodiscard]] __attribute__((always_inline)) inline __m512i codes(int64_t block, int c) const {
    return _mm512_load_si512(line + (block * kInt4PanelRows + c) * kInt4LineBytes);
  }

  // A whole block whose tables are set.
  __attribute__((always_inline)) inline void multiply_block(int64_t block) {
    const float* x_block = x + block * kInt4BlockK;
    __m512i q[kCols];
#pragma GCC unroll 8
    for (int c = 0; c < kCols; ++c) {
      q[c] = codes(block, c);
      _mm_prefetch(reinterpret_cast<const char*>(
                       line + ((block + kAheadBlocks) * kInt4PanelRows + c) * kInt4LineBytes),
                   _MM_HINT_T0);
    }
#pragma GCC unroll 8
    for (int s = 0; s < kBlockSteps; ++s) {
      __m512 values[kRows];
#pragma GCC unroll 4
      for (int r = 0; r < kRows; ++r)
        values[r] = _mm512_loadu_ps(x_block + r * task.x_stride + s * kLanes);
#pragma GCC unroll 8
      for (int c = 0; c < kCols; ++c) {
        const __m512 w = _mm512_permutexvar_ps(
            s == 0 ? q[c] : _mm512_srli_epi32(q[c], static_cast<unsigned>(4 * s)), table[c]);
#pragma GCC unroll 4
        for (int r = 0; r < kRows; ++r)
          acc[r * kCols + c] = _mm512_fmadd_ps(values[r], w, acc[r * kCols + c]);
      }
    }
  }

  // One step of 16 weights, or of the first `count` of them.
  inline void multiply_step(int64_t step, int64_t count) {
    const __mmask16 mask = lanes_mask(count);
    const __m128i shift = _mm_cvtsi32_si128(static_cast<int>(step % kBlockSteps * 4));
#pragma GCC unroll 8
    for (int c = 0; c < kCols; ++c) {
      const __m512 w =
          _mm512_permutexvar_ps(_mm512_srl_epi32(codes(step / kBlockSteps, c), shift), table[c]);
#pragma GCC unroll 4
      for (int r = 0; r < kRows; ++r) {
        const __m512 value = _mm512_maskz_loadu_ps(mask, x + r * task.x_stride + step * kLanes);
        acc[r * kCols + c] = _mm512_mask3_fmadd_ps(value, w, acc[r * kCols + c], mask);
      }
    }
  }

  inline void multiply() {
    const int64_t k = task.k;
    const int64_t group = kHasGroups ? task.weights->group : k;
    int64_t group_end = 0;  // of the tables that are set
    for (int64_t i = 0; i < k;) {
      if (i >= group_end) {
        set_tables(kHasGroups ? i / group : 0);
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
#pragma GCC unroll 32
  for (int a = 0; a < kRows * kCols; ++a) columns.acc[a] = _mm512_setzero_ps();
  columns.multiply();
  float sums[32];
  store_tree_sums(columns.acc, sums);
  Epilogue epilogue = task.epilogue;
  epilogue.y += row * epilogue.y_stride;
  const int64_t n_cols = task.col_end - col < kCols ? task.col_end - col : kCols;
  finish_rows(epilogue, kRows, col, n_cols, sums, kCols);
}

template <bool kHasOffset, bool kHasGroups>
inline void stream_panels(const StreamTask& task) {
  for (int64_t col = task.col_begin; col < task.col_end; col += kInt4PanelRows) {
    if (task.m == 1) {
      stream_columns<kHasOffset, kHasGroups, 1, 8>(task, 0, col);
      continue;
    }
    if (task.m == 2) {
      stream_columns<kHasOffset, kHasGroups, 2, 8>(task, 0, col);
      continue;
    }
    for (int64_t half = col; half < task.col_end && half < col + kInt4PanelRows; half += 4) {
      int64_t row = 0;
      for (; row + 4 <= task.m; row += 4)
        stream_columns<kHasOffset, kHasGroups, 4, 4>(task, row, half);
      if (task.m - row == 3) stream_columns<kHasOffset, kHasGroups, 3, 4>(task, row, half);
      if (task.m - row == 2) stream_columns<kHasOffset, kHasGroups, 2, 4>(task, row, half);
      if (task.m - row == 1) stream_columns<kHasOffset, kHasGroups, 1, 4>(task, row, half);
    }
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
  const __m512 table =
      value_table<kHasOffset, kHasGroups>(w, task.row, kHasGroups ? begin / w.group : 0);
  float* out = task.out + (begin - task.k_begin) / kLanes * task.out_step;
  // Rows that will be needed soon: in another panel they do not lie as far ahead as their number.
  const int64_t row_ahead = task.row + task.prefetch_ahead_bytes / w.row_size_bytes;
  for (int64_t i = begin; i < end;) {
    const int64_t block = i / kInt4BlockK;
    _mm_prefetch(reinterpret_cast<const char*>(int4_line(w, row_ahead, block)), _MM_HINT_T1);
    __m512i q = _mm512_load_si512(int4_line(w, task.row, block));
    q = _mm512_srl_epi32(q, _mm_cvtsi64_si128(i % kInt4BlockK / kLanes * 4));
    const int64_t block_end = (block + 1) * kInt4BlockK;
    const int64_t part_end = block_end < end ? block_end : end;
    for (; i < part_end; i += kLanes) {
      _mm512_store_ps(out, _mm512_permutexvar_ps(q, table));
      q = _mm512_srli_epi32(q, 4);
      out += task.out_step;
    }
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

const LaneGemmKernels kGemmW4A16Avx512{.isa = Isa::kAvx512Vnni,
                                       .max_stream_rows = kMaxStreamRows,
                                       .tile_rows = kTileRowsAvx512,
                                       .tile_cols = kTileColsAvx512,
                                       .stream = stream,
                                       .widen = widen,
                                       .tile = multiply_tile_avx512};

}  // namespace llmq::quant
