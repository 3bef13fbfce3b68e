#pragma once

#include <cstdint>

#include "formats/dtype.h"
#include "quant/kernels/cpu.h"
#include "quant/kernels/gemm_f32/matrix_f32.h"
#include "quant/kernels/thread_team.h"

namespace llmq::quant {

/// Operands of gemm_bf16.
struct GemmBf16Args {
  ConstMatrixF32 x;               ///< [m, k]; m may be 0
  const void* weights = nullptr;  ///< [n, k] of `weight_dtype`, row-major, at any byte alignment
  formats::DType weight_dtype = formats::DType::kBF16;  ///< kBF16 or kF16
  int64_t weight_stride = 0;    ///< elements between rows of weights, at least k
  const float* bias = nullptr;  ///< [n], or null for none
  MatrixF32 y;                  ///< [m, n], overwritten; may not overlap an operand
};

/// Rows of x from which on kAmx multiplies by tiles. Fewer leave a tile half empty, and up to about
/// 11 rows the float32 kernels keep up with the memory that brings the weights.
inline constexpr int64_t kBf16FewestTileRows = 16;

/// Bytes of scratch memory for rows of x that gemm_bf16 keeps per channel of k, at most.
inline constexpr int64_t kBf16ScratchBytesPerChannel = 1024;

/// y[i, j] = Σ_l x̂[i, l] · ŵ[j, l] (+ bias[j], one addition after the sum), where x̂ is x rounded to
/// bfloat16 and ŵ the weight (of kF16: rounded to bfloat16 as well), with float32 sums. Rounding is
/// half to even; magnitudes from 2^128 − 2^119 on become infinite, those below 2^-126 zeros of
/// their sign; a NaN stays one.
///
/// There are two orders of summation:
/// - tiles, for kAmx and m >= kBf16FewestTileRows: the order of TDPBF16PS, which scalar.cpp
///   spells out. Subnormal weights and results count as zeros.
/// - lanes, for all else: the bits of gemm_f16 on the rounded operands, which keeps subnormals.
/// Within one order, bits depend on neither threads, the division of rows over calls nor the
/// instruction set (only the payload of a NaN may). Between the two, an element differs by at most
///   1.001 · 2^-24 · (⌈k/32⌉ + ⌈k/16⌉ + 24) · (Σ |x̂·ŵ| + |bias|) + 2^-126 · (2k + 2 + Σ |x̂|)
/// where all sums stay finite; an infinite or NaN operand gives an infinity or a NaN in both (an
/// infinity times a subnormal weight: NaN in tiles, an infinity in lanes).
///
/// Work is divided over `team`; calls on different teams may run at the same time. Scratch memory
/// is kept per thread: rows of x (kBf16ScratchBytesPerChannel · k bytes) and below 2 MiB of weights
/// and sums; weights are never copied as a whole.
///
/// Throws Error{kInternal} when the shapes do not fit together or weight_dtype is another type.
void gemm_bf16(const GemmBf16Args& args, ThreadTeam& team, Isa isa = active_isa());

/// The instruction set of the implementation that gemm_bf16 runs for `isa` on many rows: kAmx for
/// kAmx, else that of gemm_f16.
Isa gemm_bf16_implementation(Isa isa);

}  // namespace llmq::quant
