#include "quant/kernels/gemm_f32/lane_driver.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <new>

#include "formats/error.h"
#include "quant/kernels/shared_ranges.h"

namespace llmq::quant {
namespace {

using formats::Error;
using formats::ErrorCode;

// A block of weights of this many elements of k and tile_cols columns stays in the L1 cache while
// the rows of x pass by.
constexpr int64_t kBlockK = 1024;
// Rows of x and columns of y of one task: a block of x (512 KiB) and the accumulators between
// blocks of k (768 KiB) share the L2 cache.
constexpr int64_t kTaskRows = 128;
constexpr int64_t kTaskCols = 96;
// Weights of one streaming task: long enough for the prefetchers, short enough to balance threads.
constexpr int64_t kStreamTaskBytes = int64_t{128} << 10;

int64_t ceil_div(int64_t a, int64_t b) {
  return (a + b - 1) / b;
}
int64_t round_up(int64_t a, int64_t b) {
  return ceil_div(a, b) * b;
}

// Grows and is never shrunk; contents are not kept.
class AlignedFloats {
 public:
  float* get(int64_t count) {
    if (count > capacity_) {
      constexpr size_t kAlignment = 64;
      const auto size_bytes = static_cast<size_t>(round_up(count, kLanes)) * sizeof(float);
      data_.reset();
      capacity_ = 0;
      data_.reset(static_cast<float*>(std::aligned_alloc(kAlignment, size_bytes)));
      if (data_ == nullptr) throw std::bad_alloc();
      capacity_ = count;
    }
    return data_.get();
  }

 private:
  struct Free {
    void operator()(float* p) const { std::free(p); }
  };
  std::unique_ptr<float, Free> data_;
  int64_t capacity_ = 0;
};

thread_local AlignedFloats x_buffer;
thread_local AlignedFloats panel_buffer;
thread_local AlignedFloats lanes_buffer;

int64_t min_row_size_bytes(WeightType type, int64_t k) {
  switch (type) {
    case WeightType::kF32:
      return 4 * k;
    case WeightType::kBf16:
    case WeightType::kFp16:
      return 2 * k;
    case WeightType::kInt8:
      return k;
    case WeightType::kInt4:
      return ceil_div(k, 2);
  }
  throw Error(ErrorCode::kInternal, "no such type of weights");
}

void check_shapes(const LaneGemmArgs& args) {
  const ConstMatrixF32& x = args.x;
  const MatrixF32& y = args.y;
  const bool fits = x.n_rows >= 0 && x.n_cols >= 0 && y.n_cols >= 0 && x.n_rows == y.n_rows &&
                    (x.n_rows <= 1 || (x.row_stride >= x.n_cols && y.row_stride >= y.n_cols)) &&
                    (y.n_cols <= 1 || args.weights.row_size_bytes >=
                                          min_row_size_bytes(args.weights.type, x.n_cols)) &&
                    args.weights.group >= 0;
  if (!fits) {
    throw Error(
        ErrorCode::kInternal,
        fmt::format("{}: x [{}, {}] (stride {}), weights of {} bytes per row and y [{}, {}] "
                    "(stride {}) do not fit together",
                    args.family, x.n_rows, x.n_cols, x.row_stride, args.weights.row_size_bytes,
                    y.n_rows, y.n_cols, y.row_stride));
  }
}

Epilogue epilogue_of(const LaneGemmArgs& args, int64_t row) {
  return {args.scale, args.bias, args.y.data + row * args.y.row_stride, args.y.row_stride};
}

void run_streaming(const LaneGemmKernels& kernels, const LaneGemmArgs& args, ThreadTeam& team) {
  constexpr int64_t kColUnit = 24;
  const int64_t n = args.y.n_cols;
  const int64_t row_size_bytes = min_row_size_bytes(args.weights.type, args.x.n_cols);
  const int64_t by_size = kStreamTaskBytes / std::max<int64_t>(row_size_bytes, 1);
  const int64_t by_threads = ceil_div(n, team.n_threads());
  const int64_t cols = round_up(std::clamp<int64_t>(std::min(by_size, by_threads), 1, n), kColUnit);
  const auto run_task = [&](int64_t task) {
    const int64_t begin = task * cols;
    kernels.stream({args.x.data, args.x.row_stride, args.x.n_rows, args.x.n_cols, &args.weights,
                    begin, std::min(n, begin + cols), epilogue_of(args, 0)});
  };
  // By reference: a copy of the closure would be allocated for each token.
  for_each_in_ranges(team, ceil_div(n, cols), std::cref(run_task));
}

// How y is cut into tasks and k into blocks.
struct Blocking {
  int64_t rows;
  int64_t cols;
  int64_t block_k;
  int64_t n_row_tasks;
  int64_t n_col_tasks;
};

Blocking choose_blocking(const LaneGemmKernels& kernels, const LaneGemmArgs& args, int n_threads) {
  const int64_t m = args.x.n_rows;
  const int64_t n = args.y.n_cols;
  const int64_t k = args.x.n_cols;
  Blocking b{};
  b.n_row_tasks = ceil_div(m, kTaskRows);
  b.rows = round_up(ceil_div(m, b.n_row_tasks), kernels.tile_rows);
  b.cols = kTaskCols;
  // Small products: narrower tasks rather than idle threads.
  while (b.cols > kernels.tile_cols && b.n_row_tasks * ceil_div(n, b.cols) < 4 * n_threads)
    b.cols /= 2;
  b.cols = round_up(b.cols, kernels.tile_cols);
  b.n_col_tasks = ceil_div(n, b.cols);
  const int64_t n_blocks = std::max<int64_t>(ceil_div(k, kBlockK), 1);
  b.block_k = std::max<int64_t>(round_up(ceil_div(k, n_blocks), kLanes), kLanes);
  return b;
}

// One task of run_tiled in its block [k_begin, k_begin + count) of k.
struct BlockTask {
  const LaneGemmKernels& kernels;
  const LaneGemmArgs& args;
  int64_t row_begin;
  int64_t row_end;
  int64_t col_begin;
  int64_t col_end;
  int64_t k_begin;
  int64_t count;
  float* x;      // [row tiles, steps, tile_rows, kLanes]
  float* panel;  // [steps, tile_cols, kLanes]
  float* lanes;  // [panels, row tiles, tile_rows, tile_cols, kLanes]

