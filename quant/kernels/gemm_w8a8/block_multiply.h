#pragma once

// Int8Kernels::multiply over an Engine, which holds the instructions: included by avx2.cpp,
// avxvnni.cpp and avx512vnni.cpp and compiled once for each with internal linkage. An Engine has
//   Sums                one int32 for each column of a panel
//   Products            accumulators that add up to Sums
//   Line, Codes         a line of weights; kGroup consecutive k of one row of x for every column
//   kTileRows, kTilePanels, kMaxStreamRows, kXBytes, kShift, kMaxChains
// with the functions used below. Sums of int32 wrap, so that neither their order nor the shift by
// 128 that an unsigned multiplier wants can change a bit of the result.

#include <immintrin.h>

#include <cstdint>

#include "quant/kernels/gemm_w8a8/kernels.h"

namespace llmq::quant {

inline constexpr int64_t kLineBytes = int64_t{kPanelCols} * kGroup;
// How far ahead of its use a streamed line is asked for: what memory delivers in one latency.
inline constexpr int64_t kStreamAheadBytes = 4096;

namespace {

// kRows rows of sums of one panel. What belongs to its columns is loaded once for all rows.
template <typename Engine, int kRows>
inline void finish(const Int8Epilogue& e, int64_t row, int64_t panel,
                   typename Engine::Sums (&sums)[kRows]) {
  const int64_t col = panel * kPanelCols;
  const int64_t n_cols = e.n_cols - col < kPanelCols ? e.n_cols - col : int64_t{kPanelCols};
  const auto mask = Engine::cols_mask(n_cols);
  // Σ (x + shift) · w − shift · Σ w
  if constexpr (Engine::kShift) {
    const auto row_sums = load_sums(e.row_sums + col);
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) sums[r] = sub_times_128(sums[r], row_sums);
  }
  if (e.quant_bias != nullptr) {
    const auto quant_bias = load_sums(e.quant_bias + col, mask);
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) sums[r] = add(sums[r], quant_bias);
  }
  if (e.sums != nullptr) {
    for (int r = 0; r < kRows; ++r) store_sums(e.sums + (row + r) * e.stride + col, mask, sums[r]);
    return;
  }
  const auto deq_scale = load_floats(e.deq_scale + col, mask);
  const auto bias = e.bias != nullptr ? load_floats(e.bias + col, mask) : Engine::all(0.0F);
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
    auto y = multiply(to_float(sums[r]), deq_scale);
    if (e.row_scale != nullptr) y = multiply(y, Engine::all(e.row_scale[row + r]));
    if (e.bias != nullptr) y = add(y, bias);
    store_floats(e.y + (row + r) * e.stride + col, mask, y);
  }
}

template <typename Engine>
inline void finish_row(const Int8Epilogue& e, int64_t row, int64_t panel,
                       typename Engine::Sums sums) {
  typename Engine::Sums rows[1] = {sums};
  finish<Engine, 1>(e, row, panel, rows);
}

// kRows rows by kPanels panels. Consecutive groups of k take turns in kChains sets of accumulators,
// so that tiles of few accumulators need not wait for the multiplier's latency. With each line asks
// for the one `ahead` bytes behind it, in the first kAheadPanels panels.
template <typename Engine, int kRows, int kPanels, int kChains, int kAheadPanels>
void multiply_tile(const Int8Block& b, int64_t first_row, int64_t first_panel, int64_t ahead) {
  constexpr int64_t kCodesBytes = int64_t{kGroup} * Engine::kXBytes;
  typename Engine::Products products[kChains][kRows][kPanels];
#pragma GCC unroll 4
  for (int c = 0; c < kChains; ++c) {
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
      for (int p = 0; p < kPanels; ++p) products[c][r][p] = Engine::no_products();
    }
  }
  const unsigned char* x = b.x + first_row * b.x_row_bytes;
  const int8_t* weights = b.weights + first_panel * b.panel_bytes;
  for (int64_t group = 0; group < b.n_groups; group += kChains) {
#pragma GCC unroll 4
    for (int c = 0; c < kChains; ++c) {
      typename Engine::Line lines[kPanels];
#pragma GCC unroll 4
      for (int p = 0; p < kPanels; ++p) {
        const int8_t* line = weights + p * b.panel_bytes + (group + c) * kLineBytes;
        if (p < kAheadPanels)
          _mm_prefetch(reinterpret_cast<const char*>(line) + ahead, _MM_HINT_T0);
        lines[p] = Engine::load_line(line);
      }
#pragma GCC unroll 8
      for (int r = 0; r < kRows; ++r) {
        const auto codes = Engine::load_codes(x + r * b.x_row_bytes + (group + c) * kCodesBytes);
#pragma GCC unroll 4
        for (int p = 0; p < kPanels; ++p) Engine::add_products(products[c][r][p], codes, lines[p]);
      }
    }
  }
