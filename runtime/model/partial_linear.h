#pragma once

#include "quant/kernels/gemm_f32/matrix_f32.h"
#include "quant/kernels/thread_team.h"
#include "runtime/model/coded_linear.h"
#include "runtime/model/linear.h"

namespace llmq::runtime {

/// apply_linear of a linear that multiplies codes and whose inputs are cut over linear.ranks: this
/// rank's columns of x become codes of `form` (with a scale per row from its largest magnitude on
/// any rank) and are multiplied by its columns of W; int32 sums are added up over the ranks and
/// scaled once. Arguments as apply_linear, of a linear that check_linear accepts; its bias must be
/// whole on every rank.
void apply_codes_over_ranks(const LinearWeights& linear, InputForm form,
                            const quant::ConstMatrixF32& x, const quant::MatrixF32& y,
                            quant::ThreadTeam& team);

/// Replaces a rank's part of y by the float32 sum over ranks, in their order.
void sum_over_ranks(Communicator& ranks, const quant::MatrixF32& y);

}  // namespace llmq::runtime
