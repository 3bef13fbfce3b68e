#pragma once

// A model of the tile registers in plain C++, so that the kernels written for them run, and are
// compared bit for bit, on machines without them. Free of library code and with internal linkage,
// because a test compiles it with the flags of an instruction set too.

#include <cstdint>

#include "quant/kernels/amx/tiles.h"

namespace llmq::quant {
namespace {

/// What HardwareTiles does, as the Intel SDM states it for palette 1. Each thread has registers of
/// its own. An instruction that the processor would refuse (#UD, #GP) does nothing but record its
/// fault, the first of all threads, which first_fault returns; the registers' contents are those of
/// the hardware otherwise.
///
/// TDPBF16PS per sum and instruction: one chain of fused multiply-adds over the even and one over
/// the odd elements, each from 0 in ascending order; the two are added, then added to the sum. All
/// steps round half to even, and subnormal inputs and results count as zeros of the same sign. NaN
/// payloads are not modelled, nor that the hardware flushes a result that only rounding lifts to
/// 2^−126.
class EmulatedTiles {
 public:
  static void configure(const TileConfig& config) {
    if (!is_valid(config)) return fault("#GP: invalid tile configuration");
    Registers& r = registers();
    r = Registers{};
    r.is_configured = config.palette == 1;
    if (r.is_configured) r.config = config;
  }

  static void release() { registers() = Registers{}; }

  template <int kTile>
  static void zero() {
    if (!usable(kTile)) return fault("#UD: TILEZERO of a tile without a shape");
    registers().tile[kTile] = Tile{};
  }

  template <int kTile>
  static void load(const void* base, int64_t stride_bytes) {
    if (!usable(kTile)) return fault("#UD: TILELOADD of a tile without a shape");
    Registers& r = registers();
    r.tile[kTile] = Tile{};
    for (int row = 0; row < r.config.n_rows[kTile]; ++row) {
      __builtin_memcpy(r.tile[kTile].bytes[row],
                       static_cast<const unsigned char*>(base) + row * stride_bytes,
                       r.config.row_bytes[kTile]);
    }
  }

  template <int kTile>
  static void store(void* base, int64_t stride_bytes) {
    if (!usable(kTile)) return fault("#UD: TILESTORED of a tile without a shape");
    const Registers& r = registers();
    for (int row = 0; row < r.config.n_rows[kTile]; ++row) {
      __builtin_memcpy(static_cast<unsigned char*>(base) + row * stride_bytes,
                       r.tile[kTile].bytes[row], r.config.row_bytes[kTile]);
    }
  }

  template <int kSums, int kA, int kB>
  static void add_int8_products() {
    if (!can_multiply(kSums, kA, kB)) return fault("#UD: TDPBSSD of tiles that do not fit");
    Registers& r = registers();
    for (int m = 0; m < r.config.n_rows[kSums]; ++m) {
      for (int n = 0; n < r.config.row_bytes[kSums] / 4; ++n) {
        uint32_t sum = get<uint32_t>(r.tile[kSums], m, n);
        for (int k = 0; k < r.config.row_bytes[kA] / 4; ++k) {
          for (int i = 0; i < 4; ++i) {
            sum += static_cast<uint32_t>(get<int8_t>(r.tile[kA], m, 4 * k + i) *
                                         get<int8_t>(r.tile[kB], k, 4 * n + i));
          }
        }
        set(r.tile[kSums], m, n, sum);
      }
    }
  }

