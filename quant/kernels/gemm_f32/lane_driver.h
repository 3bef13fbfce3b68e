#pragma once

#include <cstdint>

#include "quant/kernels/gemm_f32/lane_gemm.h"
#include "quant/kernels/gemm_f32/matrix_f32.h"
#include "quant/kernels/thread_team.h"

namespace llmq::quant {

/// One product as the driver sees it; the families' public headers say what it means.
struct LaneGemmArgs {
  const char* family = "";       ///< name for error messages
  ConstMatrixF32 x;              ///< [m, k]
  WeightRows weights;            ///< [n, k]
  const float* scale = nullptr;  ///< Epilogue::scale, [n] or null
  const float* bias = nullptr;   ///< Epilogue::bias, [n] or null
  MatrixF32 y;                   ///< [m, n]
};

/// Runs `kernels` over all of y, divided over `team`: few rows of x stream the weights from where
/// they lie; more rows share panels of weights widened to float32 in per-thread buffers sized for
/// the L1 and L2 caches. Scratch memory is kept per thread (below 1 MiB each). Throws
/// Error{kInternal} when the shapes do not fit together. Thread safe.
void run_lane_gemm(const LaneGemmKernels& kernels, const LaneGemmArgs& args, ThreadTeam& team);

/// Adds the lanes of one sum in the canonical tree of lane_gemm.h.
float lane_tree_sum(const float (&lanes)[kLanes]);

/// The epilogue of lane_gemm.h for one sum, the specification of the vectorized ones.
void finish_sum(const Epilogue& epilogue, int64_t row, int64_t col, float sum);

}  // namespace llmq::quant
