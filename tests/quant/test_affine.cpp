#include "quant/affine.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <random>
#include <vector>

#include "formats/error.h"
#include "formats/float16.h"

namespace llmq::quant {
namespace {

using formats::DType;
using formats::Error;

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

std::vector<std::byte> stored(const std::vector<float>& values, DType dtype) {
  const size_t size_bytes = formats::dtype_size_bytes(dtype);
  std::vector<std::byte> bytes(values.size() * size_bytes);
  for (size_t i = 0; i < values.size(); ++i) {
    if (dtype == DType::kF32) {
      std::memcpy(&bytes[i * 4], &values[i], 4);
    } else {
      const uint16_t bits = dtype == DType::kBF16 ? formats::float_to_bf16(values[i])
                                                  : formats::float_to_fp16(values[i]);
      std::memcpy(&bytes[i * 2], &bits, 2);
    }
  }
  return bytes;
}

std::vector<float> normal_values(size_t n, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0.0F, 0.05F);
  std::vector<float> values(n);
  for (float& x : values) x = normal(random);
  return values;
}

AffineMatrix quantized(const std::vector<float>& values, int64_t n_rows, const AffineSpec& spec) {
  const auto n_cols = static_cast<int64_t>(values.size()) / n_rows;
  const std::vector<std::byte> bytes = stored(values, DType::kF32);
  ThreadTeam team(2);
  return quantize_affine(MatrixView(DType::kF32, bytes, n_rows, n_cols), spec, team);
}

std::string refusal(const std::function<void()>& call, formats::ErrorCode code) {
  try {
    call();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), code);
    return error.what();
  }
  ADD_FAILURE() << "no error";
  return "";
}

TEST(Affine, SymmetricScaleMapsTheLargestMagnitudeToTheLastCode) {
  for (int n_bits = 2; n_bits <= 8; ++n_bits) {
    const AffineFormat format{.n_bits = n_bits};
    const auto last = static_cast<float>((1 << (n_bits - 1)) - 1);
    EXPECT_EQ(format.code_max(), last);
    EXPECT_EQ(format.code_min(), -last);
    const AffineParams params = affine_params(-0.7F, 0.3F, format);
    EXPECT_EQ(params.scale, static_cast<float>(static_cast<double>(0.7F) / last));
    EXPECT_EQ(params.offset, 0.0F);
  }
}

TEST(Affine, AsymmetricScaleIsTheDifferenceOfTwoDivisions) {
  int n_differs_from_one_division = 0;
  std::mt19937 random(3);
  std::uniform_real_distribution<float> uniform(0.0F, 3.0F);
  for (int repeat = 0; repeat < 1000; ++repeat) {
    const float min = -uniform(random);
    const float max = uniform(random);
    const AffineParams params = affine_params(min, max, {.symmetric = false});
    const auto upper = static_cast<float>(static_cast<double>(max) / 255.0);
    const auto lower = static_cast<float>(static_cast<double>(min) / 255.0);
    const auto scale = static_cast<float>(static_cast<double>(upper) - lower);
    ASSERT_EQ(params.scale, scale);
    const auto steps = static_cast<float>(-static_cast<double>(min) / scale);
    ASSERT_EQ(params.offset, std::nearbyint(static_cast<double>(steps)) - 128.0);
    if (scale != (max - min) / 255.0F) ++n_differs_from_one_division;
  }
  EXPECT_GT(n_differs_from_one_division, 0);
}

TEST(Affine, RangeAlwaysContainsZero) {
  const AffineParams positive = affine_params(2.0F, 5.1F, {.symmetric = false});
  EXPECT_EQ(positive.scale, 5.1F / 255.0F);
  EXPECT_EQ(positive.offset, -128.0F);
  const AffineParams negative = affine_params(-5.1F, -2.0F, {.symmetric = false});
  EXPECT_EQ(negative.scale, 5.1F / 255.0F);
  EXPECT_EQ(negative.offset, 127.0F);
}

