#include "quant/cholesky.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "tests/quant/random_matrix.h"

namespace llmq::quant {
namespace {

constexpr double kEpsilon = 0x1p-53;

// x·xᵀ of more columns than rows: positive definite.
std::vector<double> positive_definite(int64_t k, unsigned seed) {
  const OwnedMatrix x = random_inputs(k, 2 * k + 8, seed);
  std::vector<double> a(static_cast<size_t>(k * k), 0.0);
  for (int64_t i = 0; i < k; ++i) {
    for (int64_t j = 0; j < k; ++j) {
      for (int64_t p = 0; p < x.n_cols; ++p)
        a[static_cast<size_t>(i * k + j)] += static_cast<double>(x.at(i, p)) * x.at(j, p);
    }
  }
  return a;
}

class Cholesky : public testing::TestWithParam<int64_t> {};

// Golub and Van Loan, 3.1 and 4.2: |A − L·Lᵀ| <= γ(k + 1)·|L|·|Lᵀ|, element by element.
TEST_P(Cholesky, TheFactorGivesTheMatrixBack) {
  const int64_t k = GetParam();
  const std::vector<double> a = positive_definite(k, 4);
  std::vector<double> lower = a;
  ThreadTeam team(2);
  ASSERT_TRUE(cholesky_in_place(lower, k, team));
  for (int64_t i = 0; i < k; ++i) {
    for (int64_t j = 0; j <= i; ++j) {
      double sum = 0.0;
      double magnitude = 0.0;
      for (int64_t p = 0; p <= j; ++p) {
        const double product =
            lower[static_cast<size_t>(i * k + p)] * lower[static_cast<size_t>(j * k + p)];
        sum += product;
        magnitude += std::abs(product);
      }
      // Half of it for the factor, half for the sum taken here.
      const double bound = 2.0 * static_cast<double>(k + 1) * kEpsilon * magnitude;
      ASSERT_NEAR(sum, a[static_cast<size_t>(i * k + j)], bound) << i << ' ' << j;
    }
    for (int64_t j = i + 1; j < k; ++j) {
      ASSERT_EQ(lower[static_cast<size_t>(i * k + j)], a[static_cast<size_t>(i * k + j)]);
    }
  }
}

// Higham, 8.2: for each column of X, |L·X − 1| <= γ(k)·|L|·|X|.
TEST_P(Cholesky, TheInverseOfTheFactorIsOne) {
  const int64_t k = GetParam();
  std::vector<double> lower = positive_definite(k, 5);
  ThreadTeam team(2);
  ASSERT_TRUE(cholesky_in_place(lower, k, team));
  for (int64_t i = 0; i < k; ++i) {
    // The upper triangle is not read.
    for (int64_t j = i + 1; j < k; ++j)
      lower[static_cast<size_t>(i * k + j)] = std::numeric_limits<double>::quiet_NaN();
  }
  const std::vector<double> inverse = invert_lower(lower, k, team);
  for (int64_t i = 0; i < k; ++i) {
    for (int64_t j = 0; j < k; ++j) {
      if (j > i) {
        ASSERT_EQ(inverse[static_cast<size_t>(i * k + j)], 0.0);
      }
      double sum = 0.0;
      double magnitude = 0.0;
      for (int64_t p = j; p <= i; ++p) {
        const double product =
            lower[static_cast<size_t>(i * k + p)] * inverse[static_cast<size_t>(p * k + j)];
        sum += product;
        magnitude += std::abs(product);
      }
      ASSERT_NEAR(sum, i == j ? 1.0 : 0.0, 2.0 * static_cast<double>(k + 1) * kEpsilon * magnitude);
    }
  }
}

TEST_P(Cholesky, ThreadsChangeNothing) {
  const int64_t k = GetParam();
  ThreadTeam one(1);
  std::vector<double> want = positive_definite(k, 6);
  ASSERT_TRUE(cholesky_in_place(want, k, one));
  const std::vector<double> want_inverse = invert_lower(want, k, one);
  for (const int n_threads : {2, 3}) {
    ThreadTeam team(n_threads);
    std::vector<double> got = positive_definite(k, 6);
    ASSERT_TRUE(cholesky_in_place(got, k, team));
    EXPECT_EQ(got, want);
    EXPECT_EQ(invert_lower(got, k, team), want_inverse);
  }
}

// Also where the pivot that fails is not in the first block.
TEST_P(Cholesky, WhatIsNotPositiveDefiniteIsRefused) {
  const int64_t k = GetParam();
  ThreadTeam team(2);
  for (const double pivot : {0.0, -1.0, std::numeric_limits<double>::quiet_NaN(),
                             std::numeric_limits<double>::infinity()}) {
    for (const int64_t at : {int64_t{0}, k / 2, k - 1}) {
      std::vector<double> a = positive_definite(k, 7);
      a[static_cast<size_t>(at * k + at)] = pivot;
      EXPECT_FALSE(cholesky_in_place(a, k, team)) << pivot << " at " << at;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Orders, Cholesky, testing::Values(1, 2, 17, 63, 64, 65, 129, 150));

TEST(CholeskyOfNothing, NoRowsAreFactoredAtOnce) {
  ThreadTeam team(1);
  EXPECT_TRUE(cholesky_in_place({}, 0, team));
  EXPECT_TRUE(invert_lower({}, 0, team).empty());
}

}  // namespace
}  // namespace llmq::quant
