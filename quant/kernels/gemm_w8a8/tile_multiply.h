#pragma once

// Int8Kernels::multiply over the tile registers of AMX. `Tiles` is HardwareTiles or, in tests, a
// model of it; `Engine` has the sums of a panel, as in block_multiply.h. A panel's sixteen lines
// are a tile of weights as they lie, and TDPBSSD takes x signed, so that nothing is shifted.

#include <immintrin.h>

#include <cstdint>

#include "quant/kernels/amx/tiles.h"
#include "quant/kernels/gemm_w8a8/block_multiply.h"

namespace llmq::quant {

// Two tiles of x by two of weights: every tile that is loaded serves two products, and four
// accumulators hide the latency of one.
inline constexpr int kBlockRows = 2 * kTileRows;
inline constexpr int kBlockPanels = 2;
inline constexpr int64_t kTileBytes = int64_t{kTileRows} * kTileRowBytes;
inline constexpr int kTileSums = kTileRows * kPanelCols;

namespace {

// Tiles 0 to 3 hold the sums of (rows 0..15, panel 0), (rows 0..15, panel 1), (rows 16..31, panel
// 0), (rows 16..31, panel 1); 4 and 5 the two tiles of x, 6 and 7 those of weights.
constexpr TileConfig config_of_rows(int n_rows) {
  TileConfig config;
  for (int half = 0; half < 2; ++half) {
    const int left = n_rows - half * kTileRows;
    if (left <= 0) continue;
    const int rows = left < kTileRows ? left : kTileRows;
    config.set(2 * half, rows);
    config.set(2 * half + 1, rows);
    config.set(4 + half, rows);
  }
  config.set(6, kTileRows);
  config.set(7, kTileRows);
  return config;
}

struct ConfigTable {
  TileConfig of_rows[kBlockRows + 1] = {};
  constexpr ConfigTable() {
    for (int n_rows = 1; n_rows <= kBlockRows; ++n_rows) of_rows[n_rows] = config_of_rows(n_rows);
  }
};
// NOLINTNEXTLINE(misc-definitions-in-headers): constexpr, so that every file has its own
alignas(64) constexpr ConfigTable kTileConfigs;

// Complete sums of a block of tiles. They are finished a few at a time while the tiles of the next
// block multiply, and so not before their stores have reached the cache.
template <typename Engine>
class WaitingSums {
 public:
  explicit WaitingSums(const Int8Epilogue& epilogue) : epilogue_(epilogue) {}

  // Where the sums of the coming block go: its four tiles, each of lines of kPanelCols.
  int32_t* next_buffer() { return buffers_[current_ ^ 1]; }

  // The next buffer has been filled; nothing may be waiting.
  void push(int64_t row, int64_t n_rows, int64_t panel, int64_t n_panels) {
    current_ ^= 1;
    row_ = row;
    panel_ = panel;
    n_panels_ = n_panels;
    done_ = 0;
    count_ = n_rows * n_panels;
  }

  void finish_some(int64_t count) {
    const int64_t end = count_ - done_ < count ? count_ : done_ + count;
    for (; done_ < end; ++done_) {
      const int64_t row = n_panels_ == 2 ? done_ >> 1 : done_;
      const int64_t panel = n_panels_ == 2 ? done_ & 1 : 0;
      const int64_t tile = row / kTileRows * 2 + panel;
      const int32_t* line =
          buffers_[current_] + tile * kTileSums + row % kTileRows * int64_t{kPanelCols};
      finish_row<Engine>(epilogue_, row_ + row, panel_ + panel, load_sums(line));
    }
  }
  void finish_all() { finish_some(count_); }

