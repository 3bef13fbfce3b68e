#include "quant/smooth.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "formats/error.h"
#include "tests/quant/random_matrix.h"

namespace llmq::quant {
namespace {

constexpr SmoothMethod kAllMethods[] = {SmoothMethod::kM1, SmoothMethod::kM2, SmoothMethod::kM3,
                                        SmoothMethod::kM4, SmoothMethod::kM6};
// One rounding of a scale to float32; its float64 beginnings are exact beside it.
constexpr double kRounding = 0x1p-24 + 0x1p-48;

/// Two linears that read the same activations.
struct Problem {
  ChannelStatistics inputs;
  OwnedMatrix first;
  OwnedMatrix second;

  [[nodiscard]] SmoothSubject subject(std::vector<int64_t> tied = {}) const {
    return {&inputs, {first.matrix(), second.matrix()}, std::move(tied)};
  }
};

Problem problem_of(const OwnedMatrix& x, OwnedMatrix first, OwnedMatrix second) {
  ChannelObserver observer(16);
  observer.observe(x.matrix());
  return {observer.statistics(), std::move(first), std::move(second)};
}

Problem random_problem(int64_t k, unsigned seed) {
  OwnedMatrix x = random_inputs(40, k, seed);
  for (int64_t row = 0; row < 40; ++row) x.at(row, k / 2) = 3.0F + 0.25F * x.at(row, k / 2);
  return problem_of(x, random_inputs(12, k, seed + 1), random_matrix(9, k, seed + 2));
}

// C of the header.
double column_of(const Problem& problem, int64_t channel) {
  double largest = 1e-5;
  for (const OwnedMatrix* weight : {&problem.first, &problem.second}) {
    for (int64_t row = 0; row < weight->n_rows; ++row)
      largest = std::max(largest, static_cast<double>(std::abs(weight->at(row, channel))));
  }
  return largest;
}

void expect_powers(const SmoothDecision& got, const Problem& problem, double alpha, double beta) {
  EXPECT_EQ(got.alpha, alpha);
  EXPECT_EQ(got.beta, beta);
  for (int64_t channel = 0; channel < problem.inputs.k; ++channel) {
    const auto at = static_cast<size_t>(channel);
    const double z = got.shift.empty() ? 0.0 : got.shift[at];
    const double a = std::max(problem.inputs.max[at] - z, z - problem.inputs.min[at]);
    const double want =
        std::max(1e-5, std::pow(a, alpha) / std::pow(column_of(problem, channel), beta));
    EXPECT_NEAR(got.scale[at], want, kRounding * want) << channel;
  }
}

TEST(Smooth, FormulasAreThoseOfFloat64) {
  const Problem problem = random_problem(30, 20);
  ThreadTeam team(2);
  const auto decide = [&](const SmoothSpec& spec) {
    return choose_smoothing(problem.subject(), spec, team);
  };
  expect_powers(decide({SmoothMethod::kM1}), problem, 0.5, 0.5);
  expect_powers(decide({SmoothMethod::kM2}), problem, 0.5, 0.5);
  expect_powers(decide({SmoothMethod::kM4}), problem, 0.9, 1.0 - 0.9);
  expect_powers(decide({.method = SmoothMethod::kM1, .alpha = 0.7}), problem, 0.7, 1.0 - 0.7);
  expect_powers(decide({.method = SmoothMethod::kM6, .alpha = 0.7, .beta = 0.1}), problem, 0.7,
                0.1);
}

TEST(Smooth, OnlyM2ShiftsAndToTheMiddle) {
  const Problem problem = random_problem(30, 21);
  ThreadTeam team(1);
  for (const SmoothMethod method : kAllMethods) {
    const SmoothDecision got = choose_smoothing(problem.subject(), {method}, team);
    if (method != SmoothMethod::kM2) {
      EXPECT_TRUE(got.shift.empty());
      continue;
    }
    for (size_t i = 0; i < 30; ++i) {
      const double middle =
          (static_cast<double>(problem.inputs.max[i]) + problem.inputs.min[i]) / 2.0;
      EXPECT_NEAR(got.shift[i], middle, 0x1p-24 * std::abs(middle));
    }
  }
}

TEST(Smooth, DeadChannelsKeepTheirScaleAndAllScalesArePositive) {
  OwnedMatrix x = random_inputs(20, 16, 22);
  for (int64_t row = 0; row < 20; ++row) {
    x.at(row, 3) = 0.0F;
    x.at(row, 9) *= 1e-20F;
  }
  OwnedMatrix weight = random_matrix(7, 16, 23);
  for (int64_t row = 0; row < 7; ++row) weight.at(row, 5) = 0.0F;
  const Problem problem = problem_of(x, weight, weight);
  ThreadTeam team(1);
  for (const SmoothMethod method : kAllMethods) {
    const SmoothDecision got = choose_smoothing(problem.subject(), {method}, team);
    EXPECT_EQ(got.scale[3], 1.0F);
    for (const float s : got.scale) EXPECT_TRUE(s >= 1e-5F && std::isfinite(s)) << s;
  }
}

TEST(Smooth, TiesShareTheScaleOfTheirLargestMagnitudes) {
  const Problem problem = random_problem(24, 24);
  std::vector<int64_t> tied;
  for (int64_t i = 0; i < 24; ++i) tied.push_back(i / 12 * 4 + i % 4);
  ThreadTeam team(2);
  for (const SmoothMethod method : kAllMethods) {
    const SmoothDecision got = choose_smoothing(problem.subject(tied), {method}, team);
    for (size_t i = 0; i < 24; ++i) {
      for (size_t j = 0; j < 24; ++j) {
        if (tied[i] == tied[j]) {
          EXPECT_EQ(got.scale[i], got.scale[j]);
        }
      }
    }
    if (method != SmoothMethod::kM1) continue;
    for (int64_t number = 0; number < 8; ++number) {
      double a = 0.0;
      double c = 0.0;
      for (int64_t i = 0; i < 24; ++i) {
        if (tied[static_cast<size_t>(i)] != number) continue;
        a = std::max(a, static_cast<double>(problem.inputs.absmax(i)));
        c = std::max(c, column_of(problem, i));
      }
      const auto member =
          static_cast<size_t>(std::find(tied.begin(), tied.end(), number) - tied.begin());
      const double want = std::sqrt(a) / std::sqrt(c);
      EXPECT_NEAR(got.scale[member], want, kRounding * want);
    }
  }
}

TEST(Smooth, ASearchFindsPowersOfItsGrid) {
  ThreadTeam team(2);
  for (unsigned seed = 30; seed < 35; ++seed) {
    const Problem problem = random_problem(32, seed);
    for (const int n_bits : {8, 4}) {
      SmoothSpec spec{.method = SmoothMethod::kM6, .n_bits = n_bits};
      const SmoothDecision flexible = choose_smoothing(problem.subject(), spec, team);
      EXPECT_GE(flexible.alpha, 0.0);
      EXPECT_LE(flexible.alpha, 1.0);
      expect_powers(flexible, problem, flexible.alpha, 1.0 - flexible.alpha);
      spec.method = SmoothMethod::kM3;
      const SmoothDecision awq = choose_smoothing(problem.subject(), spec, team);
      EXPECT_LE(std::abs(awq.ratio), 1.0);
      EXPECT_NEAR(awq.ratio * 10.0, std::rint(awq.ratio * 10.0), 1e-12);
      EXPECT_EQ(flexible.loss_before, awq.loss_before);
    }
  }
}

/// A loss and how far one of float32 products may be from it.
struct Loss {
  double value = 0.0;
  double bound = 0.0;
};

// Values of asymmetric int8 codes over all of x, as they are rounded in float32.
void round_inputs(std::vector<float>& x) {
  const auto [least, most] = std::minmax_element(x.begin(), x.end());
  const float min = std::min(*least, 0.0F);
  const float max = std::max(*most, 0.0F);
  const float step = max / 255.0F - min / 255.0F;
  const float offset = std::rint(-min / step) - 128.0F;
  for (float& value : x)
    value = (std::clamp(std::rint(value / step + offset), -128.0F, 127.0F) - offset) * step;
}

// Values of symmetric int4 codes of a row.
void round_weights(std::vector<float>& w) {
  float largest = 0.0F;
  for (const float value : w) largest = std::max(largest, std::abs(value));
  const float step = largest / 7.0F;
  for (float& value : w) value = std::rint(value / step) * step;
}

// Σ (y − ŷ)² on the kept rows, products in float64.
Loss loss_of(const Problem& problem, const std::vector<float>& scale, bool rounds_inputs = true) {
  const size_t k = scale.size();
  const std::vector<float>& kept = problem.inputs.kept;
  std::vector<float> x = kept;
  for (size_t i = 0; i < x.size(); ++i) x[i] /= scale[i % k];
  if (rounds_inputs) round_inputs(x);
  Loss loss;
  for (const OwnedMatrix* weight : {&problem.first, &problem.second}) {
    for (int64_t row = 0; row < weight->n_rows; ++row) {
      const auto plain = weight->row(row);
      std::vector<float> w(plain.begin(), plain.end());
      for (size_t i = 0; i < k; ++i) w[i] *= scale[i];
      round_weights(w);
      for (size_t begin = 0; begin < x.size(); begin += k) {
        double error = 0.0;
        double magnitude = 0.0;
        for (size_t i = 0; i < k; ++i) {
          const double rounded = static_cast<double>(x[begin + i]) * w[i];
          const double exact = static_cast<double>(kept[begin + i]) * plain[i];
          error += rounded - exact;
          magnitude += std::abs(rounded) + std::abs(exact);
        }
        const double off = static_cast<double>(k + 1) * 0x1p-24 * magnitude;
        loss.value += error * error;
        loss.bound += off * (2.0 * std::abs(error) + off);
      }
    }
  }
  return loss;
}

TEST(Smooth, LossesAreThoseOfTheOutputsAndTheLeastOfTheGridIsTaken) {
  ThreadTeam team(2);
  for (unsigned seed = 30; seed < 34; ++seed) {
    const Problem problem = random_problem(32, seed);
    SmoothSpec spec{.method = SmoothMethod::kM6, .n_bits = 4};
    const SmoothDecision got = choose_smoothing(problem.subject(), spec, team);
    const Loss before = loss_of(problem, std::vector<float>(32, 1.0F));
    const Loss after = loss_of(problem, got.scale);
    EXPECT_NEAR(got.loss_before, before.value, before.bound);
    EXPECT_NEAR(got.loss_after, after.value, after.bound);
    for (int i = 0; i <= 10; ++i) {
      spec.alpha = 0.1 * i;
      const Loss one = loss_of(problem, choose_smoothing(problem.subject(), spec, team).scale);
      EXPECT_LE(got.loss_after, one.value + one.bound) << i;
    }
  }
}

// s₀·(m/√(max m·min m))^r of the header, s₀ the scales of kM1.
std::vector<float> awq_candidate(const Problem& problem, const std::vector<float>& start,
                                 double ratio) {
  std::vector<double> mean(start.size());
  for (size_t i = 0; i < mean.size(); ++i) mean[i] = problem.inputs.mean_abs[i] / start[i];
  const auto [least, most] = std::minmax_element(mean.begin(), mean.end());
  const double middle = std::sqrt(*least * *most);
  std::vector<float> scale(start.size());
  for (size_t i = 0; i < scale.size(); ++i)
    scale[i] = static_cast<float>(start[i] * std::pow(mean[i] / middle, ratio));
  return scale;
}

TEST(Smooth, M3TakesTheBestOfItsRatios) {
  ThreadTeam team(2);
  bool has_negative = false;
  bool has_positive = false;
  for (unsigned seed = 30; seed < 42; ++seed) {
    const Problem problem = random_problem(32, seed);
    const std::vector<float> start =
        choose_smoothing(problem.subject(), {SmoothMethod::kM1}, team).scale;
    const bool rounds_inputs = seed % 2 == 0;
    const SmoothDecision got = choose_smoothing(
        problem.subject(),
        {.method = SmoothMethod::kM3, .n_bits = 4, .rounds_inputs = rounds_inputs}, team);
    const std::vector<float> taken = awq_candidate(problem, start, got.ratio);
    for (size_t i = 0; i < taken.size(); ++i)
      EXPECT_NEAR(got.scale[i], taken[i], 0x1p-22 * taken[i]);
    const Loss after = loss_of(problem, got.scale, rounds_inputs);
    EXPECT_NEAR(got.loss_after, after.value, after.bound);
    for (int i = -10; i <= 10; ++i) {
      const Loss one = loss_of(problem, awq_candidate(problem, start, 0.1 * i), rounds_inputs);
      EXPECT_LE(got.loss_after, one.value + one.bound) << seed << ' ' << i;
    }
    has_negative = has_negative || got.ratio < -0.05;
    has_positive = has_positive || got.ratio > 0.05;
  }
  EXPECT_TRUE(has_negative);  // both ends of the grid are of use
  EXPECT_TRUE(has_positive);
}

// A checkpoint may divide gains between a norm and its readers as it likes.
TEST(Smooth, ScalesFollowWhenChannelsAreRescaled) {
  constexpr int64_t kChannels = 20;
  const OwnedMatrix x = random_inputs(30, kChannels, 40);
  const OwnedMatrix first = random_inputs(8, kChannels, 41);
  const OwnedMatrix second = random_matrix(6, kChannels, 42);
  // Powers of two: what is scaled by them is scaled exactly.
  std::vector<float> gain(kChannels);
  for (int i = 0; i < kChannels; ++i)
    gain[static_cast<size_t>(i)] = std::ldexp(1.0F, i * 5 % 9 - 4);
  const auto scaled = [&](OwnedMatrix matrix, bool up) {
    for (int64_t row = 0; row < matrix.n_rows; ++row) {
      for (int64_t i = 0; i < kChannels; ++i) {
        const float d = gain[static_cast<size_t>(i)];
        matrix.at(row, i) *= up ? d : 1.0F / d;
      }
    }
    return matrix;
  };
  const Problem problem = problem_of(x, first, second);
  const Problem other = problem_of(scaled(x, true), scaled(first, false), scaled(second, false));
  ThreadTeam team(2);
  for (const SmoothMethod method :
       {SmoothMethod::kM1, SmoothMethod::kM3, SmoothMethod::kM4, SmoothMethod::kM6}) {
    const SmoothDecision a = choose_smoothing(problem.subject(), {method}, team);
    const SmoothDecision b = choose_smoothing(other.subject(), {method}, team);
    EXPECT_EQ(a.alpha, b.alpha);
    EXPECT_EQ(a.ratio, b.ratio);
    for (size_t i = 0; i < kChannels; ++i) {
      // kM3 rounds s₀, the mean by it and s; the power r at most 1 of them again.
      EXPECT_NEAR(b.scale[i], a.scale[i] * gain[i], 6.0 * 0x1p-24 * b.scale[i])
          << smooth_method_name(method) << ' ' << i;
    }
  }
}

TEST(Smooth, ThreadsChangeNothing) {
  const Problem problem = random_problem(40, 50);
  for (const SmoothMethod method : kAllMethods) {
    ThreadTeam one(1);
    const SmoothSpec spec{.method = method, .n_bits = 4, .group_size = 16};
    const SmoothDecision want = choose_smoothing(problem.subject(), spec, one);
    for (const int n_threads : {2, 3}) {
      ThreadTeam team(n_threads);
      const SmoothDecision got = choose_smoothing(problem.subject(), spec, team);
      EXPECT_EQ(got.scale, want.scale);
      EXPECT_EQ(got.loss_before, want.loss_before);
      EXPECT_EQ(got.loss_after, want.loss_after);
    }
  }
}

TEST(Smooth, ExtentsThatDoNotFitAreRefused) {
  const Problem problem = random_problem(12, 51);
  const OwnedMatrix narrow = random_matrix(3, 11, 52);
  ThreadTeam team(1);
  const auto expect_refused = [&](const SmoothSubject& subject) {
    try {
      choose_smoothing(subject, {SmoothMethod::kM1}, team);
      ADD_FAILURE() << "no error";
    } catch (const formats::Error& error) {
      EXPECT_EQ(error.code(), formats::ErrorCode::kInternal);
    }
  };
  expect_refused({&problem.inputs, {problem.first.matrix(), narrow.matrix()}, {}});
  expect_refused(problem.subject(std::vector<int64_t>(11, 0)));
  expect_refused(problem.subject(std::vector<int64_t>(12, 12)));
  expect_refused(problem.subject(std::vector<int64_t>(12, -1)));
}

TEST(Smooth, NamesAreFoundAgain) {
  for (const SmoothMethod method : kAllMethods)
    EXPECT_EQ(find_smooth_method(smooth_method_name(method)), method);
  EXPECT_EQ(smooth_method_name(SmoothMethod::kM6), "m6");
  for (const char* other : {"", "m5", "M1", "m11"}) EXPECT_FALSE(find_smooth_method(other));
}

}  // namespace
}  // namespace llmq::quant
