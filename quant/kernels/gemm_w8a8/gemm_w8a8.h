#pragma once

#include <cstdint>

#include "quant/kernels/cpu.h"
#include "quant/kernels/gemm_f32/matrix_f32.h"
#include "quant/kernels/gemm_w8a8/packed_int8.h"
#include "quant/kernels/thread_team.h"

namespace llmq::quant {

/// Operands of gemm_w8a8.
struct GemmW8A8Args {
  const int8_t* x = nullptr;            ///< [m, k] codes, row-major, any alignment
  int64_t m = 0;                        ///< may be 0
  int64_t x_stride = 0;                 ///< elements between rows of x, at least k where m > 1
  const PackedInt8* weights = nullptr;  ///< [n, k]
  const int32_t* quant_bias = nullptr;  ///< [n], or null for zeros
  const float* deq_scale = nullptr;     ///< [n]
  const float* row_scale = nullptr;     ///< [m], a scale per token, or null for ones
  const float* bias = nullptr;          ///< [n], or null for zeros
  MatrixF32 y;                          ///< [m, n], overwritten; may not overlap an operand
};

/// Product of int8 codes by int8 codes:
///   sum[i, j] = Σ_l x[i, l] · w[j, l] + quant_bias[j]             in int32
///   y[i, j]   = ((float32(sum) · deq_scale[j]) · row_scale[i]) + bias[j]
/// where the conversion (half to even), each multiplication and the addition is one float32
/// rounding, left out where its array is null. x and w take all values from −128 to 127.
///
/// int32 arithmetic wraps. Up to k = 131,071 a sum of products cannot: each is at most 2^14 in
/// magnitude. Multipliers that want x unsigned compute Σ (x + 128) · w − 128 · Σ w, which is the
/// same number modulo 2^32 whatever wraps on the way. The order of integer additions is therefore
/// free, and the bits of y do not depend on instruction set, threads or division of rows over
/// calls (the payload of a NaN excepted).
///
/// Work is divided over `team`; calls on different teams may run at the same time. Scratch memory
/// of up to 512 rows of x is kept by the calling thread, below 1 MiB by each thread of the team.
///
/// Throws Error{kInternal} when the shapes do not fit together.
void gemm_w8a8(const GemmW8A8Args& args, ThreadTeam& team, Isa isa = active_isa());

/// Operands of gemm_w8a8_sums, as in GemmW8A8Args.
struct GemmW8A8SumsArgs {
  const int8_t* x = nullptr;
  int64_t m = 0;
  int64_t x_stride = 0;
  const PackedInt8* weights = nullptr;
  const int32_t* quant_bias = nullptr;
  int32_t* sums = nullptr;  ///< [m, n], overwritten
  int64_t sums_stride = 0;  ///< elements between rows of sums, at least n where m > 1
};

/// The int32 sums of gemm_w8a8 alone, for partial products that are added up (modulo 2^32) before
/// they are scaled. Everything else as gemm_w8a8.
void gemm_w8a8_sums(const GemmW8A8SumsArgs& args, ThreadTeam& team, Isa isa = active_isa());

/// The instruction set of the implementation that gemm_w8a8 runs for `isa`: every set has its own,
/// of which that of kAmx leaves fewer rows than fill its tiles (16) to kAvx512Vnni's.
Isa gemm_w8a8_implementation(Isa isa);

}  // namespace llmq::quant
