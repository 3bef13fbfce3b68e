#pragma once

// The walks over panels of int4 codes, included by avx2.cpp and avx512.cpp and compiled once for
// each with internal linkage. They are templates over a policy `Codes`, which has
//   kFewRows, kFewCols   rows of x and columns multiplied at a time where x has few rows,
//   kManyRows, kManyCols and where it has more; kFewCols and kManyCols divide kInt4PanelRows;
//   Lanes                the kLanes accumulators of a sum, Mask of its first lanes;
//   Row row(weights, row, group)         what the codes of a row need to become values;
//   Line line(const unsigned char*)      64 bytes of codes, 8 steps of 16 weights;
//   Lanes values<kStep>(Line, Row)       the weights of one of the steps,
//   Lanes values(Line, step, Row)        also of one that is known when it is run;
//   widen(line, step, end, out, out_step, Row) stores those of steps [step, end);
//   zero_lanes, load_lanes, multiply_add, the latter two also with a mask;
//   finish<kRows, kCols>(epilogue, col, n_cols, lanes) sums lanes[kRows · kCols] and stores them.

#include <cstdint>

#include "quant/kernels/gemm_w4a16/kernels.h"
#include "quant/kernels/gemm_w8a16/coded_rows.h"

namespace llmq::quant {
namespace {

inline constexpr int kBlockSteps = kInt4BlockK / kLanes;
// Lines ahead of their use are fetched from memory: about 4 KiB of the one stream that a thread
// reads.
inline constexpr int64_t kAheadBlocks = 8;

// Some columns of a panel times some rows of x.
template <class Codes, int kRows, int kCols>
struct Columns {
  using Lanes = typename Codes::Lanes;

  const StreamTask& task;
  const float* x;
  const unsigned char* line;  // of the first column in block 0
  int64_t col;
  int64_t last_col;  // columns past it repeat it and are not stored
  typename Codes::Row rows[kCols];
  Lanes acc[kRows * kCols];

  __attribute__((always_inline)) inline void set_rows(int64_t group) {
#pragma GCC unroll 8
    for (int c = 0; c < kCols; ++c)
      rows[c] = Codes::row(*task.weights, col + c < last_col ? col + c : last_col, group);
  }

  [[nodiscard]] __attribute__((always_inline)) inline const unsigned char* line_of(int64_t block,
                                                                                   int c) const {
    return line + (block * kInt4PanelRows + c) * kInt4LineBytes;
  }

  template <int kStep>
  __attribute__((always_inline)) inline void multiply_steps(
      const float* x_block, const typename Codes::Line (&lines)[kCols]) {
    Lanes v[kRows];
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r)
      v[r] = Codes::load_lanes(x_block + r * task.x_stride + kStep * kLanes);
#pragma GCC unroll 8
    for (int c = 0; c < kCols; ++c) {
      const Lanes w = Codes::template values<kStep>(lines[c], rows[c]);
#pragma GCC unroll 4
      for (int r = 0; r < kRows; ++r)
        acc[r * kCols + c] = Codes::multiply_add(v[r], w, acc[r * kCols + c]);
    }
    if constexpr (kStep + 1 < kBlockSteps) multiply_steps<kStep + 1>(x_block, lines);
  }

  // A whole block whose rows are set.
  __attribute__((always_inline)) inline void multiply_block(int64_t block) {
    typename Codes::Line lines[kCols];
#pragma GCC unroll 8
    for (int c = 0; c < kCols; ++c) {
      lines[c] = Codes::line(line_of(block, c));
      __builtin_prefetch(line_of(block + kAheadBlocks, c), 0, 3);
    }
    multiply_steps<0>(x + block * kInt4BlockK, lines);
  }

  // One step of 16 weights, or of the first `count` of them.
  inline void multiply_step(int64_t step, int64_t count) {
    const typename Codes::Mask mask = Codes::mask(count);
#pragma GCC unroll 8
    for (int c = 0; c < kCols; ++c) {
      const Lanes w =
          Codes::values(Codes::line(line_of(step / kBlockSteps, c)), step % kBlockSteps, rows[c]);
#pragma GCC unroll 4
      for (int r = 0; r < kRows; ++r) {
        const Lanes v = Codes::load_lanes(mask, x + r * task.x_stride + step * kLanes);
        acc[r * kCols + c] = Codes::multiply_add(mask, v, w, acc[r * kCols + c]);
      }
    }
  }

