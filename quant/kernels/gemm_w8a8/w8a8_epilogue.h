#pragma once

#include "quant/kernels/gemm_w8a8/int8_product.h"
#include "quant/kernels/gemm_w8a8/w8a8_args.h"

namespace llmq::quant {

/// What happens to the sums of `function`. Throws Error{kInternal} naming it where the operands do
/// not fit together.
template <typename Weights>
Int8Epilogue checked_epilogue(const char* function, const W8A8Args<Weights>& args) {
  const Weights* w = args.weights;
  check_int8_operands(
      {function, args.m, args.x_stride, args.y.row_stride, w != nullptr, args.deq_scale != nullptr},
      w == nullptr ? 0 : w->n(), w == nullptr ? 0 : w->k());
  check_int8_result(function, args.y.n_rows, args.y.n_cols, args.m, w->n());
  return {.row_sums = w->row_sums(),
          .quant_bias = args.quant_bias,
          .deq_scale = args.deq_scale,
          .row_scale = args.row_scale,
          .bias = args.bias,
          .y = args.y.data,
          .stride = args.y.row_stride,
          .n_cols = w->n()};
}

/// The same where the sums themselves are stored.
template <typename Weights>
Int8Epilogue checked_epilogue(const char* function, const W8A8SumsArgs<Weights>& args) {
  const Weights* w = args.weights;
  check_int8_operands({function, args.m, args.x_stride, args.sums_stride, w != nullptr, true},
                      w == nullptr ? 0 : w->n(), w == nullptr ? 0 : w->k());
  return {.row_sums = w->row_sums(),
          .quant_bias = args.quant_bias,
          .sums = args.sums,
          .stride = args.sums_stride,
          .n_cols = w->n()};
}

}  // namespace llmq::quant
