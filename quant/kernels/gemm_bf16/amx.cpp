#include "quant/kernels/gemm_bf16/tile_multiply.h"
#include "quant/kernels/gemm_bf16/transpose_avx512.h"

namespace llmq::quant {

const Bf16TileKernels kGemmBf16Amx = bf16_tile_kernels<HardwareTiles, TransposeAvx512>();

}  // namespace llmq::quant
