#pragma once

#include "quant/kernels/cpu.h"
#include "quant/kernels/gemm_w8a8/w8a8_args.h"
#include "quant/kernels/gemm_w8a8sc/packed_w8a8sc.h"
#include "quant/kernels/thread_team.h"

namespace llmq::quant {

/// Operands of gemm_w8a8sc.
using GemmW8A8scArgs = W8A8Args<PackedW8A8sc>;

/// gemm_w8a8 on weights that stay packed: the same sums, the same roundings and so the same bits,
/// whatever the instruction set, the threads and the division of rows over calls.
///
/// A few rows of x read about half the bytes of gemm_w8a8; with AVX512-VBMI2 codes are expanded in
/// registers as they are multiplied. Otherwise a block of lines is expanded to int8 in the cache
/// and multiplied by all rows of a task with the kernels of gemm_w8a8.
///
/// Work is divided over `team`; calls on different teams may run at the same time. Scratch memory
/// of up to 512 rows of x is kept by the calling thread, below 1.5 MiB by each thread of the team.
///
/// Throws Error{kInternal} when the shapes do not fit together.
void gemm_w8a8sc(const GemmW8A8scArgs& args, ThreadTeam& team, Isa isa = active_isa());

/// Operands of gemm_w8a8sc_sums.
using GemmW8A8scSumsArgs = W8A8SumsArgs<PackedW8A8sc>;

/// The int32 sums of gemm_w8a8sc alone, for partial products that are added up (modulo 2^32) before
/// they are scaled. Everything else as gemm_w8a8sc.
void gemm_w8a8sc_sums(const GemmW8A8scSumsArgs& args, ThreadTeam& team, Isa isa = active_isa());

/// What runs for `isa`.
struct W8A8scImplementation {
  Isa multiplies = Isa::kScalar;  ///< as gemm_w8a8_implementation
  /// Makes int8 lines: kAvx512Vnni where the CPU has AVX512-VBMI2 as well, else kAvx2 for it;
  /// kAvx2 for kAvxVnni.
  Isa expands = Isa::kScalar;
};
W8A8scImplementation gemm_w8a8sc_implementation(Isa isa);

/// True where weights of which a share `escaped` (0 to 1) lies outside ±7 are multiplied faster by
/// gemm_w8a8sc than by gemm_w8a8 for one row of x that finds none of them in a cache.
bool w8a8sc_pays(double escaped, Isa isa = active_isa());

}  // namespace llmq::quant