TEST(Affine, TinyRangesGetTheFloor) {
  for (bool symmetric : {true, false}) {
    for (float extreme : {0.0F, 1e-20F, 1e-40F}) {
      const AffineParams params = affine_params(-extreme, extreme, {.symmetric = symmetric});
      EXPECT_EQ(params.scale, 0x1p-23F);
      EXPECT_EQ(params.offset, symmetric ? 0.0F : -128.0F);
    }
    EXPECT_EQ(affine_params(kInfinity, -kInfinity, {.symmetric = symmetric}).scale, 0x1p-23F);
  }
}

TEST(Affine, FloorIsRepresentableInEveryScaleDtype) {
  for (DType dtype : {DType::kF32, DType::kF16, DType::kBF16}) {
    EXPECT_EQ(round_scale_to(kScaleFloor, dtype), kScaleFloor);
  }
  EXPECT_TRUE(is_subnormal_scale(kScaleFloor, DType::kF16));
  EXPECT_FALSE(is_subnormal_scale(kScaleFloor, DType::kBF16));
  EXPECT_FALSE(is_subnormal_scale(kScaleFloor, DType::kF32));
  EXPECT_FALSE(is_subnormal_scale(0x1p-14F, DType::kF16));
}

TEST(Affine, ScaleIsRoundedBeforeTheOffsetIsDerived) {
  int n_changed = 0;
  for (int i = 1; i < 300; ++i) {
    const float min = -0.01F * static_cast<float>(i);
    const AffineParams exact = affine_params(min, 1.0F, {.symmetric = false});
    const AffineParams rounded =
        affine_params(min, 1.0F, {.symmetric = false, .scale_dtype = DType::kBF16});
    EXPECT_EQ(rounded.scale, formats::bf16_to_float(formats::float_to_bf16(exact.scale)));
    EXPECT_EQ(rounded.offset, std::fmin(127.0F, std::nearbyint(-min / rounded.scale) - 128.0F));
    if (rounded.offset != exact.offset) ++n_changed;
  }
  EXPECT_GT(n_changed, 0);
}

TEST(Affine, OffsetStaysACodeWhenTheRoundedScaleIsSmaller) {
  // Without a positive part −min/scale is 255; a scale rounded down in 8 bits makes it up to 256.
  int n_clamped = 0;
  for (int i = 0; i < 2000; ++i) {
    const float min = -(1.0F + static_cast<float>(i) * 0.001F);
    const AffineParams params =
        affine_params(min, 0.0F, {.symmetric = false, .scale_dtype = DType::kBF16});
    ASSERT_LE(params.offset, 127.0F);
    if (std::nearbyint(-min / params.scale) > 255.0F) ++n_clamped;
  }
  EXPECT_GT(n_clamped, 0);
}

TEST(Affine, ScalesThatVanishOrOverflowAreRefused) {
  const auto bad = formats::ErrorCode::kBadInput;
  EXPECT_THAT(refusal([] { round_scale_to(1e6F, DType::kF16); }, bad),
              testing::AllOf(testing::HasSubstr("1e+06"), testing::HasSubstr("float16")));
  EXPECT_THAT(refusal([] { round_scale_to(1e-8F, DType::kF16); }, bad),
              testing::HasSubstr("1e-08"));
  EXPECT_EQ(round_scale_to(1e6F, DType::kF32), 1e6F);
  EXPECT_EQ(round_scale_to(0x1p-24F, DType::kF16), 0x1p-24F);
  for (float scale : {0.0F, -1.0F, kInfinity, kNan}) {
    refusal([&] { round_scale_to(scale, DType::kF32); }, bad);
  }
  refusal([] { round_scale_to(1.0F, DType::kI8); }, bad);
  refusal([] { affine_params(-1.0F, kInfinity, {}); }, bad);
  refusal([] { affine_params(kNan, 1.0F, {}); }, bad);
  refusal([] { affine_params(-1.0F, 1.0F, {.n_bits = 9}); }, formats::ErrorCode::kUsage);
  refusal([] { affine_params(-1.0F, 1.0F, {.n_bits = 1}); }, formats::ErrorCode::kUsage);
}

