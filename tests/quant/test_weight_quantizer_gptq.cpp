#include "quant/weight_quantizer.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "tests/quant/weight_problem.h"

namespace llmq::quant {
namespace {

using Kind = WeightMethod::Kind;

/// Optimal brain surgery (arXiv 2210.17323, equations 2 and 3) of one row on the inverse of the
/// damped H itself: columns are removed from it one by one. Codes are followed, so that one that
/// lies at a tie does not hide those after it.
class SurgeonOfRow {
 public:
  SurgeonOfRow(const LinearInputs& inputs, std::vector<double> inverse)
      : factor_(inputs.factor), k_(static_cast<size_t>(factor_.k)), inverse_(std::move(inverse)) {}

  /// Expects the codes of `row`; returns how many were too near a tie to be decided.
  int check(const OwnedMatrix& weights, const AffineMatrix& got, int64_t row,
            const AffineFormat& format) {
    std::vector<double> h = inverse_;
    std::vector<double> w(k_);
    std::vector<double> doubt(k_, 0.0);  // how far the float32 value may be from w
    for (size_t i = 0; i < k_; ++i) w[i] = weights.at(row, channel(i));
    int n_ties = 0;
    for (size_t i = 0; i < k_; ++i) {
      const size_t set = set_of(got, row, channel(i));
      const double scale = got.scales[set];
      const double code = got.codes[static_cast<size_t>(row * factor_.k + channel(i))];
      const double exact = w[i] / scale + got.offsets[set];
      const double unsure = doubt[i] / scale + 2.0 * kUnit * (std::abs(exact) + std::abs(code));
      const auto rounded = [&](double x) {
        return std::clamp(std::rint(x), static_cast<double>(format.code_min()),
                          static_cast<double>(format.code_max()));
      };
      EXPECT_GE(code, rounded(exact - unsure)) << row << ' ' << i;
      EXPECT_LE(code, rounded(exact + unsure)) << row << ' ' << i;
      n_ties += rounded(exact - unsure) != rounded(exact + unsure) ? 1 : 0;
      remove(i, w[i] - (code - got.offsets[set]) * scale, h, w, doubt);
    }
    return n_ties;
  }

 private:
  static constexpr double kUnit = 0x1p-24;

  [[nodiscard]] int64_t channel(size_t i) const {
    return factor_.order.empty() ? static_cast<int64_t>(i) : factor_.order[i];
  }

  // Doubts of different columns are independent roundings: their squares add.
  void remove(size_t i, double error, std::vector<double>& h, std::vector<double>& w,
              std::vector<double>& doubt) const {
    for (size_t j = i + 1; j < k_; ++j) {
      const double share = h[i * k_ + j] / h[i * k_ + i];
      w[j] -= error * share;
      const double own = kUnit * (4.0 * std::abs(error * share) + std::abs(w[j]));
      doubt[j] = std::hypot(doubt[j], doubt[i] * share) + own;
    }
    for (size_t a = i + 1; a < k_; ++a) {
      const double factor = h[a * k_ + i] / h[i * k_ + i];
      for (size_t b = i + 1; b < k_; ++b) h[a * k_ + b] -= factor * h[i * k_ + b];
    }
  }