 private:
  alignas(64) int32_t buffers_[2][4 * kTileSums];
  const Int8Epilogue& epilogue_;
  int current_ = 0;
  int64_t row_ = 0;
  int64_t panel_ = 0;
  int64_t n_panels_ = 1;
  int64_t done_ = 0;
  int64_t count_ = 0;
};

// A block of tiles: up to kBlockRows rows by up to kBlockPanels panels.
struct TileBlock {
  int64_t row;
  int64_t n_rows;
  int64_t panel;
  // With each step of k asks for these of the kBlockPanels · kTileRows lines of that step in the
  // next panels, so that the blocks that share weights share fetching the next.
  int64_t ahead_begin;
  int64_t ahead_end;
};

// Instructions name their registers, so that loops over tiles are written out.
template <class Tiles, int kHalves, int kPanels>
void begin_sums(const Int8Block& b, const TileBlock& t) {
  if (b.first) {
    Tiles::template zero<0>();
    if constexpr (kPanels == 2) Tiles::template zero<1>();
    if constexpr (kHalves == 2) Tiles::template zero<2>();
    if constexpr (kHalves == 2 && kPanels == 2) Tiles::template zero<3>();
    return;
  }
  // Partial sums are [n_panels, n_rows, kPanelCols], so that a tile is contiguous.
  const int32_t* sums = b.partial + (t.panel * b.n_rows + t.row) * kPanelCols;
  const int32_t* next = sums + b.n_rows * kPanelCols;
  Tiles::template load<0>(sums, kTileRowBytes);
  if constexpr (kPanels == 2) Tiles::template load<1>(next, kTileRowBytes);
  if constexpr (kHalves == 2) Tiles::template load<2>(sums + kTileSums, kTileRowBytes);
  if constexpr (kHalves == 2 && kPanels == 2)
    Tiles::template load<3>(next + kTileSums, kTileRowBytes);
}

// Stores the sums of panels 0 and 1, each of which is a tile after the other.
template <class Tiles, int kHalves, int kPanels>
void store_tiles(int32_t* panel_0, int32_t* panel_1, int64_t half_distance) {
  Tiles::template store<0>(panel_0, kTileRowBytes);
  if constexpr (kPanels == 2) Tiles::template store<1>(panel_1, kTileRowBytes);
  if constexpr (kHalves == 2) Tiles::template store<2>(panel_0 + half_distance, kTileRowBytes);
  if constexpr (kHalves == 2 && kPanels == 2)
    Tiles::template store<3>(panel_1 + half_distance, kTileRowBytes);
}

// Loads and products take turns, each product following the load that it waited for.
template <class Tiles, int kHalves, int kPanels>
void add_step(const unsigned char* x, int64_t x_row_bytes, const int8_t* weights,
              int64_t panel_bytes) {
  Tiles::template load<4>(x, x_row_bytes);
  Tiles::template load<6>(weights, kTileRowBytes);
  Tiles::template add_int8_products<0, 4, 6>();
  if constexpr (kPanels == 2) {
    Tiles::template load<7>(weights + panel_bytes, kTileRowBytes);
    Tiles::template add_int8_products<1, 4, 7>();
  }
  if constexpr (kHalves == 2) {
    Tiles::template load<5>(x + kTileRows * x_row_bytes, x_row_bytes);
    Tiles::template add_int8_products<2, 5, 6>();
  }
  if constexpr (kHalves == 2 && kPanels == 2) Tiles::template add_int8_products<3, 5, 7>();
}

// `weights` is the step's tile of the block's first panel.
inline void ask_for_next(const Int8Block& b, const TileBlock& t, const int8_t* weights) {
  for (int64_t line = t.ahead_begin; line < t.ahead_end; ++line) {
    const int64_t panel = line < kTileRows ? kBlockPanels : kBlockPanels + 1;
    const int64_t in_tile = line & (kTileRows - 1);
    _mm_prefetch(
        reinterpret_cast<const char*>(weights) + panel * b.panel_bytes + in_tile * kTileRowBytes,
        _MM_HINT_T1);
  }
}

template <class Tiles, typename Engine, int kHalves, int kPanels>
void multiply_tiles(const Int8Block& b, const TileBlock& t, WaitingSums<Engine>& waiting) {
  const int64_t n_steps = b.n_groups / kTileRows;
  const int64_t waiting_per_step = kBlockRows * kBlockPanels / (n_steps | 1) + 1;
  const unsigned char* x = b.x + t.row * b.x_row_bytes;
  const int8_t* weights = b.weights + t.panel * b.panel_bytes;
  begin_sums<Tiles, kHalves, kPanels>(b, t);
  for (int64_t step = 0; step < n_steps; ++step) {
    ask_for_next(b, t, weights + step * kTileBytes);
    add_step<Tiles, kHalves, kPanels>(x + step * kTileRowBytes, b.x_row_bytes,
                                      weights + step * kTileBytes, b.panel_bytes);
    waiting.finish_some(waiting_per_step);
  }
  if (b.last) {
    waiting.finish_all();
    int32_t* buffer = waiting.next_buffer();
    store_tiles<Tiles, kHalves, kPanels>(buffer, buffer + kTileSums, 2 * kTileSums);
    waiting.push(t.row, t.n_rows, t.panel, kPanels);
  } else {
    int32_t* sums = b.partial + (t.panel * b.n_rows + t.row) * kPanelCols;
    store_tiles<Tiles, kHalves, kPanels>(sums, sums + b.n_rows * kPanelCols, kTileSums);
  }
}

// Rows [begin, end) of the block by all panels: whole blocks of kBlockRows, or a single lower one.
// The weights of two panels stay in the L1 cache for all rows.
template <class Tiles, typename Engine, int kHalves>
void sweep(const Int8Block& b, int64_t begin, int64_t end, WaitingSums<Engine>& waiting) {
  constexpr int64_t kLines = int64_t{kBlockPanels} * kTileRows;
  const int64_t n_rows = end - begin < kBlockRows ? end - begin : kBlockRows;
  // Only the first sweep finds the next weights still in memory.
  const int64_t lines_each = begin > 0 ? 0 : (kLines * n_rows + (end - begin) - 1) / (end - begin);
  Tiles::configure(kTileConfigs.of_rows[n_rows]);
  for (int64_t panel = 0; panel < b.n_panels; panel += kBlockPanels) {
    int64_t ahead = 0;
    for (int64_t row = begin; row < end; row += n_rows) {
      const int64_t ahead_end = ahead + lines_each < kLines ? ahead + lines_each : kLines;
      const TileBlock t{row, n_rows, panel, ahead, ahead_end};
      if (b.n_panels - panel >= kBlockPanels) {
        multiply_tiles<Tiles, Engine, kHalves, 2>(b, t, waiting);
      } else {
        multiply_tiles<Tiles, Engine, kHalves, 1>(b, t, waiting);
      }
      ahead = ahead_end;
    }
  }
}

// Tiles belong to the thread: they are configured and released here, for nobody else's use.
template <class Tiles, typename Engine>
void multiply_by_tiles(const Int8Block& b) {
  static_assert(!Engine::kShift);
  WaitingSums<Engine> waiting(b.epilogue);
  const int64_t whole = b.n_rows / kBlockRows * kBlockRows;
  if (whole > 0) sweep<Tiles, Engine, 2>(b, 0, whole, waiting);
  if (b.n_rows - whole > kTileRows) {
    sweep<Tiles, Engine, 2>(b, whole, b.n_rows, waiting);
  } else if (b.n_rows > whole) {
    sweep<Tiles, Engine, 1>(b, whole, b.n_rows, waiting);
  }
  Tiles::release();
  waiting.finish_all();
}

inline void pack_signed_row(const int8_t* codes, int64_t count, int64_t padded,
                            unsigned char* out) {
  __builtin_memcpy(out, codes, static_cast<size_t>(count));
  __builtin_memset(out + count, 0, static_cast<size_t>(padded - count));
}

// The table of `Engine` over `Tiles`.
template <class Tiles, typename Engine>
constexpr Int8Kernels tile_kernels(int64_t min_rows, const Int8Kernels* fewer_rows) {
  return {.isa = Isa::kAmx,
          .max_stream_rows = 0,
          .tile_panels = kBlockPanels,
          // Two panels take 32 KiB of the 48 of the L1 cache, through which x streams from the L2.
          .block_k = 1024,
          .x_size_bytes = 1,
          .row_multiple = kBlockRows,
          .odd_row_lines = true,
          .min_rows = min_rows,
          .fewer_rows = fewer_rows,
          .pack_row = pack_signed_row,
          .multiply = multiply_by_tiles<Tiles, Engine>};
}

}  // namespace
}  // namespace llmq::quant
