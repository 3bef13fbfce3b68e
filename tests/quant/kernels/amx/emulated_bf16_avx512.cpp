#include "quant/kernels/amx/emulated_tiles.h"
#include "quant/kernels/gemm_bf16/tile_multiply.h"
#include "quant/kernels/gemm_bf16/transpose_avx512.h"
#include "tests/quant/kernels/amx/emulated_bf16.h"

namespace llmq::quant {
namespace {

constexpr Bf16TileKernels kKernels = bf16_tile_kernels<EmulatedTiles, TransposeAvx512>();

}  // namespace

const EmulatedBf16 kEmulatedBf16Avx512{&kKernels, EmulatedTiles::first_fault,
                                       EmulatedTiles::clear_fault, EmulatedTiles::is_configured};

}  // namespace llmq::quant
