#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "runtime/evaluate/log_softmax.h"

namespace llmq::runtime {
namespace {

std::vector<float> random_logits(size_t n, unsigned seed, float spread) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0.0F, spread);
  std::vector<float> logits(n);
  for (float& logit : logits) logit = normal(random);
  return logits;
}

// In extended precision and without subtracting the largest.
long double exact_lse(const std::vector<float>& logits) {
  long double sum = 0.0L;
  for (const float logit : logits) sum += std::exp(static_cast<long double>(logit));
  return std::log(sum);
}

// What rounding may do: the sum's terms are of one sign, so its relative error is at most n·2⁻⁵³
// for adding and 2·2⁻⁵³ for exp, which the logarithm turns into an absolute one.
double bound(size_t n) {
  return static_cast<double>(n + 8) * 0x1p-52;
}

TEST(LogSoftmax, log_sum_exp_is_the_formula_for_any_size_and_spread) {
  for (const size_t n : {1U, 2U, 33U, 1000U, 150000U}) {
    for (const float spread : {0.0F, 1.0F, 30.0F}) {
      const std::vector<float> logits = random_logits(n, static_cast<unsigned>(n), spread);
      const auto want = static_cast<double>(exact_lse(logits));
      EXPECT_NEAR(log_sum_exp(logits), want, bound(n) + std::abs(want) * 0x1p-51) << n;
    }
  }
}

TEST(LogSoftmax, large_logits_do_not_overflow) {
  const std::vector<float> logits{3e38F, 1e38F, -3e38F};
  EXPECT_EQ(log_sum_exp(logits), static_cast<double>(3e38F));
  const std::vector<float> low{-1e30F, -1e30F};
  EXPECT_NEAR(log_sum_exp(low), static_cast<double>(-1e30F), 1.0);
}

TEST(LogSoftmax, nan_and_infinite_logits_are_not_hidden) {
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  constexpr float kInf = std::numeric_limits<float>::infinity();
  const std::vector<float> finite{0.0F, 1.0F};
  for (const float bad : {kNan, kInf}) {
    for (const size_t at : {0U, 1U, 2U}) {
      std::vector<float> logits{0.0F, 1.0F, 2.0F};
      logits[at] = bad;
      EXPECT_FALSE(std::isfinite(log_sum_exp(logits))) << bad << " at " << at;
    }
  }
  EXPECT_TRUE(std::isnan(kl_divergence(finite, log_sum_exp(finite), finite, kNan)));
}

TEST(LogSoftmax, kl_of_equal_logits_is_exactly_zero) {
  const std::vector<float> logits = random_logits(5000, 3, 8.0F);
  const double lse = log_sum_exp(logits);
  EXPECT_EQ(kl_divergence(logits, lse, logits, lse), 0.0);
}

TEST(LogSoftmax, kl_is_the_formula_and_depends_on_the_order_of_its_arguments) {
  const std::vector<float> p = random_logits(3000, 1, 4.0F);
  const std::vector<float> q = random_logits(3000, 2, 4.0F);
  const auto exact = [](const std::vector<float>& a, const std::vector<float>& b) {
    const long double lse_a = exact_lse(a);
    const long double lse_b = exact_lse(b);
    long double sum = 0.0L;
    for (size_t i = 0; i < a.size(); ++i) {
      const long double log_a = static_cast<long double>(a[i]) - lse_a;
      sum += std::exp(log_a) * (log_a - (static_cast<long double>(b[i]) - lse_b));
    }
    return static_cast<double>(sum);
  };
  const double forward = kl_divergence(p, log_sum_exp(p), q, log_sum_exp(q));
  const double backward = kl_divergence(q, log_sum_exp(q), p, log_sum_exp(p));
  EXPECT_NEAR(forward, exact(p, q), forward * bound(p.size()));
  EXPECT_NEAR(backward, exact(q, p), backward * bound(p.size()));
  EXPECT_GT(std::abs(forward - backward), 0.01);
}

TEST(LogSoftmax, kl_of_nearly_equal_logits_is_never_negative) {
  for (unsigned seed = 0; seed < 200; ++seed) {
    const std::vector<float> p = random_logits(50, seed, 3.0F);
    std::vector<float> q = p;
    q[seed % q.size()] = std::nextafter(q[seed % q.size()], 100.0F);
    const double kl = kl_divergence(p, log_sum_exp(p), q, log_sum_exp(q));
    EXPECT_GE(kl, 0.0);
    EXPECT_LT(kl, 1e-12);
  }
}

}  // namespace
}  // namespace llmq::runtime
