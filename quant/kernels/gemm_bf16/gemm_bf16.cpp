#include "quant/kernels/gemm_bf16/gemm_bf16.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <new>
#include <string>
#include <vector>

#include "formats/error.h"
#include "quant/kernels/gemm_bf16/driver.h"
#include "quant/kernels/gemm_bf16/round_bf16.h"
#include "quant/kernels/gemm_f16/gemm_f16.h"
#include "quant/kernels/rounding/rounding.h"

namespace llmq::quant {
namespace {

using formats::DType;
using formats::Error;
using formats::ErrorCode;

// Two tiles of weights over this many elements of k take 32 KiB of the 48 of the L1 cache, through
// which x streams from the L2.
constexpr int64_t kBlockK = 512;
// Rows of x and columns of y of one task: a block of x (512 KiB) and the sums between blocks of k
// (512 KiB) share the L2 cache.
constexpr int64_t kTileTaskRows = 512;
constexpr int64_t kTileTaskCols = 256;
// Rows that are rounded for the float kernels at once, which take 128 rows a task.
constexpr int64_t kLaneRows = 256;
static_assert(kTileTaskRows * sizeof(uint16_t) <= kBf16ScratchBytesPerChannel &&
              kLaneRows * sizeof(float) <= kBf16ScratchBytesPerChannel);
// binary16 weights that are rounded to bfloat16 for the float kernels at once.
constexpr int64_t kLaneWeights = int64_t{1} << 20;

int64_t ceil_div(int64_t a, int64_t b) {
  return (a + b - 1) / b;
}
int64_t round_up(int64_t a, int64_t b) {
  return ceil_div(a, b) * b;
}

// Grows and is never shrunk; contents are not kept.
class AlignedBytes {
 public:
  unsigned char* get(int64_t size_bytes) {
    if (size_bytes > capacity_) {
      constexpr int64_t kAlignment = 64;
      data_.reset();
      capacity_ = 0;
      data_.reset(static_cast<unsigned char*>(
          std::aligned_alloc(kAlignment, static_cast<size_t>(round_up(size_bytes, kAlignment)))));
      if (data_ == nullptr) throw std::bad_alloc();
      capacity_ = size_bytes;
    }
    return data_.get();
  }