  const GptqFactor& factor_;
  size_t k_;
  std::vector<double> inverse_;
};

TEST(WeightQuantizerGptq, GptqIsOptimalBrainSurgery) {
  constexpr int64_t kRows = 4;
  for (const int64_t k : {1, 24, 60, 150}) {  // the last one is longer than a block of columns
    const OwnedMatrix x = random_inputs(2 * k, k, static_cast<unsigned>(k));
    const OwnedMatrix weights = random_weights(kRows, k, 21);
    int n_ties = 0;
    int n_codes = 0;
    for (const bool by_activation : {false, true}) {
      for (const int64_t group_size : {int64_t{0}, int64_t{16}}) {
        const LinearInputs inputs =
            inputs_of(x, {.by_activation = by_activation, .group_size = group_size});
        ASSERT_TRUE(inputs.factor.is_usable);
        SurgeonOfRow surgeon(inputs, dense_inverse(damped_in_order(inputs.gram, inputs.factor), k));
        for (const bool symmetric : {true, false}) {
          const WeightSpec spec{.format = {.n_bits = 4, .symmetric = symmetric},
                                .group_size = group_size,
                                .method = {.kind = Kind::kGptq, .activation_order = by_activation}};
          const AffineMatrix got = quantized(weights, spec, &inputs);
          EXPECT_EQ(got.scales, plain(weights, spec).scales);
          EXPECT_EQ(got.offsets, plain(weights, spec).offsets);
          for (int64_t row = 0; row < kRows; ++row)
            n_ties += surgeon.check(weights, got, row, spec.format);
          n_codes += static_cast<int>(got.codes.size());
        }
      }
    }
    EXPECT_LE(n_ties * 100, n_codes) << "too little was decided";
  }
}

// (w − ŵ)·xᵀ summed over the calibration rows themselves.
TEST(WeightQuantizerGptq, OutputErrorIsThatOfTheOutputs) {
  const OwnedMatrix weights = random_weights(7, 50, 22);
  const OwnedMatrix x = random_inputs(30, 50, 23);
  const Gram gram = gram_of(x);
  for (const WeightSpec& spec : all_specs()) {
    const AffineMatrix got = quantized(weights, spec);
    double want = 0.0;
    double magnitude = 0.0;
    for (int64_t row = 0; row < 7; ++row) {
      for (int64_t m = 0; m < 30; ++m) {
        double error = 0.0;
        double sum = 0.0;
        for (int64_t i = 0; i < 50; ++i) {
          const double product = error_at(weights, got, row, i) * x.at(m, i);
          error += product;
          sum += std::abs(product);
        }
        want += error * error;
        magnitude += sum * sum;
      }
    }
    for (const int n_threads : {1, 3}) {
      ThreadTeam team(n_threads);
      // Sums of 30 rows and of twice 50 channels.
      EXPECT_NEAR(output_error(weights.view(), got, gram, team), want, 200 * 0x1p-53 * magnitude);
    }
  }
}

TEST(WeightQuantizerGptq, GptqLosesLessOfTheOutputsThanRoundingAndRefiningNoMore) {
  ThreadTeam team(2);
  for (unsigned seed = 30; seed < 36; ++seed) {
    const OwnedMatrix weights = random_weights(16, 50, seed);
    for (const bool by_activation : {false, true}) {
      const LinearInputs inputs = inputs_of(random_inputs(100, 50, seed + 100),
                                            {.by_activation = by_activation, .group_size = 16});
      for (WeightSpec spec : all_specs()) {
        if (spec.method.kind != Kind::kGptq) continue;
        const auto loss = [&](const AffineMatrix& matrix) {
          return output_error(weights.view(), matrix, inputs.gram, team);
        };
        spec.method.activation_order = by_activation;
        if (seed % 2 == 0) spec.format.scale_dtype = formats::DType::kBF16;
        double least = loss(quantized(weights, spec, &inputs));
        EXPECT_LE(least, loss(plain(weights, spec)));
        for (const int n_sweeps : {1, 2, 4}) {
          spec.method.n_refine_sweeps = n_sweeps;
          const double refined = loss(quantized(weights, spec, &inputs));
          EXPECT_LE(refined, least * (1.0 + 1e-12)) << n_sweeps;  // float64 sums of both
          least = refined;
        }
      }
    }
  }
}

TEST(WeightQuantizerGptq, WeightsOfDeadChannelsAreRoundedOnTheirOwn) {
  OwnedMatrix x = random_inputs(60, 20, 40);
  for (int64_t row = 0; row < 60; ++row) x.at(row, 4) = x.at(row, 19) = 0.0F;
  const OwnedMatrix weights = random_weights(9, 20, 41);
  const WeightSpec spec{.format = {.n_bits = 4},
                        .method = {.kind = Kind::kGptq, .n_refine_sweeps = 0}};
  for (const bool by_activation : {false, true}) {
    const LinearInputs inputs = inputs_of(x, {.by_activation = by_activation});
    const AffineMatrix got = quantized(weights, spec, &inputs);
    const AffineMatrix want = plain(weights, spec);
    EXPECT_NE(got.codes, want.codes);
    for (size_t row = 0; row < 9; ++row) {
      EXPECT_EQ(got.codes[row * 20 + 4], want.codes[row * 20 + 4]);
      EXPECT_EQ(got.codes[row * 20 + 19], want.codes[row * 20 + 19]);
    }
  }
}

TEST(WeightQuantizerGptq, WithoutUsableInputsGptqFallsBack) {
  const OwnedMatrix weights = random_weights(9, 50, 42);
  const LinearInputs zero =
      inputs_of(OwnedMatrix{10, 50, std::vector<float>(500, 0.0F)}, {.by_activation = true});
  ASSERT_FALSE(zero.factor.is_usable);
  for (WeightSpec spec : all_specs()) {
    if (spec.method.kind != Kind::kGptq) continue;
    spec.method.activation_order = true;
    spec.method.n_refine_sweeps = 4;
    const AffineMatrix blind = quantized(weights, spec);
    expect_same(quantized(weights, spec, &zero), blind);
    spec.method = {.kind = spec.format.symmetric ? Kind::kSsz : Kind::kRound};
    expect_same(blind, quantized(weights, spec));
  }
  WeightSpec sparse{.method = {.kind = Kind::kGptq, .sparse = SparseSpec{}}};
  const AffineMatrix blind = quantized(weights, sparse, &zero);
  sparse.method.kind = Kind::kRound;
  expect_same(blind, quantized(weights, sparse));
}

}  // namespace
}  // namespace llmq::quant
