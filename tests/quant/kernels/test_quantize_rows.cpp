// Activation codes against a float64 formula that is rounded to float32 where the float32 one is,
// and every implementation against the scalar one.
#include "quant/kernels/gemm_w8a8/quantize_rows.h"

#include <gtest/gtest.h>

#include <array>
#include <bit>
#include <cmath>
#include <limits>
#include <random>
#include <utility>
#include <vector>

#include "formats/error.h"
#include "tests/quant/kernels/guarded_copy.h"

namespace llmq::quant {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

// Half to even without the help of the floating-point unit's rounding mode.
double half_to_even(double value) {
  const double below = std::floor(value);
  const double fraction = value - below;
  if (fraction != 0.5) return fraction < 0.5 ? below : below + 1.0;
  return std::fmod(below, 2.0) == 0.0 ? below : below + 1.0;
}

// float64 results of float32 operands, rounded to float32, are the correctly rounded float32 ones.
int code_by_float64(float x, const ActivationRule& rule, double code_min) {
  if (std::isnan(x)) return static_cast<int>(code_min);
  const auto wide = static_cast<double>(x);
  const auto scaled =
      static_cast<float>(rule.by_reciprocal ? wide * static_cast<double>(rule.reciprocal)
                                            : wide / static_cast<double>(rule.scale));
  const auto shifted =
      static_cast<float>(static_cast<double>(scaled) + static_cast<double>(rule.offset));
  if (std::isinf(shifted)) return shifted > 0 ? 127 : static_cast<int>(code_min);
  const double rounded = half_to_even(static_cast<double>(shifted));
  return static_cast<int>(std::fmin(std::fmax(rounded, code_min), 127.0));
}

const std::vector<ActivationRule>& all_rules() {
  static const std::vector<ActivationRule> rules{
      {1.0F, 0.0F, false, 0.0F},      {1.0F, 0.0F, true, 1.0F},    {0.0217F, -17.0F, false, 0.0F},
      {0.0217F, -17.0F, true, 46.0F}, {0.5F, 127.0F, false, 0.0F}, {0.5F, -128.0F, true, 2.0F},
      {1e-42F, 5.0F, false, 0.0F},    {1e-38F, 5.0F, true, 1e38F}, {1e30F, 3.0F, false, 0.0F},
      {1e30F, 3.0F, true, 1e-30F}};
  return rules;
}

// Ties, values about the clamps, subnormals, infinities, NaN and arbitrary bits.
std::vector<float> difficult_values(size_t n, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0.0F, 2.0F);
  std::vector<float> values(n);
  for (float& v : values) {
    const auto bits = static_cast<uint32_t>(random());
    switch (random() % 6) {
      case 0:
        v = static_cast<float>(static_cast<int>(bits % 1024) - 512) * 0.5F;
        break;
      case 1:
        v = std::bit_cast<float>(bits);
        break;
      case 2:
        v = std::bit_cast<float>(bits & 0x807fffffU);
        break;
      case 3:
        v = std::array{kInfinity, -kInfinity, kNan, -kNan, 0.0F, -0.0F}[bits % 6];
        break;
      default:
        v = normal(random);
    }
  }
  return values;
}

class QuantizeRowsKernels : public ::testing::TestWithParam<Isa> {};

INSTANTIATE_TEST_SUITE_P(Isa, QuantizeRowsKernels, ::testing::ValuesIn(supported_isas()),
                         [](const auto& test) { return std::string(isa_name(test.param)); });

TEST_P(QuantizeRowsKernels, CodesAreThoseOfTheFloat64FormulaForEveryTail) {
  ThreadTeam team(1);
  for (int64_t k = 0; k <= 70; ++k) {
    const std::vector<float> x = difficult_values(static_cast<size_t>(3 * k), 11U);
    for (const ActivationRule& rule : all_rules()) {
      std::vector<int8_t> codes(x.size());
      quantize_rows({x.data(), 3, k, k}, rule, codes.data(), k, team, GetParam());
      for (size_t i = 0; i < x.size(); ++i) {
        ASSERT_EQ(codes[i], code_by_float64(x[i], rule, -128.0))
            << "k=" << k << " x=" << std::hexfloat << x[i] << " scale " << rule.scale
            << (rule.by_reciprocal ? " by reciprocal" : "");
      }
    }
  }
}