// Quantizes one set of elements by the formula, independently of kernels and layout.
void expect_set(const std::vector<float>& values, const AffineFormat& format,
                const AffineParams& params, const std::vector<int8_t>& codes) {
  double min = 0.0;
  double max = 0.0;
  for (float x : values) {
    min = std::fmin(min, x);
    max = std::fmax(max, x);
  }
  const AffineParams expected =
      affine_params(static_cast<float>(min), static_cast<float>(max), format);
  ASSERT_EQ(params.scale, expected.scale);
  ASSERT_EQ(params.offset, expected.offset);
  for (size_t i = 0; i < values.size(); ++i) {
    const auto quotient =
        static_cast<float>(static_cast<double>(values[i]) / static_cast<double>(params.scale));
    const double code = std::nearbyint(static_cast<double>(quotient + params.offset));
    ASSERT_EQ(codes[i], std::fmin(std::fmax(code, format.code_min()), format.code_max()));
  }
}

TEST(Affine, EveryGranularityUsesTheExtremesOfItsOwnElements) {
  constexpr int64_t kRows = 9;
  constexpr int64_t kCols = 150;
  const std::vector<float> values = normal_values(kRows * kCols, 5);
  for (bool symmetric : {true, false}) {
    for (int n_bits : {4, 8}) {
      for (int64_t group :
           {int64_t{0}, int64_t{1}, int64_t{32}, int64_t{64}, int64_t{150}, int64_t{1000}}) {
        AffineSpec spec{.format = {.n_bits = n_bits, .symmetric = symmetric}};
        if (group > 0) {
          spec.granularity = Granularity::kGroup;
          spec.group_size = group;
        }
        const int64_t width = group == 0 ? kCols : std::min(group, kCols);
        const AffineMatrix matrix = quantized(values, kRows, spec);
        ASSERT_EQ(matrix.n_groups, (kCols + width - 1) / width);
        ASSERT_EQ(matrix.scales.size(), static_cast<size_t>(kRows * matrix.n_groups));
        for (int64_t row = 0; row < kRows; ++row) {
          for (int64_t i = 0; i < matrix.n_groups; ++i) {
            const int64_t first = row * kCols + i * width;
            const int64_t end = row * kCols + std::min(kCols, (i + 1) * width);
            const auto set = static_cast<size_t>(row * matrix.n_groups + i);
            ASSERT_NO_FATAL_FAILURE(
                expect_set({values.begin() + first, values.begin() + end}, spec.format,
                           {matrix.scales[set], matrix.offsets[set]},
                           {matrix.codes.begin() + first, matrix.codes.begin() + end}));
          }
        }
      }
    }
  }
}

TEST(Affine, PerTensorUsesOneScaleForAllRows) {
  std::vector<float> values = normal_values(300 * 200, 6);
  values[250 * 200 + 7] = -9.0F;
  const AffineSpec spec{.format = {.symmetric = false}, .granularity = Granularity::kTensor};
  const AffineMatrix matrix = quantized(values, 300, spec);
  ASSERT_EQ(matrix.scales.size(), 1U);
  ASSERT_EQ(matrix.offsets.size(), 1U);
  expect_set(values, spec.format, {matrix.scales[0], matrix.offsets[0]}, matrix.codes);
}

TEST(Affine, AllZeroRowsGetTheFloorAndZeroCodes) {
  std::vector<float> values(3 * 20, 0.0F);
  for (size_t i = 20; i < 40; ++i) values[i] = static_cast<float>(i) * 0.01F;
  const AffineMatrix symmetric = quantized(values, 3, {.format = {.scale_dtype = DType::kF16}});
  EXPECT_EQ(symmetric.scales[0], kScaleFloor);
  EXPECT_EQ(symmetric.n_subnormal_scales, 2);
  EXPECT_THAT(std::vector<int>(symmetric.codes.begin(), symmetric.codes.begin() + 20),
              testing::Each(0));
  EXPECT_EQ(symmetric.distortion.n_zeros, 40);
  const AffineMatrix asymmetric = quantized(values, 3, {.format = {.symmetric = false}});
  EXPECT_EQ(asymmetric.offsets[2], -128.0F);
  EXPECT_EQ(asymmetric.codes[59], -128);
  EXPECT_EQ(asymmetric.distortion.n_zeros, 40);
}