 private:
  struct Free {
    void operator()(unsigned char* p) const { std::free(p); }
  };
  std::unique_ptr<unsigned char, Free> data_;
  int64_t capacity_ = 0;
};

// Of the thread that calls; the others read and write parts of it.
thread_local AlignedBytes x_buffer;
thread_local AlignedBytes lane_weight_buffer;
// Of each thread that works.
thread_local AlignedBytes sums_buffer;
thread_local AlignedBytes tile_buffer;
thread_local AlignedBytes bf16_buffer;

void cast_to_bf16(const void* fp16, int64_t count, void* bf16) {
  CastReport report;
  rounding_kernels().cast[static_cast<size_t>(FloatType::kFp16)]
                         [static_cast<size_t>(FloatType::kBf16)](fp16, count, bf16, &report);
}

const unsigned char* weight_row(const GemmBf16Args& args, int64_t row) {
  return static_cast<const unsigned char*>(args.weights) + row * args.weight_stride * 2;
}

// One task of a chunk of rows: columns [begin, begin + n) of y.
struct TileTask {
  const Bf16TileKernels& kernels;
  const GemmBf16Args& args;
  const unsigned char* pairs;  // of the chunk's rows
  int64_t first_row;
  int64_t n_rows;
  int64_t begin;
  int64_t n;
};

// The weights of the block as bfloat16; returns the distance between its rows.
int64_t bf16_weights(const TileTask& t, int64_t k_begin, int64_t count,
                     const unsigned char*& weights) {
  weights = weight_row(t.args, t.begin) + k_begin * 2;
  if (t.args.weight_dtype == DType::kBF16) return t.args.weight_stride * 2;
  unsigned char* rounded = bf16_buffer.get(kTileTaskCols * kBlockK * 2);
  for (int64_t col = 0; col < t.n; ++col) {
    cast_to_bf16(weight_row(t.args, t.begin + col) + k_begin * 2, count,
                 rounded + col * kBlockK * 2);
  }
  weights = rounded;
  return kBlockK * 2;
}

void run_tile_task(const TileTask& t) {
  const GemmBf16Args& args = t.args;
  const int64_t k = args.x.n_cols;
  const int64_t n_row_tiles = ceil_div(t.n_rows, kBf16Side);
  Bf16Block block;
  block.n_cols = t.n;
  block.x_tile_bytes = ceil_div(k, kBf16StepK) * kBf16TileBytes;
  block.n_rows = t.n_rows;
  block.weight_tiles = tile_buffer.get(2 * kBlockK / kBf16StepK * kBf16TileBytes);
  block.sums = reinterpret_cast<float*>(
      sums_buffer.get(round_up(t.n, kBf16PanelCols) * n_row_tiles * kBf16Side * 4));
  block.bias = args.bias == nullptr ? nullptr : args.bias + t.begin;
  block.y = args.y.data + t.first_row * args.y.row_stride + t.begin;
  block.y_stride = args.y.row_stride;
  int64_t k_begin = 0;
  do {  // once also for k = 0, whose sums are empty
    block.count = std::min(kBlockK, k - k_begin);
    block.weight_row_bytes = bf16_weights(t, k_begin, block.count, block.weights);
    block.x = t.pairs + k_begin / kBf16StepK * kBf16TileBytes;
    block.first = k_begin == 0;
    block.last = k_begin + block.count == k;
    t.kernels.multiply(block);
    k_begin += block.count;
  } while (k_begin < k);
}

// Rows [first_row, first_row + n_rows) of y.
void multiply_rows(const Bf16TileKernels& kernels, const GemmBf16Args& args, ThreadTeam& team,
                   int64_t first_row, int64_t n_rows) {
  const int64_t k = args.x.n_cols;
  const int64_t n = args.y.n_cols;
  const int64_t tile_bytes = ceil_div(k, kBf16StepK) * kBf16TileBytes;
  const int64_t n_row_tiles = ceil_div(n_rows, kBf16Side);
  unsigned char* pairs = x_buffer.get(n_row_tiles * tile_bytes);
  team.parallel_for(n_row_tiles, [&](int64_t tile, int) {
    const int64_t row = tile * kBf16Side;
    kernels.make_pairs({args.x.data + (first_row + row) * args.x.row_stride, args.x.row_stride,
                        std::min<int64_t>(kBf16Side, n_rows - row), k, pairs + tile * tile_bytes});
  });
  // Small products: narrower tasks rather than idle threads.
  int64_t cols = kTileTaskCols;
  while (cols > kBf16PanelCols && ceil_div(n, cols) < 4 * team.n_threads()) cols /= 2;
  team.parallel_for(ceil_div(n, cols), [&](int64_t task, int) {
    const int64_t begin = task * cols;
    run_tile_task({kernels, args, pairs, first_row, n_rows, begin, std::min(cols, n - begin)});
  });
}

// Rows of x, rounded, as [n_rows, k].
void round_rows(const GemmBf16Args& args, ThreadTeam& team, int64_t first_row,
                const MatrixF32& out) {
  team.parallel_for(out.n_rows, [&](int64_t row, int) {
    const float* from = args.x.data + (first_row + row) * args.x.row_stride;
    float* to = out.data + row * out.row_stride;
    for (int64_t i = 0; i < out.n_cols; ++i) to[i] = value_of_bf16(nearest_bf16(from[i]));
  });
}

// Some columns of some rows of y, of x that is rounded already.
struct LanePart {
  ConstMatrixF32 x;
  const void* weights;  // bfloat16
  int64_t weight_stride;
  int64_t first_row;
  int64_t first_col;
  int64_t n_cols;
};

void multiply_part(const GemmBf16Args& args, ThreadTeam& team, Isa isa, const LanePart& part) {
  gemm_f16({.x = part.x,
            .weights = part.weights,
            .weight_dtype = DType::kBF16,
            .weight_stride = part.weight_stride,
            .bias = args.bias == nullptr ? nullptr : args.bias + part.first_col,
            .y = {args.y.data + part.first_row * args.y.row_stride + part.first_col, part.x.n_rows,
                  part.n_cols, args.y.row_stride}},
           team, isa);
}

}  // namespace

void check_bf16_operands(const GemmBf16Args& args) {
  const ConstMatrixF32& x = args.x;
  const MatrixF32& y = args.y;
  if (args.weight_dtype != DType::kBF16 && args.weight_dtype != DType::kF16) {
    throw Error(ErrorCode::kInternal, "gemm_bf16: weights are " +
                                          std::string(formats::dtype_name(args.weight_dtype)) +
                                          ", only BF16 and F16 are 16-bit floats");
  }
  const bool fits = x.n_rows >= 0 && x.n_cols >= 0 && y.n_cols >= 0 && x.n_rows == y.n_rows &&
                    (x.n_rows <= 1 || (x.row_stride >= x.n_cols && y.row_stride >= y.n_cols)) &&
                    (y.n_cols <= 1 || args.weight_stride >= x.n_cols);
  if (fits) return;
  throw Error(ErrorCode::kInternal,
              fmt::format("gemm_bf16: x [{}, {}] (stride {}), weights with a stride of {} and y "
                          "[{}, {}] (stride {}) do not fit together",
                          x.n_rows, x.n_cols, x.row_stride, args.weight_stride, y.n_rows, y.n_cols,
                          y.row_stride));
}

void gemm_bf16_by_tiles(const Bf16TileKernels& kernels, const GemmBf16Args& args,
                        ThreadTeam& team) {
  check_bf16_operands(args);
  const int64_t m = args.x.n_rows;
  if (m == 0 || args.y.n_cols == 0) return;
  const int64_t rows = round_up(ceil_div(m, ceil_div(m, kTileTaskRows)), int64_t{2} * kBf16Side);
  for (int64_t row = 0; row < m; row += rows)
    multiply_rows(kernels, args, team, row, std::min(rows, m - row));
}

void gemm_bf16_by_lanes(const GemmBf16Args& args, ThreadTeam& team, Isa isa) {
  check_bf16_operands(args);
  const int64_t m = args.x.n_rows;
  const int64_t n = args.y.n_cols;
  const int64_t k = args.x.n_cols;
  if (m == 0 || n == 0) return;
  auto* rounded =
      reinterpret_cast<float*>(x_buffer.get(std::min(kLaneRows, m) * k * int64_t{sizeof(float)}));
  const bool is_fp16 = args.weight_dtype == DType::kF16;
  const int64_t cols = is_fp16 ? std::max<int64_t>(1, kLaneWeights / std::max<int64_t>(k, 1)) : n;
  for (int64_t row = 0; row < m; row += kLaneRows) {
    const int64_t n_rows = std::min(kLaneRows, m - row);
    round_rows(args, team, row, {rounded, n_rows, k, k});
    for (int64_t col = 0; col < n; col += cols) {
      LanePart part{{rounded, n_rows, k, k}, weight_row(args, col), args.weight_stride, row, col,
                    std::min(cols, n - col)};
      if (is_fp16) {
        unsigned char* weights = lane_weight_buffer.get(part.n_cols * k * 2);
        team.parallel_for(part.n_cols, [&](int64_t i, int) {
          cast_to_bf16(weight_row(args, col + i), k, weights + i * k * 2);
        });
        part.weights = weights;
        part.weight_stride = k;
      }
      multiply_part(args, team, isa, part);
    }
  }
}

void gemm_bf16(const GemmBf16Args& args, ThreadTeam& team, Isa isa) {
  if (isa == Isa::kAmx && args.x.n_rows >= kBf16FewestTileRows) {
    gemm_bf16_by_tiles(kGemmBf16Amx, args, team);
  } else {
    gemm_bf16_by_lanes(args, team, isa);
  }
}

Isa gemm_bf16_implementation(Isa isa) {
  return isa == Isa::kAmx ? Isa::kAmx : gemm_f16_implementation(isa);
}

}  // namespace llmq::quant
