#pragma once

#include <cstdint>
#include <functional>
#include <span>

#include "formats/architecture.h"
#include "quant/kernels/gemm_f32/matrix_f32.h"
#include "runtime/model/linear_rows.h"

namespace llmq::runtime {

/// What the linears of one fused group are about to read.
struct LinearInput {
  formats::FusedGroup group = formats::FusedGroup::kNone;
  int64_t expert = -1;      ///< of an expert's linears; -1 for all others
  quant::ConstMatrixF32 x;  ///< [n_rows, n_in]: rows of the batch in order, or those that were
                            ///< routed to the expert
};

/// What attention is about to use, after head norms and RoPE: rows are those of the batch, in
/// order.
struct AttentionInput {
  quant::ConstMatrixF32 q;             ///< [n_rows, n_heads·head_dim]
  quant::ConstMatrixF32 k;             ///< [n_rows, n_kv_heads·head_dim]
  quant::ConstMatrixF32 v;             ///< [n_rows, n_kv_heads·head_dim]
  std::span<const int64_t> positions;  ///< [n_rows] in the sequence of each row
};

/// Sees a layer at work, for calibration. Matrices are valid during the call only. Functions may be
/// empty.
struct LayerObserver {
  std::function<void(const LinearInput&)> linear_input;
  std::function<void(const AttentionInput&)> attention_input;
  /// The residual stream behind the layer: the rows of the batch, in order.
  std::function<void(const quant::ConstMatrixF32& hidden)> output = {};
};

/// Tells the observer, where it wants to know, what the linears of `group` are about to read.
inline void observe(const LayerObserver& observer, formats::FusedGroup group, int64_t expert,
                    LinearRows& rows) {
  if (observer.linear_input) observer.linear_input({group, expert, rows.floats()});
}

}  // namespace llmq::runtime