#pragma GCC unroll 4
  for (int p = 0; p < kPanels; ++p) {
    const int64_t panel = first_panel + p;
    typename Engine::Sums sums[kRows];
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      sums[r] = Engine::sums_of(products[0][r][p]);
#pragma GCC unroll 4
      for (int c = 1; c < kChains; ++c) sums[r] = add(sums[r], Engine::sums_of(products[c][r][p]));
      // Where one block spans all of k there is no scratch, and nothing may be added to null.
      if (b.first && b.last) continue;
      int32_t* partial = b.partial + ((first_row + r) * b.n_panels + panel) * kPanelCols;
      if (!b.first) sums[r] = add(sums[r], load_sums(partial));
      if (!b.last) store_sums(partial, sums[r]);
    }
    if (b.last) finish<Engine, kRows>(b.epilogue, first_row, panel, sums);
  }
}

// Few rows: one panel after the other in the order of memory.
template <typename Engine, int kRows>
void stream_rows(const Int8Block& b) {
  if constexpr (kRows > 1) {
    if (b.n_rows < kRows) return stream_rows<Engine, kRows - 1>(b);
  }
  constexpr int kWanted = kRows == 1 ? 4 : kRows <= 3 ? 2 : 1;
  constexpr int kChains = kWanted < Engine::kMaxChains ? kWanted : Engine::kMaxChains;
  for (int64_t panel = 0; panel < b.n_panels; ++panel)
    multiply_tile<Engine, kRows, 1, kChains, 1>(b, 0, panel, kStreamAheadBytes);
}

// The tile's place among those that share its weights, of which the first ones bring the weights of
// the next panels into the cache, no more than memory can deliver while they compute.
template <typename Engine, int kRows, int kPanels>
void tile_of_rows(const Int8Block& b, int64_t row, int64_t n_rows, int64_t panel, int64_t place) {
  if constexpr (kRows > 1) {
    if (n_rows < kRows)
      return tile_of_rows<Engine, kRows - 1, kPanels>(b, row, n_rows, panel, place);
  }
  constexpr int kAheadPanels = kPanels > 1 ? 2 : 1;
  const int64_t first_ahead = place * kAheadPanels;
  if (first_ahead < kPanels) {
    multiply_tile<Engine, kRows, kPanels, 1, kAheadPanels>(b, row, panel,
                                                           (kPanels + first_ahead) * b.panel_bytes);
  } else {
    multiply_tile<Engine, kRows, kPanels, 1, 0>(b, row, panel, 0);
  }
}

// All rows of the block by panels [panel, panel + n_panels), in tiles of as equal heights as can
// be: a tile of one or two rows would wait for the multiplier's latency.
template <typename Engine, int kPanels>
void column_tile(const Int8Block& b, int64_t panel, int64_t n_panels) {
  if constexpr (kPanels > 1) {
    if (n_panels < kPanels) return column_tile<Engine, kPanels - 1>(b, panel, n_panels);
  }
  const int64_t n_tiles = (b.n_rows + Engine::kTileRows - 1) / Engine::kTileRows;
  int64_t row = 0;
  for (int64_t place = 0; place < n_tiles; ++place) {
    const int64_t n_left = n_tiles - place;
    const int64_t n_rows = (b.n_rows - row + n_left - 1) / n_left;
    tile_of_rows<Engine, Engine::kTileRows, kPanels>(b, row, n_rows, panel, place);
    row += n_rows;
  }
}

template <typename Engine>
void multiply_block(const Int8Block& b) {
  if (b.streams) return stream_rows<Engine, Engine::kMaxStreamRows>(b);
  for (int64_t panel = 0; panel < b.n_panels; panel += Engine::kTilePanels) {
    const int64_t n_left = b.n_panels - panel;
    column_tile<Engine, Engine::kTilePanels>(
        b, panel, n_left < Engine::kTilePanels ? n_left : int64_t{Engine::kTilePanels});
  }
}

// Codes + 128 as unsigned bytes, which VPDPBUSD multiplies by signed ones.
inline void pack_shifted_row(const int8_t* codes, int64_t count, int64_t padded,
                             unsigned char* out) {
  for (int64_t i = 0; i < count; ++i) out[i] = static_cast<unsigned char>(codes[i] ^ -128);
  for (int64_t i = count; i < padded; ++i) out[i] = 0;
}

}  // namespace
}  // namespace llmq::quant
