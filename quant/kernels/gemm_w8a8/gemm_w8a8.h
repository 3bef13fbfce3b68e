#pragma once

#include "quant/kernels/cpu.h"
#include "quant/kernels/gemm_w8a8/packed_int8.h"
#include "quant/kernels/gemm_w8a8/w8a8_args.h"
#include "quant/kernels/thread_team.h"

namespace llmq::quant {

/// Operands of gemm_w8a8.
using GemmW8A8Args = W8A8Args<PackedInt8>;

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

/// Operands of gemm_w8a8_sums.
using GemmW8A8SumsArgs = W8A8SumsArgs<PackedInt8>;

/// The int32 sums of gemm_w8a8 alone, for partial products that are added up (modulo 2^32) before
/// they are scaled. Everything else as gemm_w8a8.
void gemm_w8a8_sums(const GemmW8A8SumsArgs& args, ThreadTeam& team, Isa isa = active_isa());

/// The instruction set of the implementation that gemm_w8a8 runs for `isa`: every set has its own,
/// of which that of kAmx leaves fewer rows than fill its tiles (16) to kAvx512Vnni's.
Isa gemm_w8a8_implementation(Isa isa);

}  // namespace llmq::quant
