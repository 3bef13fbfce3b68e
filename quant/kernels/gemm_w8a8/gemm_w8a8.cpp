#include "quant/kernels/gemm_w8a8/gemm_w8a8.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstddef>
#include <memory>
#include <new>

#include "formats/error.h"
#include "quant/kernels/gemm_w8a8/driver.h"
#include "quant/kernels/gemm_w8a8/kernels.h"

namespace llmq::quant {
namespace {

using formats::Error;
using formats::ErrorCode;

// Rows of x that are packed at once and share one pass over the weights.
constexpr int64_t kChunkRows = 512;
// Rows and panels of one task: its sums between blocks of k take 256 KiB of the L2 cache, which
// also holds the weights of a tile.
constexpr int64_t kTaskRows = 256;
constexpr int64_t kTaskPanels = 16;
// Weights of one streaming task: long enough for the prefetchers, short enough to balance threads.
constexpr int64_t kStreamTaskBytes = int64_t{256} << 10;

int64_t ceil_div(int64_t a, int64_t b) {
  return (a + b - 1) / b;
}
int64_t round_up(int64_t a, int64_t b) {
  return ceil_div(a, b) * b;
}

// Grows and is never shrunk; contents are not kept.
template <typename T>
class Scratch {
 public:
  T* get(int64_t count) {
    if (count > capacity_) {
      data_.reset();
      capacity_ = 0;
      data_.reset(static_cast<T*>(::operator new(static_cast<size_t>(count) * sizeof(T), kLine)));
      capacity_ = count;
    }
    return data_.get();
  }

 private:
  static constexpr std::align_val_t kLine{64};
  struct Free {
    void operator()(T* p) const { ::operator delete(p, kLine); }
  };
  std::unique_ptr<T, Free> data_;
  int64_t capacity_ = 0;
};

thread_local Scratch<unsigned char> x_buffer;
thread_local Scratch<int32_t> partial_buffer;

const Int8Kernels& kernels_for(Isa isa) {
  switch (isa) {
    case Isa::kScalar:
      return kGemmW8A8Scalar;
    case Isa::kAvx2:
      return kGemmW8A8Avx2;
    case Isa::kAvxVnni:
      return kGemmW8A8AvxVnni;
    case Isa::kAvx512Vnni:
      return kGemmW8A8Avx512Vnni;
    case Isa::kAmx:
      return kGemmW8A8Amx;
  }
  throw Error(ErrorCode::kInternal, "gemm_w8a8: no kernels for this instruction set");
}

// One product, whatever becomes of its sums. The epilogue begins at row 0 and column 0.
struct Product {
  const int8_t* x;
  int64_t m;
  int64_t x_stride;
  const PackedInt8& weights;
  Int8Epilogue epilogue;

  // Rows [row, row + n_rows) alone.
  [[nodiscard]] Product rows(int64_t row, int64_t n_rows) const {
    return {x + row * x_stride, n_rows, x_stride, weights, epilogue_at(row, 0)};
  }