TEST_P(QuantizeRowsKernels, TiesGoToTheEvenCodeAndTheRestIsClamped) {
  ThreadTeam team(1);
  const std::vector<std::pair<float, int>> expected{
      {0.5F, 0},       {1.5F, 2},     {2.5F, 2},        {-0.5F, 0},         {-1.5F, -2},
      {-2.5F, -2},     {126.5F, 126}, {127.5F, 127},    {1e9F, 127},        {-127.5F, -128},
      {-128.5F, -128}, {-1e9F, -128}, {kInfinity, 127}, {-kInfinity, -128}, {kNan, -128},
      {1e-45F, 0},     {-1e-45F, 0},  {-0.0F, 0},       {0.49999997F, 0},   {3e38F, 127},
      {-3e38F, -128}};
  for (const bool by_reciprocal : {false, true}) {
    for (const auto& [value, code] : expected) {
      const std::vector<float> x(19, value);
      std::vector<int8_t> codes(19);
      quantize_rows({x.data(), 1, 19, 19}, {1.0F, 0.0F, by_reciprocal, 1.0F}, codes.data(), 19,
                    team, GetParam());
      for (const int8_t c : codes) EXPECT_EQ(c, code) << value;
    }
  }
}

// 1/3 in bfloat16 is a little too large: a product with it lands above the tie that division hits.
TEST_P(QuantizeRowsKernels, DivisionAndReciprocalDifferWhereTheyMust) {
  ThreadTeam team(1);
  const std::vector<float> x(20, 1.5F);
  ActivationRule rule{3.0F, 0.0F, false, 0.333984375F};
  for (const bool by_reciprocal : {false, true}) {
    rule.by_reciprocal = by_reciprocal;
    std::vector<int8_t> codes(20, 77);
    quantize_rows({x.data(), 1, 20, 20}, rule, codes.data(), 20, team, GetParam());
    for (const int8_t c : codes) EXPECT_EQ(c, by_reciprocal ? 1 : 0);
  }
}

TEST_P(QuantizeRowsKernels, DynamicScaleIsTheLargestMagnitudeOver127) {
  ThreadTeam team(1);
  std::mt19937 random(5);
  std::normal_distribution<float> normal(0.0F, 3.0F);
  for (int64_t k = 1; k <= 70; ++k) {
    std::vector<float> x(static_cast<size_t>(2 * k));
    for (float& v : x) v = normal(random);
    std::vector<int8_t> codes(x.size());
    std::vector<float> scales(2);
    quantize_rows_dynamic({x.data(), 2, k, k}, codes.data(), k, scales.data(), team, GetParam());
    for (size_t row = 0; row < 2; ++row) {
      double largest = 0.0;
      for (int64_t i = 0; i < k; ++i) {
        const float value = x[row * static_cast<size_t>(k) + static_cast<size_t>(i)];
        largest = std::fmax(largest, std::fabs(static_cast<double>(value)));
      }
      ASSERT_EQ(scales[row], static_cast<float>(largest / 127.0));
      for (int64_t i = 0; i < k; ++i) {
        const size_t at = row * static_cast<size_t>(k) + static_cast<size_t>(i);
        ASSERT_EQ(codes[at], code_by_float64(x[at], {scales[row], 0.0F, false, 0.0F}, -127.0));
      }
    }
  }
}

TEST_P(QuantizeRowsKernels, DynamicRowsOfZerosSubnormalsAndNonFiniteValuesAreDefined) {
  ThreadTeam team(1);
  constexpr int64_t kCols = 19;
  std::vector<float> x(4 * kCols, 0.0F);
  x[kCols + 3] = 1e-44F;
  x[2 * kCols] = kInfinity;
  x[2 * kCols + 1] = -kInfinity;
  x[2 * kCols + 17] = kNan;
  x[2 * kCols + 18] = -254.0F;
  x[3 * kCols + 5] = kNan;
  std::vector<int8_t> codes(x.size());
  std::vector<float> scales(4);
  quantize_rows_dynamic({x.data(), 4, kCols, kCols}, codes.data(), kCols, scales.data(), team,
                        GetParam());
  EXPECT_EQ(scales, (std::vector<float>{0x1p-23F, 0x1p-23F, 2.0F, 0x1p-23F}));
  std::vector<int8_t> expected(x.size());
  expected[2 * kCols] = 127;
  expected[2 * kCols + 1] = -127;
  expected[2 * kCols + 17] = -127;
  expected[2 * kCols + 18] = -127;
  expected[3 * kCols + 5] = -127;
  EXPECT_EQ(codes, expected);
}

