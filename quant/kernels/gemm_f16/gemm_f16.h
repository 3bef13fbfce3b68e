#pragma once

#include <cstdint>

#include "formats/dtype.h"
#include "quant/kernels/cpu.h"
#include "quant/kernels/gemm_f32/matrix_f32.h"
#include "quant/kernels/thread_team.h"

namespace llmq::quant {

/// Operands of gemm_f16.
struct GemmF16Args {
  ConstMatrixF32 x;               ///< [m, k]; m may be 0
  const void* weights = nullptr;  ///< [n, k] of `weight_dtype`, row-major, at any byte alignment
  formats::DType weight_dtype = formats::DType::kBF16;  ///< kBF16 or kF16
  int64_t weight_stride = 0;    ///< elements between rows of weights, at least k
  const float* bias = nullptr;  ///< [n], or null for none
  MatrixF32 y;                  ///< [m, n], overwritten; may not overlap an operand
};

/// y[i, j] = Σ_l x[i, l] · weights[j, l] (+ bias[j], one addition after the sum). Weights are
/// widened exactly (subnormals included), so that y has the bits that gemm_f32 gives for the same
/// weights stored as float32: products and sums are float32 in the canonical order of lane_gemm.h,
/// independent of instruction set, threads and division of rows over calls.
/// Work is divided over `team`; calls on different teams may run at the same time.
///
/// Throws Error{kInternal} when the shapes do not fit together or weight_dtype is another type.
void gemm_f16(const GemmF16Args& args, ThreadTeam& team, Isa isa = active_isa());

/// The instruction set of the implementation that gemm_f16 runs for `isa` (kAvx2 serves kAvxVnni,
/// kAvx512Vnni serves kAmx).
Isa gemm_f16_implementation(Isa isa);

}  // namespace llmq::quant
