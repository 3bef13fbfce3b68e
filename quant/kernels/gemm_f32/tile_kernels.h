#pragma once

#include "quant/kernels/gemm_f32/lane_gemm.h"

namespace llmq::quant {

/// LaneGemmKernels::tile of every weight type, whose tables must name these tile extents. Requires
/// the instruction set of the name.
void multiply_tile_avx2(const TileTask& task);
inline constexpr int kTileRowsAvx2 = 2;
inline constexpr int kTileColsAvx2 = 3;

void multiply_tile_avx512(const TileTask& task);
inline constexpr int kTileRowsAvx512 = 4;
inline constexpr int kTileColsAvx512 = 6;

}  // namespace llmq::quant
