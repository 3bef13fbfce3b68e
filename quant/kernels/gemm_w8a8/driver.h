#pragma once

#include "quant/kernels/gemm_w8a8/gemm_w8a8.h"
#include "quant/kernels/gemm_w8a8/kernels.h"

namespace llmq::quant {

/// gemm_w8a8 and gemm_w8a8_sums by the kernels of a given table instead of an instruction set's, so
/// that tests run tables of their own. The machine must have the instructions of `kernels` and of
/// its fewer_rows.
void gemm_w8a8_by(const Int8Kernels& kernels, const GemmW8A8Args& args, ThreadTeam& team);
void gemm_w8a8_sums_by(const Int8Kernels& kernels, const GemmW8A8SumsArgs& args, ThreadTeam& team);

}  // namespace llmq::quant
