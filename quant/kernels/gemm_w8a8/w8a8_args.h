#pragma once

#include <cstdint>

#include "quant/kernels/gemm_f32/matrix_f32.h"

namespace llmq::quant {

/// Operands of a product of int8 codes by int8 codes, whose [n, k] weights are a PackedInt8
/// (gemm_w8a8) or a PackedW8A8sc (gemm_w8a8sc).
template <typename Weights>
struct W8A8Args {
  const int8_t* x = nullptr;            ///< [m, k] codes, row-major, any alignment
  int64_t m = 0;                        ///< may be 0
  int64_t x_stride = 0;                 ///< elements between rows of x, at least k where m > 1
  const Weights* weights = nullptr;     ///< [n, k]
  const int32_t* quant_bias = nullptr;  ///< [n], or null for zeros
  const float* deq_scale = nullptr;     ///< [n]
  const float* row_scale = nullptr;     ///< [m], a scale per token, or null for ones
  const float* bias = nullptr;          ///< [n], or null for zeros
  MatrixF32 y;                          ///< [m, n], overwritten; may not overlap an operand
};

/// Operands of the int32 sums of such a product alone, as in W8A8Args.
template <typename Weights>
struct W8A8SumsArgs {
  const int8_t* x = nullptr;
  int64_t m = 0;
  int64_t x_stride = 0;
  const Weights* weights = nullptr;
  const int32_t* quant_bias = nullptr;
  int32_t* sums = nullptr;  ///< [m, n], overwritten
  int64_t sums_stride = 0;  ///< elements between rows of sums, at least n where m > 1
};

}  // namespace llmq::quant
