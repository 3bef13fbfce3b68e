#include <gtest/gtest.h>

#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "formats/float16.h"
#include "quant/kernels/cpu.h"
#include "quant/kernels/elementwise/elementwise.h"
#include "tests/quant/kernels/gemm_problem.h"

namespace llmq::quant {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
constexpr float kUntouched = -7.0F;

// Normal numbers of several magnitudes with zeros, infinities and NaNs among them.
std::vector<float> awkward_values(int64_t n, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::uniform_int_distribution<int> kind(0, 39);
  std::vector<float> values(static_cast<size_t>(n));
  for (float& v : values) {
    v = normal(random);
    switch (kind(random)) {
      case 0:
        v = 0.0F;
        break;
      case 1:
        v = -0.0F;
        break;
      case 2:
        v = kInfinity;
        break;
      case 3:
        v = -kInfinity;
        break;
      case 4:
        v = kNaN;
        break;
      case 5:
        v *= 1e-39F;
        break;
      case 6:
      case 7:
        v *= 100.0F;
        break;
      default:
        break;
    }
  }
  return values;
}

std::vector<float> normal_values(int64_t n, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> values(static_cast<size_t>(n));
  for (float& v : values) v = normal(random);
  return values;
}

// Runs `operation` with the kernels of every supported set and with the scalar ones, over several
// lengths; it returns all that was written.
using Operation = std::function<std::vector<float>(const ElementwiseKernels&, int64_t n)>;

void expect_scalar_bits(const Operation& operation) {
  for (const int64_t n : {0, 1, 2, 7, 8, 9, 15, 16, 17, 31, 33, 47, 64, 100, 1000}) {
    const std::vector<float> expected = operation(kElementwiseScalar, n);
    for (const Isa isa : supported_isas())
      EXPECT_TRUE(same_bits(operation(elementwise_kernels(isa), n), expected))
          << isa_name(isa) << " n=" << n;
  }
}

TEST(IsaElementwise, EveryIsaRunsItsOwnOrTheNextNarrowerImplementation) {
  EXPECT_EQ(elementwise_kernels(Isa::kScalar).isa, Isa::kScalar);
  EXPECT_EQ(elementwise_kernels(Isa::kAvx2).isa, Isa::kAvx2);
  EXPECT_EQ(elementwise_kernels(Isa::kAvxVnni).isa, Isa::kAvx2);
  EXPECT_EQ(elementwise_kernels(Isa::kAvx512Vnni).isa, Isa::kAvx512Vnni);
  EXPECT_EQ(elementwise_kernels(Isa::kAmx).isa, Isa::kAvx512Vnni);
}

// The untouched element after the last one is part of what is compared.
TEST(IsaElementwise, ArrayOperationsGiveTheScalarBits) {
  using Unary = void (*)(const float*, float*, int64_t);
  const std::array<Unary ElementwiseKernels::*, 2> unary{&ElementwiseKernels::exp,
                                                         &ElementwiseKernels::sigmoid};
  for (const auto member : unary) {
    expect_scalar_bits([member](const ElementwiseKernels& k, int64_t n) {
      const std::vector<float> x = awkward_values(n, 1);
      std::vector<float> y(x.size() + 1, kUntouched);
      (k.*member)(x.data(), y.data(), n);
      return y;
    });
  }
  using Binary = void (*)(const float*, const float*, float*, int64_t);
  const std::array<Binary ElementwiseKernels::*, 2> binary{&ElementwiseKernels::silu_multiply,
                                                           &ElementwiseKernels::add};
  for (const auto member : binary) {
    expect_scalar_bits([member](const ElementwiseKernels& k, int64_t n) {
      const std::vector<float> a = awkward_values(n, 2);
      const std::vector<float> b = awkward_values(n, 3);
      std::vector<float> y(a.size() + 1, kUntouched);
      (k.*member)(a.data(), b.data(), y.data(), n);
      return y;
    });
  }
  expect_scalar_bits([](const ElementwiseKernels& k, int64_t n) {
    const std::vector<float> x = awkward_values(n, 4);
    std::vector<float> y(x.size() + 1, kUntouched);
    k.scale(x.data(), 0.37F, y.data(), n);
    return y;
  });
}

TEST(IsaElementwise, OutputMayBeTheInput) {
  expect_scalar_bits([](const ElementwiseKernels& k, int64_t n) {
    std::vector<float> y = normal_values(n, 5);
    const std::vector<float> other = normal_values(n, 6);
    k.add(y.data(), other.data(), y.data(), n);
    k.silu_multiply(other.data(), y.data(), y.data(), n);
    k.scale(y.data(), 3.0F, y.data(), n);
    if (n > 0) k.rms_norm({y.data(), other.data(), 1e-6F, n, y.data()});
    y.push_back(k.exp_sum(y.data(), k.row_max(y.data(), n), y.data(), n));
    return y;
  });
}

TEST(IsaElementwise, RmsNormGivesTheScalarBits) {
  expect_scalar_bits([](const ElementwiseKernels& k, int64_t n) {
    if (n == 0) return std::vector<float>{};
    const std::vector<float> x = normal_values(n, 7);
    const std::vector<float> weight = normal_values(n, 8);
    std::vector<float> y(x.size() + 1, kUntouched);
    k.rms_norm({x.data(), weight.data(), 1e-6F, n, y.data()});
    return y;
  });
}

TEST(IsaElementwise, SoftmaxPiecesGiveTheScalarBits) {
  for (const bool awkward : {false, true}) {
    expect_scalar_bits([awkward](const ElementwiseKernels& k, int64_t n) {
      const std::vector<float> x = awkward ? awkward_values(n, 9) : normal_values(n, 9);
      std::vector<float> y(x.size() + 1, kUntouched);
      const float max = k.row_max(x.data(), n);
      y.push_back(max);
      y.push_back(k.exp_sum(x.data(), max, y.data(), n));
      return y;
    });
  }
}

// With only zeros of both signs the result depends on the order of comparisons.
TEST(IsaElementwise, RowMaxOfSignedZerosGivesTheScalarBits) {
  for (unsigned pattern = 0; pattern < 1U << 12; ++pattern) {
    std::vector<float> x(19);
    for (size_t i = 0; i < x.size(); ++i) x[i] = (pattern >> (i % 12) & 1U) != 0 ? -0.0F : 0.0F;
    const float expected = kElementwiseScalar.row_max(x.data(), 19);
    for (const Isa isa : supported_isas())
      ASSERT_TRUE(same_bits(elementwise_kernels(isa).row_max(x.data(), 19), expected)) << pattern;
  }
}

TEST(IsaElementwise, RopeGivesTheScalarBits) {
  expect_scalar_bits([](const ElementwiseKernels& k, int64_t n) {
    const std::vector<float> x = normal_values(2 * n, 10);
    const std::vector<float> cos = normal_values(n, 11);
    const std::vector<float> sin = normal_values(n, 12);
    std::vector<float> y(x.size() + 1, kUntouched);
    k.rope({x.data(), cos.data(), sin.data(), n, y.data()});
    std::vector<float> in_place = x;
    k.rope({in_place.data(), cos.data(), sin.data(), n, in_place.data()});
    y.insert(y.end(), in_place.begin(), in_place.end());
    return y;
  });
}

// n_rows rows of d elements in the storage type, each row followed by 3 bytes of other content.
std::vector<unsigned char> stored_rows(RowType type, int64_t n_rows, int64_t d,
                                       int64_t* row_size_bytes) {
  const int64_t size = type == RowType::kF32 ? 4 : 2;
  *row_size_bytes = d * size + 3;
  const std::vector<float> values = normal_values(n_rows * d, 13);
  std::vector<unsigned char> bytes(static_cast<size_t>(n_rows * *row_size_bytes) + 1, 0xffU);
  for (int64_t i = 0; i < n_rows * d; ++i) {
    unsigned char* p = bytes.data() + i / d * *row_size_bytes + i % d * size;
    const float v = values[static_cast<size_t>(i)];
    if (type == RowType::kF32) {
      std::memcpy(p, &v, 4);
    } else {
      const uint16_t bits =
          type == RowType::kBf16 ? formats::float_to_bf16(v) : formats::float_to_fp16(v);
      std::memcpy(p, &bits, 2);
    }
  }
  return bytes;
}

class Rows : public ::testing::TestWithParam<RowType> {};

std::string row_type_name(const ::testing::TestParamInfo<RowType>& type) {
  if (type.param == RowType::kF32) return "F32";
  return type.param == RowType::kBf16 ? "Bf16" : "Fp16";
}

INSTANTIATE_TEST_SUITE_P(Isa, Rows,
                         ::testing::Values(RowType::kF32, RowType::kBf16, RowType::kFp16),
                         row_type_name);

TEST_P(Rows, DotProductsGiveTheScalarBits) {
  // Several kernels share the queries and rows between them, by how many there are.
  for (const int64_t d : {1, 16, 40, 64, 128, 256, 300}) {
    for (const int64_t m : {1, 2, 3, 7, 9, 13}) {
      expect_scalar_bits([type = GetParam(), d, m](const ElementwiseKernels& k, int64_t n) {
        int64_t row_size = 0;
        const std::vector<unsigned char> rows = stored_rows(type, n, d, &row_size);
        const std::vector<float> q = normal_values(m * (d + 1), 14);
        std::vector<float> out(static_cast<size_t>(m * (n + 2)), kUntouched);
        k.dot_rows(
            {q.data(), d + 1, m, d, {rows.data(), type, row_size, n}, 0.125F, out.data(), n + 2});
        return out;
      });
    }
  }
}

TEST_P(Rows, WeightedSumsGiveTheScalarBits) {
  for (const int64_t d : {1, 16, 40, 64, 128}) {
    for (const int64_t m : {1, 2, 3, 6, 7, 12}) {
      expect_scalar_bits([type = GetParam(), d, m](const ElementwiseKernels& k, int64_t n) {
        int64_t row_size = 0;
        const std::vector<unsigned char> rows = stored_rows(type, n, d, &row_size);
        const std::vector<float> p = normal_values(m * (n + 1), 15);
        std::vector<float> acc = normal_values(m * (d + 2), 16);
        k.add_rows({p.data(), n + 1, m, d, {rows.data(), type, row_size, n}, acc.data(), d + 2});
        return acc;
      });
    }
  }
}

TEST_P(Rows, TheRowsThatAreReadNextAreOnlyFetched) {
  constexpr int64_t kRows = 70;
  constexpr int64_t kDim = 40;
  constexpr int64_t kQueries = 5;
  int64_t row_size = 0;
  const std::vector<unsigned char> rows = stored_rows(GetParam(), kRows, kDim, &row_size);
  const std::vector<float> q = normal_values(kQueries * kDim, 20);
  const std::vector<float> p = normal_values(kQueries * kRows, 21);
  const auto run = [&](const ElementwiseKernels& k, const void* next) {
    const StoredRows stored{rows.data(), GetParam(), row_size, kRows, next};
    std::vector<float> scores(kQueries * kRows);
    std::vector<float> sums(kQueries * kDim);
    k.dot_rows({q.data(), kDim, kQueries, kDim, stored, 1.0F, scores.data(), kRows});
    k.add_rows({p.data(), kRows, kQueries, kDim, stored, sums.data(), kDim});
    scores.insert(scores.end(), sums.begin(), sums.end());
    return scores;
  };
  const std::vector<float> expected = run(kElementwiseScalar, nullptr);
  const auto* nowhere = reinterpret_cast<const void*>(uintptr_t{64});
  for (const Isa isa : supported_isas()) {
    EXPECT_TRUE(same_bits(run(elementwise_kernels(isa), nowhere), expected)) << isa_name(isa);
  }
}

TEST_P(Rows, DividingTheRowsOverCallsDoesNotChangeASum) {
  constexpr int64_t kRows = 45;
  constexpr int64_t kDim = 70;
  int64_t row_size = 0;
  const std::vector<unsigned char> rows = stored_rows(GetParam(), kRows, kDim, &row_size);
  const std::vector<float> p = normal_values(kRows, 17);
  for (const Isa isa : supported_isas()) {
    const ElementwiseKernels& k = elementwise_kernels(isa);
    std::vector<float> at_once(kDim);
    k.add_rows({p.data(),
                kRows,
                1,
                kDim,
                {rows.data(), GetParam(), row_size, kRows},
                at_once.data(),
                kDim});
    std::vector<float> in_parts(kDim);
    for (int64_t row = 0; row < kRows; row += 7) {
      const int64_t count = std::min<int64_t>(7, kRows - row);
      k.add_rows({p.data() + row,
                  kRows,
                  1,
                  kDim,
                  {rows.data() + row * row_size, GetParam(), row_size, count},
                  in_parts.data(),
                  kDim});
    }
    EXPECT_TRUE(same_bits(in_parts, at_once)) << isa_name(isa);
  }
}

TEST_P(Rows, DotProductsAreWithinTheSummationBoundOfFloat64) {
  constexpr int64_t kRows = 20;
  constexpr int64_t kDim = 100;
  int64_t row_size = 0;
  const std::vector<unsigned char> rows = stored_rows(GetParam(), kRows, kDim, &row_size);
  const std::vector<float> q = normal_values(kDim, 18);
  std::vector<float> out(kRows);
  kElementwiseScalar.dot_rows({q.data(),
                               kDim,
                               1,
                               kDim,
                               {rows.data(), GetParam(), row_size, kRows},
                               0.3F,
                               out.data(),
                               kRows});
  for (int64_t row = 0; row < kRows; ++row) {
    double sum = 0.0;
    double magnitude = 0.0;
    for (int64_t i = 0; i < kDim; ++i) {
      const unsigned char* p =
          rows.data() + row * row_size + i * (GetParam() == RowType::kF32 ? 4 : 2);
      float v = 0.0F;
      uint16_t bits = 0;
      if (GetParam() == RowType::kF32) {
        std::memcpy(&v, p, 4);
      } else {
        std::memcpy(&bits, p, 2);
        v = GetParam() == RowType::kBf16 ? formats::bf16_to_float(bits)
                                         : formats::fp16_to_float(bits);
      }
      const double product = static_cast<double>(q[static_cast<size_t>(i)]) * v * 0.3F;
      sum += product;
      magnitude += std::fabs(product);
    }
    // 7 steps of a lane, 4 of the tree, one for the scale.
    EXPECT_NEAR(out[static_cast<size_t>(row)], sum, 1.001 * 12.0 * 0x1p-24 * magnitude);
  }
}

}  // namespace
}  // namespace llmq::quant