TEST_P(QuantizeRowsKernels, ThreadsAndStridesDoNotChangeCodesAndTheRestIsUntouched) {
  constexpr int64_t kRows = 300;
  constexpr int64_t kCols = 131;
  constexpr int64_t kXStride = 140;
  constexpr int64_t kCodesStride = 133;
  const std::vector<float> x = difficult_values(kRows * kXStride, 3U);
  for (int n_threads = 1; n_threads <= 4; ++n_threads) {
    ThreadTeam team(n_threads);
    for (const ActivationRule& rule : all_rules()) {
      std::vector<int8_t> codes(kRows * kCodesStride, 77);
      quantize_rows({x.data(), kRows, kCols, kXStride}, rule, codes.data(), kCodesStride, team,
                    GetParam());
      for (int64_t row = 0; row < kRows; ++row) {
        for (int64_t col = 0; col < kCodesStride; ++col) {
          const float value = x[static_cast<size_t>(row * kXStride + col)];
          const int want = col < kCols ? code_by_float64(value, rule, -128.0) : 77;
          ASSERT_EQ(codes[static_cast<size_t>(row * kCodesStride + col)], want)
              << row << " " << col;
        }
      }
    }
  }
}

TEST_P(QuantizeRowsKernels, NothingBeyondTheLastValueIsReadOrWritten) {
  ThreadTeam team(1);
  for (const int64_t k : {1, 7, 8, 9, 16, 33}) {
    const std::vector<float> values = difficult_values(static_cast<size_t>(k), 2U);
    const GuardedCopy x(values.data(), values.size() * sizeof(float));
    const std::vector<int8_t> blank(static_cast<size_t>(k), 77);
    for (const ActivationRule& rule : all_rules()) {
      GuardedCopy codes(blank.data(), blank.size());
      auto* out = reinterpret_cast<int8_t*>(codes.mutable_data());
      const ConstMatrixF32 view{reinterpret_cast<const float*>(x.data()), 1, k, k};
      quantize_rows(view, rule, out, k, team, GetParam());
      for (int64_t i = 0; i < k; ++i)
        EXPECT_EQ(out[i], code_by_float64(values[static_cast<size_t>(i)], rule, -128.0));
    }
  }
}

TEST(IsaQuantizeRowsTable, EveryIsaRunsItsOwnOrTheNextNarrowerImplementation) {
  const std::array<std::pair<Isa, Isa>, 5> served{{{Isa::kScalar, Isa::kScalar},
                                                   {Isa::kAvx2, Isa::kAvx2},
                                                   {Isa::kAvxVnni, Isa::kAvx2},
                                                   {Isa::kAvx512Vnni, Isa::kAvx512Vnni},
                                                   {Isa::kAmx, Isa::kAvx512Vnni}}};
  for (const auto& [isa, implementation] : served)
    EXPECT_EQ(quantize_rows_implementation(isa), implementation) << isa_name(isa);
}

TEST(QuantizeRows, ShapesThatDoNotFitAreRefused) {
  ThreadTeam team(1);
  const std::vector<float> x(12);
  std::vector<int8_t> codes(12);
  std::vector<float> scales(3);
  EXPECT_THROW(quantize_rows({x.data(), 3, 4, 3}, {}, codes.data(), 4, team), formats::Error);
  EXPECT_THROW(quantize_rows({x.data(), 3, 4, 4}, {}, codes.data(), 3, team), formats::Error);
  EXPECT_THROW(quantize_rows_dynamic({x.data(), -1, 4, 4}, codes.data(), 4, scales.data(), team),
               formats::Error);
}

}  // namespace
}  // namespace llmq::quant
