#pragma once

#include <cstdint>

#include "quant/kernels/cpu.h"
#include "quant/kernels/gemm_f32/matrix_f32.h"
#include "quant/kernels/thread_team.h"

namespace llmq::quant {

/// Operands of gemm_f32.
struct GemmF32Args {
  ConstMatrixF32 x;               ///< [m, k]; m may be 0
  const void* weights = nullptr;  ///< float32 [n, k], row-major, at any byte alignment
  int64_t weight_stride = 0;      ///< elements between rows of weights, at least k
  const float* bias = nullptr;    ///< [n], or null for none
  MatrixF32 y;                    ///< [m, n], overwritten; may not overlap an operand
};

/// y[i, j] = Σ_l x[i, l] · weights[j, l] (+ bias[j], one addition after the sum) in float32, in the
/// canonical order of lane_gemm.h: the bits of y do not depend on the instruction set, on the
/// number of threads, nor on how rows of x are divided over calls (only the payload of a NaN may).
/// Work is divided over `team`; calls on different teams may run at the same time.
///
/// Throws Error{kInternal} when the shapes do not fit together.
void gemm_f32(const GemmF32Args& args, ThreadTeam& team, Isa isa = active_isa());

/// The instruction set of the implementation that gemm_f32 runs for `isa` (kAvx2 serves kAvxVnni,
/// kAvx512Vnni serves kAmx).
Isa gemm_f32_implementation(Isa isa);

}  // namespace llmq::quant
