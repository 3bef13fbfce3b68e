#include "quant/kernels/gemm_w8a8/int8_product.h"

#include <fmt/format.h>

#include "formats/error.h"

namespace llmq::quant {
namespace {

using formats::Error;
using formats::ErrorCode;

// Rows and panels of one task: its sums between blocks of k take 256 KiB of the L2 cache, which
// also holds the weights of a tile.
constexpr int64_t kTaskRows = 256;
constexpr int64_t kTaskPanels = 16;
// Weights of one streaming task: long enough for the prefetchers, short enough to balance threads.
constexpr int64_t kStreamTaskBytes = int64_t{256} << 10;

thread_local Scratch<unsigned char> x_buffer;
thread_local Scratch<int32_t> partial_buffer;

void cut_k(const Int8Kernels& kernels, int64_t padded_k, Int8Blocking& b) {
  b.n_blocks = std::max<int64_t>(ceil_div(padded_k, kernels.block_k), 1);
  b.block_k = round_up(ceil_div(padded_k, b.n_blocks), kPackedKMultiple);
  b.n_blocks = std::max<int64_t>(ceil_div(padded_k, std::max<int64_t>(b.block_k, 1)), 1);
}

Int8Blocking choose_streaming(const Int8Kernels& kernels, const Int8Product& p, int n_threads) {
  const Int8Weights& w = p.weights;
  Int8Blocking b{.streams = true, .block_k = w.padded_k, .n_blocks = 1, .task_rows = p.m};
  if (w.is_expanded) cut_k(kernels, w.padded_k, b);
  const int64_t by_size = kStreamTaskBytes / std::max<int64_t>(w.panel_bytes, 1);
  b.task_panels =
      std::clamp<int64_t>(std::min(by_size, ceil_div(w.n_panels(), n_threads)), 1, w.n_panels());
  return b;
}

Int8Blocking choose_tiled(const Int8Kernels& kernels, const Int8Product& p, int n_threads) {
  const Int8Weights& w = p.weights;
  Int8Blocking b{};
  cut_k(kernels, w.padded_k, b);
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

}  // namespace

const Int8Kernels& int8_kernels(Isa isa) {
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

Int8Product Int8Product::rows(int64_t row, int64_t n_rows) const {
  return {x + row * x_stride, n_rows, x_stride, weights, epilogue_at(row, 0)};
}

Int8Epilogue Int8Product::epilogue_at(int64_t row, int64_t col) const {
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

Int8Block Int8Task::block(int64_t index) const {
  const Int8Blocking& b = blocking;
  Int8Block block{.x = x + (index * product.m + row) * b.x_row_bytes,
                  .x_row_bytes = b.x_row_bytes,
                  .n_rows = n_rows,
                  .n_panels = n_panels,
                  .streams = b.streams,
                  .epilogue = product.epilogue_at(row, panel * kPanelCols)};
  if (b.n_blocks > 1) block.partial = partial_buffer.get(n_rows * n_panels * kPanelCols);
  block.n_groups = std::min(b.block_k, product.weights.padded_k - index * b.block_k) / kGroup;
  block.first = index == 0;
  block.last = index + 1 == b.n_blocks;
  return block;
}

Int8Blocking detail::choose_blocking(const Int8Kernels& kernels, const Int8Product& p,
                                     int n_threads) {
  Int8Blocking b = p.m <= kernels.max_stream_rows ? choose_streaming(kernels, p, n_threads)
                                                  : choose_tiled(kernels, p, n_threads);
  constexpr int64_t kLineBytes = 64;
  b.x_row_bytes = b.block_k * kernels.x_size_bytes;
  if (kernels.odd_row_lines) b.x_row_bytes = (b.x_row_bytes / kLineBytes | 1) * kLineBytes;
  return b;
}

// [n_blocks, m, block_k]: what a task multiplies is contiguous, and elements past the last are
// there to be read.
const unsigned char* detail::pack_x(const Int8Kernels& kernels, const Int8Product& p,
                                    const Int8Blocking& b, ThreadTeam& team) {
  constexpr int64_t kTaskBytes = int64_t{64} << 10;
  unsigned char* out = x_buffer.get(b.n_blocks * p.m * b.x_row_bytes);
  const int64_t k = p.weights.k;
  const int64_t n_rows = std::max<int64_t>(kTaskBytes / std::max<int64_t>(k, 1), 1);
  team.parallel_for(ceil_div(p.m, n_rows), [&](int64_t task, int) {
    const int64_t end = std::min(p.m, (task + 1) * n_rows);
    for (int64_t row = task * n_rows; row < end; ++row) {
      for (int64_t block = 0; block < b.n_blocks; ++block) {
        const int64_t begin = block * b.block_k;
        kernels.pack_row(p.x + row * p.x_stride + begin, std::min(b.block_k, k - begin), b.block_k,
                         out + (block * p.m + row) * b.x_row_bytes);
      }
    }
  });
  return out;
}

void check_int8_operands(const Int8Operands& o, int64_t n, int64_t k) {
  const bool fits = o.has_weights && o.m >= 0 &&
                    (o.m <= 1 || (o.x_stride >= k && o.y_stride >= n)) &&
                    (o.has_scale || n == 0 || o.m == 0);
  if (!fits) {
    throw Error(ErrorCode::kInternal,
                fmt::format("{}: {} rows of codes with stride {}, weights [{}, {}]{}, output with "
                            "stride {} and {} do not fit together",
                            o.function, o.m, o.x_stride, n, k, o.has_weights ? "" : " (missing)",
                            o.y_stride, o.has_scale ? "a scale" : "no scale"));
  }
}

void check_int8_result(const char* function, int64_t y_rows, int64_t y_cols, int64_t m, int64_t n) {
  if (y_rows == m && y_cols == n) return;
  throw Error(ErrorCode::kInternal,
              fmt::format("{}: y [{}, {}] cannot hold the product of {} rows and {} weight rows",
                          function, y_rows, y_cols, m, n));
}

}  // namespace llmq::quant