TEST(Affine, RowsOfOneSignUseAllCodes) {
  // 4/255 rounds up in float32, so 2 is a little under 127.5 steps and rounds away from the tie.
  const std::vector<float> values{1.0F, 2.0F, 3.0F, 4.0F, -1.0F, -2.0F, -3.0F, -4.0F};
  const AffineMatrix matrix = quantized(values, 2, {.format = {.symmetric = false}});
  EXPECT_THAT(std::vector<int>(matrix.codes.begin(), matrix.codes.end()),
              testing::ElementsAre(-64, -1, 63, 127, 63, 0, -64, -128));
}

TEST(Affine, SymmetricCodesNeverReachMinus128) {
  // Subnormal float16 scales are rounded by up to a quarter, which puts −absmax far below −128.
  std::vector<float> values = normal_values(400 * 64, 11);
  for (float& x : values) x *= 0x1p-12F;
  const AffineMatrix matrix = quantized(values, 400, {.format = {.scale_dtype = DType::kF16}});
  EXPECT_EQ(matrix.n_subnormal_scales, 400);
  EXPECT_EQ(*std::min_element(matrix.codes.begin(), matrix.codes.end()), -127);
  EXPECT_GT(matrix.distortion.n_clipped, 0);
}

TEST(Affine, ErrorStaysWithinHalfAStepAndDistortionMatchesDouble) {
  constexpr int64_t kRows = 40;
  constexpr int64_t kCols = 333;
  const std::vector<float> values = normal_values(kRows * kCols, 12);
  const AffineMatrix matrix =
      quantized(values, kRows, {.granularity = Granularity::kGroup, .group_size = 100});
  double squares = 0.0;
  double errors = 0.0;
  double max_error = 0.0;
  for (int64_t i = 0; i < kRows * kCols; ++i) {
    const auto index = static_cast<size_t>(i);
    const double scale =
        matrix.scales[static_cast<size_t>(i / kCols * matrix.n_groups + i % kCols / 100)];
    const double error = std::fabs(values[index] - matrix.codes[index] * scale);
    // The quotient, at most 127, is rounded to float32 before it is rounded to an integer.
    ASSERT_LE(error, scale * (0.5 + 127.0 * 0x1p-24));
    squares += static_cast<double>(values[index]) * values[index];
    errors += error * error;
    max_error = std::fmax(max_error, error);
  }
  EXPECT_EQ(matrix.distortion.n, kRows * kCols);
  // 7 additions per lane and 4 of the tree, each within 2^-24; x̂ within 2^-24 of at most 0.25.
  EXPECT_NEAR(matrix.distortion.sum_squares, squares, squares * 11 * 0x1p-24);
  EXPECT_NEAR(matrix.distortion.sum_squared_errors, errors,
              errors * 11 * 0x1p-24 + kRows * kCols * 2 * max_error * 0.25 * 0x1p-24);
  EXPECT_NEAR(matrix.distortion.max_abs_error, max_error, 0.25 * 0x1p-24);
}

TEST(Affine, SixteenBitSourcesEqualTheirWidenedValues) {
  const std::vector<float> values = normal_values(17 * 65, 13);
  ThreadTeam team(1);
  for (DType dtype : {DType::kBF16, DType::kF16}) {
    const std::vector<std::byte> bytes = stored(values, dtype);
    std::vector<float> wide(values.size());
    for (size_t i = 0; i < values.size(); ++i) {
      wide[i] = dtype == DType::kBF16 ? formats::bf16_to_float(formats::float_to_bf16(values[i]))
                                      : formats::fp16_to_float(formats::float_to_fp16(values[i]));
    }
    const AffineMatrix narrow = quantize_affine(MatrixView(dtype, bytes, 17, 65), {}, team);
    const AffineMatrix expected = quantized(wide, 17, {});
    EXPECT_EQ(narrow.codes, expected.codes);
    EXPECT_EQ(narrow.scales, expected.scales);
    EXPECT_EQ(narrow.distortion.sum_squared_errors, expected.distortion.sum_squared_errors);
  }
}