  [[nodiscard]] Int8Epilogue epilogue_at(int64_t row, int64_t col) const {
    Int8Epilogue e = epilogue;
    e.row_sums += col;
    if (e.quant_bias != nullptr) e.quant_bias += col;
    if (e.sums != nullptr) e.sums += row * e.stride + col;
    if (e.deq_scale != nullptr) e.deq_scale += col;
    if (e.row_scale != nullptr) e.row_scale += row;
    if (e.bias != nullptr) e.bias += col;
    if (e.y != nullptr) e.y += row * e.stride + col;
    e.n_cols -= col;
    return e;
  }
};

void run_scalar(const Int8Kernels& kernels, const Product& p, ThreadTeam& team) {
  const PackedInt8& w = p.weights;
  team.parallel_for(w.n_panels(), [&](int64_t panel, int) {
    const int64_t col = panel * kPanelCols;
    kernels.multiply_columns({p.x, p.x_stride, p.m, w.k(), w.panels(), w.panel_size_bytes(), col,
                              std::min(col + kPanelCols, w.n()), p.epilogue});
  });
}

// How k is cut into blocks and y into tasks.
struct Blocking {
  bool streams;
  int64_t block_k;
  int64_t n_blocks;
  int64_t task_rows;
  int64_t task_panels;
};

Blocking choose_blocking(const Int8Kernels& kernels, const Product& p, int n_threads) {
  const PackedInt8& w = p.weights;
  const int64_t padded_k = w.padded_k();
  Blocking b{};
  b.streams = p.m <= kernels.max_stream_rows;
  if (b.streams) {
    b.block_k = padded_k;
    b.n_blocks = 1;
    b.task_rows = p.m;
    const int64_t by_size = kStreamTaskBytes / std::max<int64_t>(w.panel_size_bytes(), 1);
    b.task_panels =
        std::clamp<int64_t>(std::min(by_size, ceil_div(w.n_panels(), n_threads)), 1, w.n_panels());
    return b;
  }
  b.n_blocks = std::max<int64_t>(ceil_div(padded_k, kernels.block_k), 1);
  b.block_k = round_up(ceil_div(padded_k, b.n_blocks), kPackedKMultiple);
  b.n_blocks = std::max<int64_t>(ceil_div(padded_k, std::max<int64_t>(b.block_k, 1)), 1);
  b.task_rows = round_up(ceil_div(p.m, ceil_div(p.m, kTaskRows)), kernels.row_multiple);
  b.task_panels = round_up(kTaskPanels, kernels.tile_panels);
  // Small products: smaller tasks rather than idle threads.
  const auto n_tasks = [&] {
    return ceil_div(p.m, b.task_rows) * ceil_div(w.n_panels(), b.task_panels);
  };
  while (b.task_panels > kernels.tile_panels && n_tasks() < 4 * n_threads)
    b.task_panels = round_up(b.task_panels / 2, kernels.tile_panels);
  const int64_t min_task_rows = std::max(kernels.max_stream_rows, kernels.row_multiple);
  while (b.task_rows > 2 * min_task_rows && n_tasks() < 4 * n_threads)
    b.task_rows = round_up(ceil_div(b.task_rows, 2), kernels.row_multiple);
  return b;
}

// Bytes from a packed row of x to the next, in one block of k.
int64_t row_bytes(const Int8Kernels& kernels, const Blocking& b) {
  constexpr int64_t kLineBytes = 64;
  const int64_t bytes = b.block_k * kernels.x_size_bytes;
  return kernels.odd_row_lines ? (bytes / kLineBytes | 1) * kLineBytes : bytes;
}

// Copies x into `out`, [n_blocks, m, block_k]: what a task multiplies is contiguous, and elements
// past the last are there to be read.
void pack_x(const Int8Kernels& kernels, const Product& p, const Blocking& b, unsigned char* out,
            ThreadTeam& team) {
  constexpr int64_t kTaskBytes = int64_t{64} << 10;
  const int64_t k = p.weights.k();
  const int64_t n_rows = std::max<int64_t>(kTaskBytes / std::max<int64_t>(k, 1), 1);
  team.parallel_for(ceil_div(p.m, n_rows), [&](int64_t task, int) {
    const int64_t end = std::min(p.m, (task + 1) * n_rows);
    for (int64_t row = task * n_rows; row < end; ++row) {
      for (int64_t block = 0; block < b.n_blocks; ++block) {
        const int64_t begin = block * b.block_k;
        kernels.pack_row(p.x + row * p.x_stride + begin, std::min(b.block_k, k - begin), b.block_k,
                         out + (block * p.m + row) * row_bytes(kernels, b));
      }
    }
  });
}

struct TaskExtent {
  int64_t row;
  int64_t n_rows;
  int64_t panel;
  int64_t n_panels;
};

void run_task(const Int8Kernels& kernels, const Product& p, const Blocking& b,
              const unsigned char* x, const TaskExtent& t) {
  const PackedInt8& w = p.weights;
  const int64_t x_row_bytes = row_bytes(kernels, b);
  Int8Block block{.x_row_bytes = x_row_bytes,
                  .n_rows = t.n_rows,
                  .panel_bytes = w.panel_size_bytes(),
                  .n_panels = t.n_panels,
                  .streams = b.streams,
                  .epilogue = p.epilogue_at(t.row, t.panel * kPanelCols)};
  if (b.n_blocks > 1) block.partial = partial_buffer.get(t.n_rows * t.n_panels * kPanelCols);
  for (int64_t i = 0; i < b.n_blocks; ++i) {
    const int64_t k_begin = i * b.block_k;
    block.x = x + (i * p.m + t.row) * x_row_bytes;
    block.weights = w.panels() + t.panel * w.panel_size_bytes() + k_begin * kPanelCols;
    block.n_groups = std::min(b.block_k, w.padded_k() - k_begin) / kGroup;
    block.first = i == 0;
    block.last = i + 1 == b.n_blocks;
    kernels.multiply(block);
  }
}

void run_chunk(const Int8Kernels& kernels, const Product& p, ThreadTeam& team) {
  const Blocking b = choose_blocking(kernels, p, team.n_threads());
  unsigned char* x = x_buffer.get(b.n_blocks * p.m * row_bytes(kernels, b));
  pack_x(kernels, p, b, x, team);
  const int64_t n_panels = p.weights.n_panels();
  const int64_t n_row_tasks = ceil_div(p.m, b.task_rows);
  // Tasks that share weights follow each other.
  team.parallel_for(n_row_tasks * ceil_div(n_panels, b.task_panels), [&](int64_t task, int) {
    const int64_t row = task % n_row_tasks * b.task_rows;
    const int64_t panel = task / n_row_tasks * b.task_panels;
    run_task(
        kernels, p, b, x,
        {row, std::min(b.task_rows, p.m - row), panel, std::min(b.task_panels, n_panels - panel)});
  });
}

void run(const Int8Kernels& kernels, const Product& p, ThreadTeam& team) {
  if (p.m == 0 || p.weights.n() == 0) return;
  if (kernels.multiply_columns != nullptr) return run_scalar(kernels, p, team);
  for (int64_t row = 0; row < p.m; row += kChunkRows) {
    const int64_t n_rows = std::min(kChunkRows, p.m - row);
    run_chunk(n_rows < kernels.min_rows ? *kernels.fewer_rows : kernels, p.rows(row, n_rows), team);
  }
}

// The scale may be missing where there is nothing to multiply by it.
void check(const char* name, const PackedInt8* weights, int64_t m, int64_t x_stride,
           int64_t y_stride, bool has_scale) {
  const bool fits = weights != nullptr && m >= 0 &&
                    (m <= 1 || (x_stride >= weights->k() && y_stride >= weights->n())) &&
                    (has_scale || weights->n() == 0 || m == 0);
  if (!fits) {
    throw Error(
        ErrorCode::kInternal,
        fmt::format("{}: {} rows of codes with stride {}, weights [{}, {}]{}, output with "
                    "stride {} and {} do not fit together",
                    name, m, x_stride, weights == nullptr ? 0 : weights->n(),
                    weights == nullptr ? 0 : weights->k(), weights == nullptr ? " (missing)" : "",
                    y_stride, has_scale ? "a scale" : "no scale"));
  }
}

}  // namespace

void gemm_w8a8_by(const Int8Kernels& kernels, const GemmW8A8Args& args, ThreadTeam& team) {
  check("gemm_w8a8", args.weights, args.m, args.x_stride, args.y.row_stride,
        args.deq_scale != nullptr);
  if (args.y.n_rows != args.m || args.y.n_cols != args.weights->n()) {
    throw Error(ErrorCode::kInternal,
                fmt::format("gemm_w8a8: y [{}, {}] cannot hold the product of {} rows and {} "
                            "weight rows",
                            args.y.n_rows, args.y.n_cols, args.m, args.weights->n()));
  }
  const Int8Epilogue epilogue{.row_sums = args.weights->row_sums(),
                              .quant_bias = args.quant_bias,
                              .deq_scale = args.deq_scale,
                              .row_scale = args.row_scale,
                              .bias = args.bias,
                              .y = args.y.data,
                              .stride = args.y.row_stride,
                              .n_cols = args.weights->n()};
  run(kernels, {args.x, args.m, args.x_stride, *args.weights, epilogue}, team);
}

void gemm_w8a8_sums_by(const Int8Kernels& kernels, const GemmW8A8SumsArgs& args, ThreadTeam& team) {
  check("gemm_w8a8_sums", args.weights, args.m, args.x_stride, args.sums_stride, true);
  const Int8Epilogue epilogue{.row_sums = args.weights->row_sums(),
                              .quant_bias = args.quant_bias,
                              .sums = args.sums,
                              .stride = args.sums_stride,
                              .n_cols = args.weights->n()};
  run(kernels, {args.x, args.m, args.x_stride, *args.weights, epilogue}, team);
}

void gemm_w8a8(const GemmW8A8Args& args, ThreadTeam& team, Isa isa) {
  gemm_w8a8_by(kernels_for(isa), args, team);
}

void gemm_w8a8_sums(const GemmW8A8SumsArgs& args, ThreadTeam& team, Isa isa) {
  gemm_w8a8_sums_by(kernels_for(isa), args, team);
}

Isa gemm_w8a8_implementation(Isa isa) {
  return kernels_for(isa).isa;
}

}  // namespace llmq::quant
