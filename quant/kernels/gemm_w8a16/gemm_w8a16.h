#pragma once

#include <cstdint>

#include "quant/kernels/cpu.h"
#include "quant/kernels/gemm_f32/matrix_f32.h"
#include "quant/kernels/thread_team.h"

namespace llmq::quant {

/// Operands of gemm_w8a16. Weights are worth (q − offset) · scale.
struct GemmW8A16Args {
  ConstMatrixF32 x;                 ///< [m, k]; m may be 0
  const int8_t* weights = nullptr;  ///< [n, k] row-major, at any byte alignment
  int64_t weight_stride = 0;        ///< elements between rows of weights, at least k
  const float* scale = nullptr;     ///< [n] when group_size is 0, else [n, ceil(k / group_size)]
  const float* offset = nullptr;    ///< same shape as scale, or null for zeros (symmetric weights)
  int64_t group_size = 0;           ///< elements of k that share a scale; 0: one scale per row
  const float* bias = nullptr;      ///< [n], or null for none
  MatrixF32 y;                      ///< [m, n], overwritten; may not overlap an operand
};

/// Weight-only int8 product with float32 activations. Every operation is one float32 rounding and
/// sums are in the canonical order of lane_gemm.h, so that the bits of y do not depend on
/// instruction set, threads or division of rows over calls:
///   one scale per row:  y[i, j] = scale[j] · Σ_l x[i, l] · (q[j, l] − offset[j])
///     the differences are exact for the integral offsets that checkpoints hold, and nothing
///     cancels as it would in Σ x·q − offset · Σ x;
///   groups:             y[i, j] = Σ_l x[i, l] · ((q[j, l] − offset[j, g]) · scale[j, g])
///     with g = l / group_size: the bits that gemm_f32 gives for the dequantized weights, so that
///     many rows of x share one dequantization and the group costs nothing in the product.
/// bias[j] is added last where given.
///
/// Any group_size >= 1 is right; multiples of 16 are fast for few rows of x.
/// Work is divided over `team`; calls on different teams may run at the same time.
///
/// Throws Error{kInternal} when the shapes do not fit together.
void gemm_w8a16(const GemmW8A16Args& args, ThreadTeam& team, Isa isa = active_isa());

/// The instruction set of the implementation that gemm_w8a16 runs for `isa` (kAvx2 serves kAvxVnni,
/// kAvx512Vnni serves kAmx).
Isa gemm_w8a16_implementation(Isa isa);

}  // namespace llmq::quant
