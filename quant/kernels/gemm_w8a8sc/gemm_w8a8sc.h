#pragma once

#include <cstdint>

#include "quant/kernels/cpu.h"
#include "quant/kernels/gemm_f32/matrix_f32.h"
#include "quant/kernels/gemm_w8a8sc/packed_w8a8sc.h"
#include "quant/kernels/thread_team.h"

namespace llmq::quant {

/// Operands of gemm_w8a8sc, as in GemmW8A8Args.
struct GemmW8A8scArgs {
  const int8_t* x = nullptr;              ///< [m, k] codes, row-major, any alignment
  int64_t m = 0;                          ///< may be 0
  int64_t x_stride = 0;                   ///< elements between rows of x, at least k where m > 1
  const PackedW8A8sc* weights = nullptr;  ///< [n, k]
  const int32_t* quant_bias = nullptr;    ///< [n], or null for zeros
  const float* deq_scale = nullptr;       ///< [n]
  const float* row_scale = nullptr;       ///< [m], a scale per token, or null for ones
  const float* bias = nullptr;            ///< [n], or null for zeros
  MatrixF32 y;                            ///< [m, n], overwritten; may not overlap an operand
};

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

/// Operands of gemm_w8a8sc_sums, as in GemmW8A8scArgs.
struct GemmW8A8scSumsArgs {
  const int8_t* x = nullptr;
  int64_t m = 0;
  int64_t x_stride = 0;
  const PackedW8A8sc* weights = nullptr;
  const int32_t* quant_bias = nullptr;
  int32_t* sums = nullptr;  ///< [m, n], overwritten
  int64_t sums_stride = 0;  ///< elements between rows of sums, at least n where m > 1
};

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