  [[nodiscard]] int64_t n_row_tiles() const {
    return ceil_div(row_end - row_begin, kernels.tile_rows);
  }
  [[nodiscard]] int64_t x_tile_floats() const {
    return ceil_div(count, kLanes) * kernels.tile_rows * kLanes;
  }
};

// Copies the block of x into the order in which tiles read it: aligned, without the cache conflicts
// of rows a power of two apart. Rows past the last repeat it, elements past the last are zeros.
void pack_x(const BlockTask& t) {
  const ConstMatrixF32& x = t.args.x;
  const int64_t tile_rows = t.kernels.tile_rows;
  for (int64_t i = 0; i < t.n_row_tiles() * tile_rows; ++i) {
    const int64_t row = std::min(t.row_begin + i, t.row_end - 1);
    const float* from = x.data + row * x.row_stride + t.k_begin;
    float* to = t.x + i / tile_rows * t.x_tile_floats() + i % tile_rows * kLanes;
    int64_t at = 0;
    for (; at + kLanes <= t.count; at += kLanes) {
      std::memcpy(to, from + at, kLanes * sizeof(float));
      to += tile_rows * kLanes;
    }
    if (at < t.count) {
      std::fill(to, to + kLanes, 0.0F);
      std::copy(from + at, from + t.count, to);
    }
  }
}

// The panel of tile_cols columns from `col`: widens the weights, then passes all rows of the task.
void run_panel(const BlockTask& t, int64_t col) {
  const int64_t n = t.args.y.n_cols;
  const int64_t tile_cols = t.kernels.tile_cols;
  const int64_t tile_floats = t.kernels.tile_rows * tile_cols * kLanes;
  const int64_t n_ahead = col + tile_cols < t.col_end ? tile_cols : 0;
  for (int64_t c = 0; c < tile_cols; ++c) {
    // Past the last column its weights are repeated; those sums are not stored.
    t.kernels.widen({&t.args.weights, std::min(col + c, n - 1), t.k_begin, t.count,
                     n_ahead * t.args.weights.row_size_bytes, t.panel + c * kLanes,
                     tile_cols * kLanes});
  }
  const bool first = t.k_begin == 0;
  const bool last = t.k_begin + t.count == t.args.x.n_cols;
  const int64_t panel_lanes = t.n_row_tiles() * tile_floats;
  float* lanes = first && last ? t.lanes : t.lanes + (col - t.col_begin) / tile_cols * panel_lanes;
  for (int64_t tile = 0; tile < t.n_row_tiles(); ++tile) {
    const int64_t row = t.row_begin + tile * t.kernels.tile_rows;
    t.kernels.tile({t.x + tile * t.x_tile_floats(), t.panel, t.count,
                    first && last ? nullptr : lanes + tile * tile_floats, first, last, col,
                    std::min(t.kernels.tile_rows, t.row_end - row), std::min(tile_cols, n - col),
                    epilogue_of(t.args, row)});
  }
}

void run_tiled(const LaneGemmKernels& kernels, const LaneGemmArgs& args, ThreadTeam& team) {
  const Blocking b = choose_blocking(kernels, args, team.n_threads());
  const int64_t k = args.x.n_cols;
  team.parallel_for(b.n_row_tasks * b.n_col_tasks, [&](int64_t task, int) {
    const int64_t row_begin = task / b.n_col_tasks * b.rows;
    const int64_t col_begin = task % b.n_col_tasks * b.cols;
    // Accumulators wait in memory only between blocks of k.
    const int64_t lanes_count = b.block_k < k ? b.rows * b.cols * kLanes : kLanes;
    BlockTask t{kernels,
                args,
                row_begin,
                std::min(args.x.n_rows, row_begin + b.rows),
                col_begin,
                std::min(args.y.n_cols, col_begin + b.cols),
                0,
                0,
                x_buffer.get(b.rows * b.block_k),
                panel_buffer.get(kernels.tile_cols * b.block_k),
                lanes_buffer.get(lanes_count)};
    do {  // once also for k = 0, whose sums are empty
      t.count = std::min(b.block_k, k - t.k_begin);
      pack_x(t);
      for (int64_t col = t.col_begin; col < t.col_end; col += kernels.tile_cols) run_panel(t, col);
      t.k_begin += t.count;
    } while (t.k_begin < k);
  });
}

}  // namespace

void run_lane_gemm(const LaneGemmKernels& kernels, const LaneGemmArgs& args, ThreadTeam& team) {
  check_shapes(args);
  if (args.x.n_rows == 0 || args.y.n_cols == 0) return;
  const bool streams = kernels.tile_rows == 0 || (args.x.n_rows <= kernels.max_stream_rows &&
                                                  args.weights.group % kLanes == 0);
  if (streams) {
    run_streaming(kernels, args, team);
  } else {
    run_tiled(kernels, args, team);
  }
}

float lane_tree_sum(const float (&lanes)[kLanes]) {
  float s[kLanes];
  std::copy(std::begin(lanes), std::end(lanes), std::begin(s));
  for (int width = kLanes / 2; width > 0; width /= 2) {
    for (int i = 0; i < width; ++i) s[i] = s[i] + s[i + width];
  }
  return s[0];
}

void finish_sum(const Epilogue& epilogue, int64_t row, int64_t col, float sum) {
  float value = sum;
  if (epilogue.scale != nullptr) value = value * epilogue.scale[col];
  if (epilogue.bias != nullptr) value = value + epilogue.bias[col];
  epilogue.y[row * epilogue.y_stride + col] = value;
}

}  // namespace llmq::quant