  inline void multiply() {
    const int64_t k = task.k;
    const int64_t group = Codes::kHasGroups ? task.weights->group : k;
    int64_t group_end = 0;  // of the rows that are set
    for (int64_t i = 0; i < k;) {
      if (i >= group_end) {
        set_rows(Codes::kHasGroups ? i / group : 0);
        group_end = Codes::kHasGroups ? i + group : k;
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

template <class Codes, int kRows, int kCols>
inline void multiply_columns(const StreamTask& task, int64_t row, int64_t col) {
  Columns<Codes, kRows, kCols> columns{task,
                                       task.x + row * task.x_stride,
                                       int4_line(*task.weights, col, 0),
                                       col,
                                       task.col_end - 1,
                                       {},
                                       {}};
#pragma GCC unroll 16
  for (int a = 0; a < kRows * kCols; ++a) columns.acc[a] = Codes::zero_lanes();
  columns.multiply();
  Epilogue epilogue = task.epilogue;
  epilogue.y += row * epilogue.y_stride;
  const int64_t n_cols = task.col_end - col < kCols ? task.col_end - col : kCols;
  Codes::template finish<kRows, kCols>(epilogue, col, n_cols, columns.acc);
}

// The rows of x from `row` on.
template <class Codes, int kRows, int kCols>
inline void multiply_rows(const StreamTask& task, int64_t row, int64_t col) {
  for (; row + kRows <= task.m; row += kRows) multiply_columns<Codes, kRows, kCols>(task, row, col);
  if constexpr (kRows > 1) {
    if (row < task.m) multiply_rows<Codes, kRows - 1, kCols>(task, row, col);
  }
}

template <class Codes>
inline void stream_panels(const StreamTask& task) {
  if (task.m <= Codes::kFewRows) {
    for (int64_t col = task.col_begin; col < task.col_end; col += Codes::kFewCols)
      multiply_rows<Codes, Codes::kFewRows, Codes::kFewCols>(task, 0, col);
    return;
  }
  for (int64_t col = task.col_begin; col < task.col_end; col += Codes::kManyCols)
    multiply_rows<Codes, Codes::kManyRows, Codes::kManyCols>(task, 0, col);
}

// LaneGemmKernels::stream, where kHasOffset and kHasGroups choose among the policies.
template <template <bool kHasOffset, bool kHasGroups> class Codes>
void stream_int4(const StreamTask& task) {
  const bool has_offset = task.weights->offset != nullptr;
  if (task.weights->group == 0) {
    if (has_offset) return stream_panels<Codes<true, false>>(task);
    return stream_panels<Codes<false, false>>(task);
  }
  if (has_offset) return stream_panels<Codes<true, true>>(task);
  return stream_panels<Codes<false, true>>(task);
}

// Elements [begin, end) of a row in one group; begin is a multiple of kLanes.
template <class Codes>
inline void widen_part(const WidenTask& task, int64_t begin, int64_t end) {
  const WeightRows& w = *task.weights;
  const auto row = Codes::row(w, task.row, Codes::kHasGroups ? begin / w.group : 0);
  float* out = task.out + (begin - task.k_begin) / kLanes * task.out_step;
  // Rows that will be needed soon: in another panel they do not lie as far ahead as their number.
  const int64_t row_ahead = task.row + task.prefetch_ahead_bytes / w.row_size_bytes;
  const int64_t end_step = (end + kLanes - 1) / kLanes;
  for (int64_t step = begin / kLanes; step < end_step;) {
    const int64_t block = step / kBlockSteps;
    __builtin_prefetch(int4_line(w, row_ahead, block), 0, 2);
    const int64_t first = block * kBlockSteps;
    const int64_t n_steps = end_step - first < kBlockSteps ? end_step - first : kBlockSteps;
    Codes::widen(int4_line(w, task.row, block), step - first, n_steps, out, task.out_step, row);
    out += (first + n_steps - step) * task.out_step;
    step = first + n_steps;
  }
}

template <class WholeRow, class Grouped>
inline void widen_row(const WidenTask& task) {
  const int64_t end = task.k_begin + task.count;
  const int64_t group = task.weights->group;
  if (group == 0) return widen_part<WholeRow>(task, task.k_begin, end);
  for (int64_t begin = task.k_begin; begin < end;) {
    const int64_t group_end = (begin / group + 1) * group;
    const int64_t part_end = group_end < end ? group_end : end;
    widen_part<Grouped>(task, begin, part_end);
    begin = part_end;
  }
}

// LaneGemmKernels::widen, likewise.
template <template <bool kHasOffset, bool kHasGroups> class Codes>
void widen_int4(const WidenTask& task) {
  if (task.weights->group % kLanes != 0) return widen_uneven_groups<int4_code>(task);
  if (task.weights->offset != nullptr)
    return widen_row<Codes<true, false>, Codes<true, true>>(task);
  return widen_row<Codes<false, false>, Codes<false, true>>(task);
}

}  // namespace
}  // namespace llmq::quant
