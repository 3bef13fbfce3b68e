#pragma once

#include <cstdint>

#include "quant/kernels/cpu.h"
#include "quant/kernels/gemm_f32/matrix_f32.h"
#include "quant/kernels/gemm_w4a16/packed_int4.h"
#include "quant/kernels/thread_team.h"

namespace llmq::quant {

/// Operands of gemm_w4a16. Weights are worth (q − offset) · scale.
struct GemmW4A16Args {
  ConstMatrixF32 x;                     ///< [m, k]; m may be 0
  const PackedInt4* weights = nullptr;  ///< [n, k]
  const float* scale = nullptr;   ///< [n] when group_size is 0, else [n, ceil(k / group_size)]
  const float* offset = nullptr;  ///< same shape as scale, or null for zeros (symmetric weights)
  int64_t group_size = 0;         ///< elements of k that share a scale; 0: one scale per row
  const float* bias = nullptr;    ///< [n], or null for none
  MatrixF32 y;                    ///< [m, n], overwritten; may not overlap an operand
};

/// Weight-only int4 product with float32 activations: the bits that gemm_w8a16 gives for the same
/// codes stored in a byte each, for every instruction set, number of threads and division of rows
/// over calls, with half the bytes read. The 16 values that a weight of a row or group can have are
/// computed once, with the roundings of gemm_w8a16, and looked up.
///
/// Any group_size >= 1 is right; multiples of 16 are fast for few rows of x, those of 128 most.
/// Work is divided over `team`; calls on different teams may run at the same time.
///
/// Throws Error{kInternal} when the shapes do not fit together.
void gemm_w4a16(const GemmW4A16Args& args, ThreadTeam& team, Isa isa = active_isa());

/// The instruction set of the implementation that gemm_w4a16 runs for `isa` (kAvx2 serves kAvxVnni,
/// kAvx512Vnni serves kAmx).
Isa gemm_w4a16_implementation(Isa isa);

}  // namespace llmq::quant
