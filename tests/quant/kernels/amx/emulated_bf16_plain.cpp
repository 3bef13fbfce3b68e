#include <cstdint>
#include <cstring>

#include "quant/kernels/amx/emulated_tiles.h"
#include "quant/kernels/gemm_bf16/tile_multiply.h"
#include "tests/quant/kernels/amx/emulated_bf16.h"

namespace llmq::quant {
namespace {

struct PlainTranspose {
  static void transpose(const void* from, void* to) {
    uint32_t lines[16][16];
    std::memcpy(lines, from, sizeof lines);
    for (size_t i = 0; i < 16; ++i) {
      for (size_t j = 0; j < 16; ++j)
        std::memcpy(static_cast<unsigned char*>(to) + (j * 16 + i) * 4, &lines[i][j], 4);
    }
  }

  static void store_sums(const Bf16SumsTask& task) {
    for (int64_t row = 0; row < task.n_rows; ++row) {
      for (int64_t col = 0; col < task.n_cols; ++col) {
        const float sum = task.tile[col * kBf16Side + row];
        task.y[row * task.y_stride + col] = task.bias == nullptr ? sum : sum + task.bias[col];
      }
    }
  }
};

constexpr Bf16TileKernels kKernels = bf16_tile_kernels<EmulatedTiles, PlainTranspose>();

}  // namespace

const EmulatedBf16 kEmulatedBf16Plain{&kKernels, EmulatedTiles::first_fault,
                                      EmulatedTiles::clear_fault, EmulatedTiles::is_configured};

}  // namespace llmq::quant