  template <int kSums, int kA, int kB>
  static void add_bf16_products() {
    if (!can_multiply(kSums, kA, kB)) return fault("#UD: TDPBF16PS of tiles that do not fit");
    Registers& r = registers();
    for (int m = 0; m < r.config.n_rows[kSums]; ++m) {
      for (int n = 0; n < r.config.row_bytes[kSums] / 4; ++n) {
        float chain[2] = {0.0F, 0.0F};
        for (int k = 0; k < r.config.row_bytes[kA] / 4; ++k) {
          for (int i = 0; i < 2; ++i) {
            const float x = flush(widen(get<uint16_t>(r.tile[kA], m, 2 * k + i)));
            const float y = flush(widen(get<uint16_t>(r.tile[kB], k, 2 * n + i)));
            chain[i] = flush(__builtin_fmaf(x, y, chain[i]));
          }
        }
        const float sum = flush(get<float>(r.tile[kSums], m, n));
        set(r.tile[kSums], m, n, flush(sum + flush(chain[0] + chain[1])));
      }
    }
  }

  /// The first fault since clear_fault, or null.
  static const char* first_fault() { return __atomic_load_n(&fault_, __ATOMIC_SEQ_CST); }
  static void clear_fault() {
    const char* none = nullptr;
    __atomic_store_n(&fault_, none, __ATOMIC_SEQ_CST);
  }
  /// Whether the calling thread has configured its tiles and not released them.
  static bool is_configured() { return registers().is_configured; }

 private:
  struct Tile {
    unsigned char bytes[kTileRows][kTileRowBytes] = {};
  };
  struct Registers {
    bool is_configured = false;
    TileConfig config;
    Tile tile[kTileCount];
  };

  static Registers& registers() {
    static thread_local Registers of_thread;
    return of_thread;
  }

  static void fault(const char* what) {
    const char* none = nullptr;
    __atomic_compare_exchange_n(&fault_, &none, what, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
  }

  // Palette 0 is the released state, of which the processor ignores the rest.
  static bool is_valid(const TileConfig& config) {
    if (config.palette == 0) return true;
    if (config.palette != 1) return false;
    for (unsigned char byte : config.reserved) {
      if (byte != 0) return false;
    }
    for (int tile = 0; tile < 16; ++tile) {
      const int rows = config.n_rows[tile];
      const int bytes = config.row_bytes[tile];
      if (tile >= kTileCount && (rows != 0 || bytes != 0)) return false;
      if (rows > kTileRows || bytes > kTileRowBytes || (rows == 0) != (bytes == 0)) return false;
    }
    return true;
  }

  // Kernels here never restart within a tile, so that start_row is 0 wherever tiles are used.
  static bool usable(int tile) {
    const Registers& r = registers();
    return r.is_configured && r.config.n_rows[tile] != 0 && r.config.start_row == 0;
  }

  static bool can_multiply(int sums, int a, int b) {
    if (sums == a || sums == b || a == b) return false;
    if (!usable(sums) || !usable(a) || !usable(b)) return false;
    const TileConfig& c = registers().config;
    return c.row_bytes[sums] % 4 == 0 && c.row_bytes[a] % 4 == 0 && c.row_bytes[b] % 4 == 0 &&
           c.n_rows[sums] == c.n_rows[a] && c.row_bytes[a] / 4 == c.n_rows[b] &&
           c.row_bytes[sums] == c.row_bytes[b];
  }

  template <typename T>
  static T get(const Tile& tile, int row, int index) {
    T value;
    __builtin_memcpy(&value, tile.bytes[row] + index * static_cast<int>(sizeof(T)), sizeof(T));
    return value;
  }
  template <typename T>
  static void set(Tile& tile, int row, int index, T value) {
    __builtin_memcpy(tile.bytes[row] + index * static_cast<int>(sizeof(T)), &value, sizeof(T));
  }

  static float widen(uint16_t bits) {
    const uint32_t wide = static_cast<uint32_t>(bits) << 16;
    float value;
    __builtin_memcpy(&value, &wide, sizeof value);
    return value;
  }
  static float flush(float value) {
    if (__builtin_fabsf(value) < 0x1p-126F) return __builtin_copysignf(0.0F, value);
    return value;
  }

  static inline const char* fault_ = nullptr;
};

}  // namespace
}  // namespace llmq::quant
