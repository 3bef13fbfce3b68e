#include "runtime/evaluate/log_softmax.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace llmq::runtime {

double log_sum_exp(std::span<const float> logits) {
  double largest = -std::numeric_limits<double>::infinity();
  for (const float logit : logits) largest = std::max(largest, static_cast<double>(logit));
  double sum = 0.0;
  for (const float logit : logits) sum += std::exp(static_cast<double>(logit) - largest);
  return largest + std::log(sum);
}

double kl_divergence(std::span<const float> reference, double reference_lse,
                     std::span<const float> model, double model_lse) {
  double sum = 0.0;
  for (size_t i = 0; i < reference.size(); ++i) {
    const double log_p = static_cast<double>(reference[i]) - reference_lse;
    const double log_q = static_cast<double>(model[i]) - model_lse;
    sum += std::exp(log_p) * (log_p - log_q);
  }
  // Written so that NaN stays NaN.
  return sum < 0.0 ? 0.0 : sum;
}

}  // namespace llmq::runtime
