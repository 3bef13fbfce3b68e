#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "quant/gram.h"
#include "quant/kernels/thread_team.h"

namespace llmq::quant {

/// What GPTQ (arXiv 2210.17323) needs to know about the inputs of a linear: H = Σ x·xᵀ of
/// calibration with its columns in the order in which weights are quantized, and the factor by
/// which an error is spread over the columns to come. Immutable; reading is thread-safe.
struct GptqFactor {
  int64_t k = 0;
  /// False: H could not be factored, `reason` says why, and weights are rounded without it.
  bool is_usable = false;
  std::string reason;
  double damping = 0.0;        ///< added to the diagonal of H, as a share of its mean
  int64_t n_dead = 0;          ///< channels that were zero in all of calibration
  std::vector<int64_t> order;  ///< [k] channel that is quantized i-th; empty: ascending
  /// float32 [k, k] row-major, upper triangular, in that order: U with Uᵀ·U = (H + damping)⁻¹.
  std::vector<float> upper;
};

/// How columns are ordered.
struct GptqOrder {
  bool by_activation = false;  ///< largest diagonal of H first
  /// Channels of a group stay next to each other, groups ordered by their mean diagonal; 0: no
  /// groups.
  int64_t group_size = 0;
};

/// Damping that is tried first, and the last one; each step is ten times the one before.
inline constexpr double kFirstDamping = 0.01;
inline constexpr double kLastDamping = 1.0;

/// Factors a Gram matrix: dead channels get the mean of the diagonal, so that they are quantized on
/// their own; the diagonal is damped, more where that is not enough. Never throws for a matrix that
/// cannot be factored. Memory: two float64 and one float32 copy of it.
GptqFactor gptq_factor(const Gram& gram, const GptqOrder& order, ThreadTeam& team);

}  // namespace llmq::quant
