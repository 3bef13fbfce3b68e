#pragma once

#include <cstdint>
#include <span>

namespace llmq::runtime {

/// ln Σ exp(logits[i]) of `logits` [vocab], at least one. Float64, summed in order, so that its
/// relative error is below vocab · 2⁻⁵² and its bits depend on the logits alone. Not finite when a
/// logit is NaN or +∞. Thread-safe.
double log_sum_exp(std::span<const float> logits);

/// Σ p·(ln p − ln q) in nats, p and q being the softmax of `reference` and `model`, both [vocab].
/// `reference_lse` and `model_lse` are their log_sum_exp. Float64, summed in order; exactly 0 for
/// equal logits, and a sum that rounding made negative becomes 0. Thread-safe.
double kl_divergence(std::span<const float> reference, double reference_lse,
                     std::span<const float> model, double model_lse);

}  // namespace llmq::runtime
