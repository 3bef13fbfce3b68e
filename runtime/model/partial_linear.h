#pragma once

#include "quant/kernels/gemm_f32/matrix_f32.h"
#include "quant/kernels/thread_team.h"
#include "runtime/model/linear.h"

namespace llmq::runtime {

/// Codes of activations with one rule for all, multiplied by this rank's columns of a linear with
/// static scales; int32 sums are added up over linear.ranks and scaled once. Arguments as
/// apply_linear, of a linear that check_linear accepts and that has ranks.
void apply_static_over_ranks(const LinearWeights& linear, const quant::ConstMatrixF32& x,
                             const quant::MatrixF32& y, quant::ThreadTeam& team);

/// The same with a scale per row of x, from its largest magnitude on any rank. linear.bias must be
/// whole on every rank.
void apply_dynamic_over_ranks(const LinearWeights& linear, const quant::ConstMatrixF32& x,
                              const quant::MatrixF32& y, quant::ThreadTeam& team);

/// Replaces a rank's part of y by the float32 sum over ranks, in their order.
void sum_over_ranks(Communicator& ranks, const quant::MatrixF32& y);

}  // namespace llmq::runtime