TEST(Affine, ResultDoesNotDependOnTheNumberOfThreads) {
  const std::vector<std::byte> bytes = stored(normal_values(700 * 300, 14), DType::kF32);
  const MatrixView view(DType::kF32, bytes, 700, 290, 300);
  for (Granularity granularity :
       {Granularity::kTensor, Granularity::kChannel, Granularity::kGroup}) {
    const AffineSpec spec{.granularity = granularity, .group_size = 64};
    ThreadTeam one(1);
    const AffineMatrix expected = quantize_affine(view, spec, one);
    for (int n_threads : {2, 5}) {
      ThreadTeam team(n_threads);
      const AffineMatrix matrix = quantize_affine(view, spec, team);
      EXPECT_EQ(matrix.codes, expected.codes);
      EXPECT_EQ(matrix.scales, expected.scales);
      EXPECT_EQ(matrix.distortion.sum_squares, expected.distortion.sum_squares);
      EXPECT_EQ(matrix.distortion.sum_squared_errors, expected.distortion.sum_squared_errors);
    }
  }
}

TEST(Affine, GivenParametersReproduceTheDerivedOnes) {
  const std::vector<std::byte> bytes = stored(normal_values(33 * 70, 15), DType::kF16);
  const MatrixView view(DType::kF16, bytes, 33, 70);
  const AffineSpec spec{
      .format = {.symmetric = false}, .granularity = Granularity::kGroup, .group_size = 32};
  ThreadTeam team(2);
  const AffineMatrix expected = quantize_affine(view, spec, team);
  std::vector<AffineParams> params;
  params.reserve(expected.scales.size());
  for (size_t i = 0; i < expected.scales.size(); ++i) {
    params.push_back({expected.scales[i], expected.offsets[i]});
  }
  std::vector<int8_t> codes(33 * 70);
  const Distortion distortion = quantize_with_params(view, spec, params, codes, team);
  EXPECT_EQ(codes, expected.codes);
  EXPECT_EQ(distortion.sum_squared_errors, expected.distortion.sum_squared_errors);
  params.pop_back();
  refusal([&] { quantize_with_params(view, spec, params, codes, team); },
          formats::ErrorCode::kInternal);
}

TEST(Affine, ElementsThatAreNotFiniteAreNamed) {
  for (float bad : {kNan, kInfinity, -kInfinity}) {
    for (Granularity granularity :
         {Granularity::kTensor, Granularity::kChannel, Granularity::kGroup}) {
      std::vector<float> values = normal_values(50 * 40, 16);
      values[23 * 40 + 37] = bad;
      values[44 * 40] = bad;
      const std::string message =
          refusal([&] { quantized(values, 50, {.granularity = granularity, .group_size = 16}); },
                  formats::ErrorCode::kBadInput);
      EXPECT_THAT(message, testing::HasSubstr("element [23, 37]"));
    }
  }
}

TEST(Affine, AScaleThatDoesNotFitNamesItsRow) {
  std::vector<float> values = normal_values(4 * 8, 17);
  values[2 * 8 + 3] = 1e8F;
  const std::string message =
      refusal([&] { quantized(values, 4, {.format = {.scale_dtype = DType::kF16}}); },
              formats::ErrorCode::kBadInput);
  EXPECT_THAT(message, testing::HasSubstr("row 2"));
}

TEST(Affine, EmptyAndImpossibleShapes) {
  ThreadTeam team(2);
  const AffineMatrix empty = quantize_affine(MatrixView(DType::kF32, {}, 0, 7), {}, team);
  EXPECT_TRUE(empty.codes.empty());
  EXPECT_TRUE(empty.scales.empty());
  EXPECT_EQ(empty.distortion.n, 0);
  const MatrixView no_columns(DType::kF32, {}, int64_t{1} << 60, 0);
  refusal([&] { quantize_affine(no_columns, {}, team); }, formats::ErrorCode::kBadInput);
  for (int64_t group_size : {int64_t{0}, int64_t{-4}}) {
    refusal(
        [&] {
          quantized({1.0F, 2.0F}, 1,
                    {.granularity = Granularity::kGroup, .group_size = group_size});
        },
        formats::ErrorCode::kUsage);
  }
}

}  // namespace
}  // namespace llmq::quant
