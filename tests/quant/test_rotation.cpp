#include "quant/rotation.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "formats/error.h"
#include "tests/quant/random_matrix.h"

namespace llmq::quant {
namespace {

constexpr double kEpsilon = 0x1p-24;  // of one rounding to float32

// R [n, n] row-major: what becomes of unit vectors.
std::vector<float> matrix_of(const Rotation& rotation) {
  const int64_t n = rotation.n();
  std::vector<float> matrix(static_cast<size_t>(n * n), 0.0F);
  for (int64_t i = 0; i < n; ++i) {
    matrix[static_cast<size_t>(i * n + i)] = 1.0F;
    rotation.apply_row(matrix.data() + i * n);
  }
  return matrix;
}

double norm_of(std::span<const float> row) {
  double sum = 0.0;
  for (const float x : row) sum += static_cast<double>(x) * x;
  return std::sqrt(sum);
}

// Largest difference between R·Rᵀ and the identity.
double departure(const std::vector<float>& matrix, int64_t n) {
  double largest = 0.0;
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t j = 0; j < n; ++j) {
      double sum = 0.0;
      for (int64_t p = 0; p < n; ++p) {
        sum += static_cast<double>(matrix[static_cast<size_t>(i * n + p)]) *
               matrix[static_cast<size_t>(j * n + p)];
      }
      largest = std::max(largest, std::abs(sum - (i == j ? 1.0 : 0.0)));
    }
  }
  return largest;
}

TEST(Rotation, EveryHadamardRotationIsOrthogonal) {
  // Rows are unit vectors with elements rounded once, so that a product of two is off by no more
  // than twice a rounding.
  for (const int64_t n : {1, 2, 7, 8, 12, 14, 20, 24, 28, 36, 44, 76, 96, 100, 128, 224})
    EXPECT_LE(departure(matrix_of(Rotation::hadamard(n, 7)), n), 2.5 * kEpsilon) << n;
}

TEST(Rotation, AHadamardRotationSpreadsEachChannelEvenly) {
  // Where Paley's constructions have a matrix, all elements have the same magnitude.
  for (const int64_t n : {2, 8, 12, 20, 24, 28, 36, 44, 96, 128}) {
    const auto magnitude = static_cast<float>(1.0 / std::sqrt(static_cast<double>(n)));
    for (const float x : matrix_of(Rotation::hadamard(n, 3))) EXPECT_EQ(std::abs(x), magnitude);
  }
}

TEST(Rotation, WithoutAHadamardMatrixBlocksAreRotatedOnTheirOwn) {
  const std::vector<float> matrix = matrix_of(Rotation::hadamard(14, 3));
  const auto magnitude = static_cast<float>(1.0 / std::sqrt(2.0));
  for (size_t i = 0; i < 14; ++i) {
    for (size_t j = 0; j < 14; ++j)
      EXPECT_EQ(std::abs(matrix[i * 14 + j]), i / 2 == j / 2 ? magnitude : 0.0F);
  }
  for (const float x : matrix_of(Rotation::hadamard(7, 3))) EXPECT_TRUE(x == 0 || std::abs(x) == 1);
}

TEST(Rotation, SignsFollowFromTheSeedAlone) {
  const std::vector<float> first = matrix_of(Rotation::hadamard(64, 1));
  EXPECT_EQ(first, matrix_of(Rotation::hadamard(64, 1)));
  EXPECT_NE(first, matrix_of(Rotation::hadamard(64, 2)));
}

TEST(Rotation, NormsAreKeptAndOutliersSpread) {
  for (const int64_t n : {8, 20, 96, 14, 128}) {
    const Rotation rotation = Rotation::hadamard(n, 11);
    OwnedMatrix rows = random_matrix(9, n, static_cast<unsigned>(n));
    rows.at(4, n / 2) = 1000.0F;
    const OwnedMatrix before = rows;
    ThreadTeam team(2);
    rotation.apply_rows({rows.values.data(), rows.n_rows, n, n}, team);
    for (int64_t row = 0; row < rows.n_rows; ++row) {
      const double norm = norm_of(before.row(row));
      // Each element of the result is rounded once.
      EXPECT_NEAR(norm_of(rows.row(row)), norm, 1.5 * kEpsilon * norm);
    }
    if (n == 14) continue;
    for (const float x : rows.row(4))
      EXPECT_LE(std::abs(x), 2.0 * 1000.0 / std::sqrt(static_cast<double>(n)));
  }
}

TEST(Rotation, RowsDependOnNeitherThreadsNorStride) {
  const Rotation rotation = Rotation::hadamard(28, 5);
  const OwnedMatrix rows = random_matrix(13, 32, 2);
  OwnedMatrix want = rows;
  for (int64_t row = 0; row < want.n_rows; ++row)
    rotation.apply_row(want.values.data() + row * want.n_cols);
  for (const int n_threads : {1, 2, 3}) {
    ThreadTeam team(n_threads);
    OwnedMatrix got = rows;
    rotation.apply_rows({got.values.data(), got.n_rows, 28, 32}, team);
    EXPECT_EQ(got.values, want.values);
  }
}

TEST(Rotation, ADenseRotationIsAProductOnTheRight) {
  const double c = std::cos(0.3);
  const double s = std::sin(0.3);
  const Rotation rotation = Rotation::dense({c, s, 0, -s, c, 0, 0, 0, -1}, 3);
  EXPECT_EQ(rotation.n(), 3);
  std::vector<float> row{2.0F, -3.0F, 5.0F};
  rotation.apply_row(row.data());
  EXPECT_FLOAT_EQ(row[0], static_cast<float>(2.0 * c + 3.0 * s));
  EXPECT_FLOAT_EQ(row[1], static_cast<float>(2.0 * s - 3.0 * c));
  EXPECT_EQ(row[2], -5.0F);
}

TEST(Rotation, ADenseCopyOfAHadamardRotationDoesTheSame) {
  const Rotation rotation = Rotation::hadamard(20, 9);
  const std::vector<float> matrix = matrix_of(rotation);
  const Rotation copy = Rotation::dense({matrix.begin(), matrix.end()}, 20);
  const OwnedMatrix rows = random_matrix(4, 20, 6);
  for (int64_t row = 0; row < 4; ++row) {
    std::vector<float> a(rows.row(row).begin(), rows.row(row).end());
    std::vector<float> b = a;
    rotation.apply_row(a.data());
    copy.apply_row(b.data());
    double sum = 0.0;  // Σ|x|/√n bounds what the rounded elements of the copy can change
    for (const float x : rows.row(row)) sum += std::abs(x) / std::sqrt(20.0);
    for (size_t i = 0; i < 20; ++i) EXPECT_NEAR(a[i], b[i], 4.0 * kEpsilon * sum);
  }
}

TEST(Rotation, OtherExtentsAreRefused) {
  ThreadTeam team(1);
  std::vector<float> row(8);
  EXPECT_THROW(Rotation::hadamard(4, 1).apply_rows({row.data(), 1, 8, 8}, team), formats::Error);
  EXPECT_THROW(Rotation::hadamard(0, 1), formats::Error);
  EXPECT_THROW(Rotation::dense({1.0, 0.0}, 2), formats::Error);
  EXPECT_EQ(Rotation().n(), 0);
  Rotation().apply_rows({row.data(), 1, 0, 0}, team);
  EXPECT_EQ(row, std::vector<float>(8, 0.0F));
}

}  // namespace
}  // namespace llmq::quant
