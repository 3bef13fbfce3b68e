#pragma once

#include "quant/kernels/gemm_bf16/gemm_bf16.h"
#include "quant/kernels/gemm_bf16/kernels.h"

namespace llmq::quant {

/// gemm_bf16 in the order of tiles, one element after the other: the specification of the tile
/// kernels, and what tests compare them with. Operands and errors as of gemm_bf16.
void gemm_bf16_specification(const GemmBf16Args& args);

/// gemm_bf16 by the tile kernels given, whatever m is. The machine must have their instructions.
void gemm_bf16_by_tiles(const Bf16TileKernels& kernels, const GemmBf16Args& args, ThreadTeam& team);

/// gemm_bf16 in the order of lanes with the float kernels of `isa`.
void gemm_bf16_by_lanes(const GemmBf16Args& args, ThreadTeam& team, Isa isa);

/// Throws Error{kInternal} as gemm_bf16 does.
void check_bf16_operands(const GemmBf16Args& args);

}  // namespace llmq::quant
