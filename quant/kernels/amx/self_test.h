#pragma once

// Small products through a tile policy against loops of plain C++: what must agree before the
// processor's tiles are trusted. Free of library code and with internal linkage, as tiles.h.

#include <cstdint>

#include "quant/kernels/amx/tiles.h"

namespace llmq::quant {
namespace {

inline constexpr int kTrialInts = kTileRowBytes / 4;  // int32 or float32 in a row of a tile
inline constexpr int kTrialPairs = kTileRowBytes / 2;

// Sums in tile 0, A in tile 4, B in tile 6, as the kernels have them; A and the sums have `rows`.
constexpr TileConfig trial_config(int rows) {
  TileConfig config;
  config.set(0, rows);
  config.set(4, rows);
  config.set(6, kTileRows);
  return config;
}
alignas(64) inline constexpr TileConfig kTrialConfigs[2] = {trial_config(kTileRows),
                                                            trial_config(5)};

// Codes that reach −128 and 127 without a period that the layout shares.
constexpr int8_t trial_code(int i) {
  return static_cast<int8_t>((i * 37 + i / 7) % 256 - 128);
}

template <class Tiles>
bool int8_products_agree(const TileConfig& config, int rows) {
  alignas(64) int8_t a[kTileRows][kTileRowBytes];
  alignas(64) int8_t b[kTileRows][kTileRowBytes];
  alignas(64) int32_t sums[kTileRows][kTrialInts];
  for (int i = 0; i < kTileRows * kTileRowBytes; ++i) {
    a[i / kTileRowBytes][i % kTileRowBytes] = trial_code(i);
    b[i / kTileRowBytes][i % kTileRowBytes] = trial_code(3 * i + 1);
  }
  for (int i = 0; i < kTileRows * kTrialInts; ++i) sums[i / kTrialInts][i % kTrialInts] = i - 100;
  Tiles::configure(config);
  Tiles::template load<0>(sums, kTileRowBytes);
  Tiles::template load<4>(a, kTileRowBytes);
  Tiles::template load<6>(b, kTileRowBytes);
  Tiles::template add_int8_products<0, 4, 6>();
  Tiles::template store<0>(sums, kTileRowBytes);
  Tiles::release();
  for (int m = 0; m < kTileRows; ++m) {
    for (int n = 0; n < kTrialInts; ++n) {
      int32_t expected = m * kTrialInts + n - 100;
      for (int k = 0; m < rows && k < kTileRowBytes; ++k)
        expected += a[m][k] * b[k / 4][4 * n + k % 4];
      if (sums[m][n] != expected) return false;
    }
  }
  return true;
}

// Integers up to 16, whose products and sums float32 holds exactly in any order.
template <class Tiles>
bool bf16_products_agree(const TileConfig& config, int rows) {
  alignas(64) uint16_t a[kTileRows][kTrialPairs];
  alignas(64) uint16_t b[kTileRows][kTrialPairs];
  alignas(64) float sums[kTileRows][kTrialInts];
  const auto number = [](int i) { return static_cast<float>((i * 11 + i / 5) % 33 - 16); };
  const auto bf16 = [](float value) {
    uint32_t bits;
    __builtin_memcpy(&bits, &value, sizeof bits);
    return static_cast<uint16_t>(bits >> 16);
  };
  for (int i = 0; i < kTileRows * kTrialPairs; ++i) {
    a[i / kTrialPairs][i % kTrialPairs] = bf16(number(i));
    b[i / kTrialPairs][i % kTrialPairs] = bf16(number(3 * i + 1));
  }
  Tiles::configure(config);
  Tiles::template zero<0>();
  Tiles::template load<4>(a, kTileRowBytes);
  Tiles::template load<6>(b, kTileRowBytes);
  Tiles::template add_bf16_products<0, 4, 6>();
  Tiles::template store<0>(sums, kTileRowBytes);
  Tiles::release();
  for (int m = 0; m < rows; ++m) {
    for (int n = 0; n < kTrialInts; ++n) {
      float expected = 0.0F;
      for (int k = 0; k < kTrialPairs; ++k) {
        const int in_b = k / 2 * kTrialPairs + 2 * n + k % 2;
        expected += number(m * kTrialPairs + k) * number(3 * in_b + 1);
      }
      if (sums[m][n] != expected) return false;
    }
  }
  return true;
}

/// Whether whole and partly filled tiles multiply int8 and bfloat16 as they should.
template <class Tiles>
bool tiles_agree() {
  return int8_products_agree<Tiles>(kTrialConfigs[0], kTileRows) &&
         int8_products_agree<Tiles>(kTrialConfigs[1], 5) &&
         bf16_products_agree<Tiles>(kTrialConfigs[0], kTileRows) &&
         bf16_products_agree<Tiles>(kTrialConfigs[1], 5);
}

}  // namespace
}  // namespace llmq::quant
