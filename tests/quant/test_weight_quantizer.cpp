#include "quant/weight_quantizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "formats/error.h"
#include "tests/quant/weight_problem.h"

namespace llmq::quant {
namespace {

using formats::DType;
using Kind = WeightMethod::Kind;

TEST(WeightQuantizer, PlainRoundingIsThatOfQuantizeAffine) {
  const OwnedMatrix weights = random_weights(19, 50, 1);
  const LinearInputs inputs = inputs_of(random_inputs(80, 50, 2));
  for (WeightSpec spec : all_specs()) {
    if (spec.method.kind != Kind::kRound) continue;
    spec.format.scale_dtype = DType::kF16;
    const AffineMatrix want = plain(weights, spec);
    for (const LinearInputs* known : {&inputs, static_cast<const LinearInputs*>(nullptr)}) {
      const AffineMatrix got = quantized(weights, spec, known);
      expect_same(got, want);
      EXPECT_EQ(got.distortion.sum_squared_errors, want.distortion.sum_squared_errors);
      EXPECT_EQ(got.distortion.n_clipped, want.distortion.n_clipped);
    }
  }
}

TEST(WeightQuantizer, NeitherThreadsNorBlocksOfRowsChangeAnything) {
  const OwnedMatrix weights = random_weights(21, 50, 3);
  const LinearInputs inputs =
      inputs_of(random_inputs(80, 50, 4), {.by_activation = true, .group_size = 16});
  std::vector<WeightSpec> specs = all_specs();
  specs.push_back({.method = {.kind = Kind::kGptq, .sparse = SparseSpec{.co_sparse = true}}});
  for (WeightSpec spec : specs) {
    spec.method.clip = !spec.method.sparse;
    spec.method.n_refine_sweeps = 2;
    const AffineMatrix want = quantized(weights, spec, &inputs);
    for (const int n_threads : {1, 3}) {
      ThreadTeam team(n_threads);
      expect_same(quantize_weight(weights.view(), spec, &inputs, team), want);
      AffineMatrix pieces;
      for (int64_t row = 0; row < 21; row += 5) {
        const AffineMatrix part = quantize_weight(
            weights.view().rows(row, std::min<int64_t>(5, 21 - row)), spec, &inputs, team);
        pieces.codes.insert(pieces.codes.end(), part.codes.begin(), part.codes.end());
        pieces.scales.insert(pieces.scales.end(), part.scales.begin(), part.scales.end());
        pieces.offsets.insert(pieces.offsets.end(), part.offsets.begin(), part.offsets.end());
      }
      EXPECT_EQ(pieces.codes, want.codes);
      EXPECT_EQ(pieces.scales, want.scales);
      EXPECT_EQ(pieces.offsets, want.offsets);
    }
  }
}

TEST(WeightQuantizer, FittedAndClippedScalesNeverLoseMore) {
  for (unsigned seed = 10; seed < 14; ++seed) {
    const OwnedMatrix weights = random_weights(12, 50, seed);
    for (WeightSpec spec : all_specs()) {
      if (spec.method.kind == Kind::kGptq) continue;
      spec.format.scale_dtype = DType::kBF16;
      const std::vector<double> before = errors_of_sets(weights, plain(weights, spec));
      for (const bool clip : {false, true}) {
        spec.method.clip = clip;
        const std::vector<double> after = errors_of_sets(weights, quantized(weights, spec));
        for (size_t set = 0; set < after.size(); ++set) ASSERT_LE(after[set], before[set]);
        const bool is_plain = spec.method.kind == Kind::kRound && !clip;
        if (!is_plain && spec.format.n_bits == 4 && (clip || spec.format.symmetric)) {
          EXPECT_LT(sum_of(after), sum_of(before));
        }
      }
    }
  }
}

TEST(WeightQuantizer, ClippingWeighsErrorsByTheInputs) {
  const OwnedMatrix weights = random_weights(12, 50, 15);
  const LinearInputs inputs = inputs_of(random_inputs(80, 50, 16));
  const WeightSpec spec{.format = {.n_bits = 4}, .method = {.clip = true}};
  const auto before = errors_of_sets(weights, plain(weights, spec), &inputs.gram);
  const auto blind = errors_of_sets(weights, quantized(weights, spec), &inputs.gram);
  const auto seeing = errors_of_sets(weights, quantized(weights, spec, &inputs), &inputs.gram);
  for (size_t set = 0; set < before.size(); ++set) {
    EXPECT_LE(seeing[set], before[set]);
    EXPECT_LE(seeing[set], blind[set]);
  }
  EXPECT_LT(sum_of(seeing), sum_of(blind));
}

TEST(WeightQuantizer, ClippedWeightsAreThoseOutsideTheCodes) {
  const OwnedMatrix weights = random_weights(12, 50, 17);
  const LinearInputs inputs = inputs_of(random_inputs(80, 50, 18));
  for (WeightSpec spec : all_specs()) {
    spec.method.clip = true;
    const AffineMatrix got = quantized(weights, spec, &inputs);
    int64_t n_clipped = 0;
    int64_t n_zeros = 0;
    for (int64_t row = 0; row < 12; ++row) {
      for (int64_t column = 0; column < 50; ++column) {
        const size_t set = set_of(got, row, column);
        const float code = std::rint(weights.at(row, column) / got.scales[set] + got.offsets[set]);
        n_clipped += code < spec.format.code_min() || code > spec.format.code_max() ? 1 : 0;
        n_zeros += static_cast<float>(got.codes[static_cast<size_t>(row * 50 + column)]) ==
                           got.offsets[set]
                       ? 1
                       : 0;
      }
    }
    EXPECT_EQ(got.distortion.n, 600);
    EXPECT_EQ(got.distortion.n_clipped, n_clipped);
    EXPECT_EQ(got.distortion.n_zeros, n_zeros);
  }
}

TEST(WeightQuantizer, ScalesAreValuesOfTheirDtype) {
  const OwnedMatrix weights = random_weights(12, 50, 19);
  const LinearInputs inputs = inputs_of(random_inputs(80, 50, 20));
  for (const DType dtype : {DType::kF16, DType::kBF16}) {
    std::vector<WeightSpec> specs = all_specs();
    specs.push_back({.method = {.sparse = SparseSpec{}}});
    for (WeightSpec spec : specs) {
      spec.format.scale_dtype = dtype;
      spec.method.clip = !spec.method.sparse;
      spec.method.n_refine_sweeps = 3;
      const AffineMatrix got = quantized(weights, spec, &inputs);
      int64_t n_subnormal = 0;
      for (const float scale : got.scales) {
        EXPECT_EQ(round_scale_to(scale, dtype), scale);
        n_subnormal += is_subnormal_scale(scale, dtype) ? 1 : 0;
      }
      EXPECT_EQ(got.n_subnormal_scales, n_subnormal);
    }
  }
}

TEST(WeightQuantizer, SparseRowsLieOnTheGridOfTheirThreshold) {
  OwnedMatrix weights = random_weights(9, 200, 43);
  const LinearInputs inputs = inputs_of(random_inputs(300, 200, 44));
  for (const bool co_sparse : {false, true}) {
    for (const Kind kind : {Kind::kRound, Kind::kGptq}) {
      const SparseSpec sparse{.fraction = 0.02, .co_sparse = co_sparse};
      const WeightSpec spec{.method = {.kind = kind, .sparse = sparse}};
      const AffineMatrix got = quantized(weights, spec, &inputs);
      int n_beyond = 0;
      for (int64_t row = 0; row < 9; ++row) {
        const double threshold = sparse_threshold(weights.row(row), sparse);
        const auto at = static_cast<size_t>(row);
        EXPECT_EQ(got.scales[at], static_cast<float>(threshold) / kSparseSteps);
        EXPECT_EQ(got.offsets[at], 0.0F);
        for (int64_t i = 0; i < 200; ++i) {
          const auto code = static_cast<float>(got.codes[static_cast<size_t>(row * 200 + i)]);
          EXPECT_LE(std::abs(code), 127.0F);
          if (std::abs(code) <= kSparseSteps) continue;
          ++n_beyond;
          if (co_sparse) {
            EXPECT_GT(std::abs(weights.at(row, i)), threshold);
          }
        }
      }
      EXPECT_GT(n_beyond, 0);  // outliers are kept
    }
  }
}

TEST(WeightQuantizer, ASparseGridIsWidenedForOutliersBeyondAByte) {
  OwnedMatrix weights = random_weights(2, 100, 45);
  weights.at(1, 30) = -1000.0F;
  const WeightSpec spec{.method = {.sparse = SparseSpec{}}};
  const AffineMatrix got = quantized(weights, spec);
  EXPECT_EQ(got.scales[1], 1000.0F / 127.0F);
  EXPECT_EQ(got.codes[130], -127);
}

TEST(WeightQuantizer, ZerosStayZerosAndNothingIsNothing) {
  const OwnedMatrix zeros{3, 20, std::vector<float>(60, 0.0F)};
  const OwnedMatrix none{0, 20, {}};
  const LinearInputs inputs = inputs_of(random_inputs(60, 20, 46));
  std::vector<WeightSpec> specs = all_specs();
  specs.push_back({.method = {.kind = Kind::kGptq, .sparse = SparseSpec{.co_sparse = true}}});
  for (WeightSpec spec : specs) {
    spec.method.clip = !spec.method.sparse;
    spec.method.n_refine_sweeps = 2;
    const AffineMatrix got = quantized(zeros, spec, &inputs);
    EXPECT_EQ(got.distortion.max_abs_error, 0.0F);
    for (const float scale : got.scales) EXPECT_EQ(scale, kScaleFloor);
    EXPECT_TRUE(quantized(none, spec, &inputs).codes.empty());
  }
}

TEST(WeightQuantizer, WhatCannotBeQuantizedIsRefused) {
  ThreadTeam team(2);
  OwnedMatrix weights = random_weights(9, 20, 47);
  const LinearInputs other = inputs_of(random_inputs(40, 21, 48));
  const WeightSpec spec{.method = {.kind = Kind::kGptq}};
  try {
    quantize_weight(weights.view(), spec, &other, team);
    ADD_FAILURE() << "no error";
  } catch (const formats::Error& error) {
    EXPECT_EQ(error.code(), formats::ErrorCode::kInternal);
  }
  weights.at(5, 7) = std::numeric_limits<float>::quiet_NaN();
  for (const Kind kind : {Kind::kRound, Kind::kSsz, Kind::kGptq}) {
    try {
      quantize_weight(weights.view(), {.method = {.kind = kind}}, nullptr, team);
      ADD_FAILURE() << "no error";
    } catch (const formats::Error& error) {
      EXPECT_EQ(error.code(), formats::ErrorCode::kBadInput);
      EXPECT_THAT(error.what(), testing::HasSubstr("[5, 7]"));
    }
  }
}

TEST(WeightQuantizer, OnlyGptqLooksAtInputs) {
  EXPECT_FALSE(looks_at_inputs({.kind = Kind::kRound}));
  EXPECT_FALSE(looks_at_inputs({.kind = Kind::kSsz}));
  EXPECT_TRUE(looks_at_inputs({.kind = Kind::kGptq}));
}

}  // namespace
}  // namespace llmq::quant
