#pragma once

// Included by the files that define the tables, after the sums and tile_multiply.h.

#include "quant/kernels/amx/emulated_tiles.h"
#include "tests/quant/kernels/amx/emulated_w8a8.h"

namespace llmq::quant {
namespace {

struct NeverConfigured : EmulatedTiles {
  static void configure(const TileConfig&) {}
};

template <typename Engine>
inline constexpr Int8Kernels kEmulated = tile_kernels<EmulatedTiles, Engine>(1, nullptr);
template <typename Engine>
inline constexpr Int8Kernels kUnconfigured = tile_kernels<NeverConfigured, Engine>(1, nullptr);

template <typename Engine>
constexpr EmulatedW8A8 emulated_table() {
  return {&kEmulated<Engine>, &kUnconfigured<Engine>, EmulatedTiles::first_fault,
          EmulatedTiles::clear_fault, EmulatedTiles::is_configured};
}

}  // namespace
}  // namespace llmq::quant
