#pragma once

// The tile instructions of AMX as a policy for kernel templates. Free of library code, because
// files compiled for one instruction set include it; only they may instantiate HardwareTiles.

#include <cstddef>
#include <cstdint>

namespace llmq::quant {

/// Palette 1: eight tile registers of 16 rows of 64 bytes.
inline constexpr int kTileCount = 8;
inline constexpr int kTileRows = 16;
inline constexpr int kTileRowBytes = 64;

/// The 64 bytes that LDTILECFG reads (Intel SDM, "LDTILECFG"): the shape of each tile register. A
/// tile whose shape is 0 × 0 may not be used. Keep configurations constant and in static storage.
struct alignas(64) TileConfig {
  uint8_t palette = 1;
  uint8_t start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t row_bytes[16] = {};  ///< of the eight tiles; the rest is reserved
  uint8_t n_rows[16] = {};      ///< of the eight tiles; the rest is reserved

  /// Gives `tile` (0 to 7) `rows` (1 to 16) rows of `bytes` (4 to 64, a multiple of 4).
  constexpr void set(int tile, int rows, int bytes = kTileRowBytes) {
    n_rows[tile] = static_cast<uint8_t>(rows);
    row_bytes[tile] = static_cast<uint16_t>(bytes);
  }
};
static_assert(sizeof(TileConfig) == 64 && offsetof(TileConfig, row_bytes) == 16 &&
              offsetof(TileConfig, n_rows) == 48);

namespace {

/// The instructions themselves. Tile registers belong to the thread, and the compiler knows nothing
/// of them: a kernel configures, computes and releases within one function and calls nothing in
/// between that might use tiles. The intrinsics of GCC 12 are not used, because their loads do not
/// tell the compiler that memory is read, so that it may drop or move the stores that fill what is
/// loaded; here every access to memory is a barrier to it.
///
/// EmulatedTiles (emulated_tiles.h) has the same functions.
struct HardwareTiles {
  /// LDTILECFG: shapes and zeroes all tiles.
  static void configure(const TileConfig& config) {
    __asm__ volatile("ldtilecfg %0" : : "m"(config) : "memory");
  }

  /// TILERELEASE: afterwards context switches need not save tiles.
  static void release() { __asm__ volatile("tilerelease" : : : "memory"); }

  template <int kTile>
  static void zero() {
    __asm__ volatile("tilezero %%tmm%c0" : : "i"(kTile));
  }

  /// TILELOADD: the tile's rows from `base`, `stride_bytes` apart.
  template <int kTile>
  static void load(const void* base, int64_t stride_bytes) {
    __asm__ volatile("tileloadd (%0,%1,1), %%tmm%c2"
                     :
                     : "r"(base), "r"(stride_bytes), "i"(kTile)
                     : "memory");
  }

  /// TILESTORED: the tile's rows to `base`, `stride_bytes` apart.
  template <int kTile>
  static void store(void* base, int64_t stride_bytes) {
    __asm__ volatile("tilestored %%tmm%c2, (%0,%1,1)"
                     :
                     : "r"(base), "r"(stride_bytes), "i"(kTile)
                     : "memory");
  }

  /// TDPBSSD: sums[m][n] += Σ_k Σ_{i<4} a[m][4k + i] · b[k][4n + i] of signed bytes, modulo 2^32.
  template <int kSums, int kA, int kB>
  static void add_int8_products() {
    __asm__ volatile("tdpbssd %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(kSums), "i"(kA), "i"(kB));
  }

  /// TDPBF16PS: the same of pairs of bfloat16 into float32, in the order that EmulatedTiles states.
  template <int kSums, int kA, int kB>
  static void add_bf16_products() {
    __asm__ volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(kSums), "i"(kA), "i"(kB));
  }
};

}  // namespace
}  // namespace llmq::quant
