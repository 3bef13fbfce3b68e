#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "quant/kernels/gemm_f32/matrix_f32.h"
#include "quant/kernels/thread_team.h"
#include "runtime/model/layer_weights.h"

namespace llmq::convert {

/// What makes logits of hidden states.
struct LogitWeights {
  const runtime::OuterWeights& outer;  ///< final norm and head are read
  double rms_norm_eps = 0.0;
};

/// Mean KL(reference ‖ candidate) in nats over the full vocabulary, as TextScorer has it, for each
/// of `candidates`: hidden states behind the last layer, [n_tokens, hidden_size] as `reference`,
/// of samples of `lengths` tokens that follow each other. The last token of a sample predicts none
/// and is left out. At least one sample has two tokens. Sums are float64 in the order of the
/// tokens; the result does not depend on threads or instruction set.
std::vector<double> mean_divergences(const LogitWeights& weights,
                                     const quant::ConstMatrixF32& reference,
                                     std::span<const quant::ConstMatrixF32> candidates,
                                     std::span<const int64_t> lengths, quant::ThreadTeam& team);

}  // namespace llmq::convert
