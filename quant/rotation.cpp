#include "quant/rotation.h"

#include <fmt/format.h>

#include <cmath>

#include "formats/error.h"

namespace llmq::quant {
namespace {

bool is_prime(int64_t n) {
  if (n < 2) return false;
  for (int64_t d = 2; d * d <= n; ++d) {
    if (n % d == 0) return false;
  }
  return true;
}

/// 1 for squares modulo the prime q, −1 for others, 0 for multiples of q.
int8_t quadratic_character(int64_t a, int64_t q) {
  const int64_t value = (a % q + q) % q;
  if (value == 0) return 0;
  for (int64_t x = 1; x <= q / 2; ++x) {
    if (x * x % q == value) return 1;
  }
  return -1;
}

/// The matrix C of order q + 1 with zeros on its diagonal and C·Cᵀ = q·1: symmetric where q is 1
/// modulo 4, antisymmetric where it is 3.
std::vector<int8_t> conference_matrix(int64_t q) {
  const int64_t n = q + 1;
  const int8_t sign = q % 4 == 1 ? 1 : -1;
  std::vector<int8_t> matrix(static_cast<size_t>(n * n), 0);
  for (int64_t i = 1; i < n; ++i) {
    matrix[static_cast<size_t>(i)] = 1;
    matrix[static_cast<size_t>(i * n)] = sign;
    for (int64_t j = 1; j < n; ++j)
      matrix[static_cast<size_t>(i * n + j)] = quadratic_character(i - j, q);
  }
  return matrix;
}

/// Paley's first construction: C + 1 of order q + 1, q a prime of 3 modulo 4.
std::vector<int8_t> paley_first(int64_t n) {
  std::vector<int8_t> matrix = conference_matrix(n - 1);
  for (int64_t i = 0; i < n; ++i) matrix[static_cast<size_t>(i * n + i)] = 1;
  return matrix;
}

/// Paley's second construction of order 2(q + 1), q a prime of 1 modulo 4: entries of C become
/// ±[1 1; 1 −1], its zeros [1 −1; −1 −1].
std::vector<int8_t> paley_second(int64_t n) {
  const int64_t half = n / 2;
  const std::vector<int8_t> conference = conference_matrix(half - 1);
  std::vector<int8_t> matrix(static_cast<size_t>(n * n));
  for (int64_t i = 0; i < half; ++i) {
    for (int64_t j = 0; j < half; ++j) {
      const int8_t c = conference[static_cast<size_t>(i * half + j)];
      const auto at = [&](int64_t a, int64_t b) -> int8_t& {
        return matrix[static_cast<size_t>((2 * i + a) * n + 2 * j + b)];
      };
      at(0, 0) = c == 0 ? int8_t{1} : c;
      at(0, 1) = c == 0 ? int8_t{-1} : c;
      at(1, 0) = c == 0 ? int8_t{-1} : c;
      at(1, 1) = c == 0 ? int8_t{-1} : static_cast<int8_t>(-c);
    }
  }
  return matrix;
}

/// A Hadamard matrix of order n that is no power of two; empty where neither construction has one.
std::vector<int8_t> paley_matrix(int64_t n) {
  if (n % 4 != 0) return {};
  if (is_prime(n - 1) && (n - 1) % 4 == 3) return paley_first(n);
  if (is_prime(n / 2 - 1) && (n / 2 - 1) % 4 == 1) return paley_second(n);
  return {};
}

/// splitmix64.
uint64_t next_random(uint64_t& state) {
  state += 0x9e3779b97f4a7c15ULL;
  uint64_t z = state;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
  return z ^ (z >> 31);
}

/// x ← x·S without the factor, n a power of two.
void walsh_hadamard(double* x, int64_t n) {
  for (int64_t half = 1; half < n; half *= 2) {
    for (int64_t begin = 0; begin < n; begin += 2 * half) {
      for (int64_t i = begin; i < begin + half; ++i) {
        const double a = x[i];
        const double b = x[i + half];
        x[i] = a + b;
        x[i + half] = a - b;
      }
    }
  }
}

}  // namespace

Rotation Rotation::hadamard(int64_t n, uint64_t seed) {
  if (n < 1) {
    throw formats::Error(formats::ErrorCode::kInternal,
                         fmt::format("no rotation of {} channels", n));
  }
  Rotation rotation;
  rotation.n_ = n;
  int64_t power = 1;
  while (n % (2 * power) == 0) power *= 2;
  rotation.power_ = power;
  rotation.order_ = n / power;
  if (rotation.order_ > 1) {
    for (int64_t factor = 4; factor <= power && factor <= 16; factor *= 2) {
      std::vector<int8_t> paley = paley_matrix(rotation.order_ * factor);
      if (paley.empty()) continue;
      rotation.paley_ = std::move(paley);
      rotation.order_ *= factor;
      rotation.power_ /= factor;
      break;
    }
  }
  rotation.signs_.resize(static_cast<size_t>(n));
  uint64_t state = seed;
  for (double& sign : rotation.signs_) sign = (next_random(state) >> 63) != 0 ? -1.0 : 1.0;
  return rotation;
}

Rotation Rotation::dense(std::vector<double> matrix, int64_t n) {
  if (n < 0 || matrix.size() != static_cast<size_t>(n * n)) {
    throw formats::Error(formats::ErrorCode::kInternal,
                         fmt::format("{} elements make no rotation of {}", matrix.size(), n));
  }
  Rotation rotation;
  rotation.n_ = n;
  rotation.dense_ = std::move(matrix);
  return rotation;
}

void Rotation::apply_row(float* row) const {
  const auto n = static_cast<size_t>(n_);
  std::vector<double> x(row, row + n_);
  if (!dense_.empty()) {
    std::vector<double> y(n, 0.0);
    for (size_t i = 0; i < n; ++i) {
      for (size_t j = 0; j < n; ++j) y[j] += x[i] * dense_[i * n + j];
    }
    for (size_t j = 0; j < n; ++j) row[j] = static_cast<float>(y[j]);
    return;
  }
  for (size_t i = 0; i < n; ++i) x[i] *= signs_[i];
  for (int64_t block = 0; block < order_; ++block)
    walsh_hadamard(x.data() + block * power_, power_);
  double norm = static_cast<double>(power_);
  if (!paley_.empty()) {
    norm *= static_cast<double>(order_);
    std::vector<double> y(n, 0.0);
    for (int64_t i = 0; i < order_; ++i) {
      for (int64_t j = 0; j < order_; ++j) {
        const double sign = paley_[static_cast<size_t>(i * order_ + j)];
        for (int64_t p = 0; p < power_; ++p)
          y[static_cast<size_t>(j * power_ + p)] += sign * x[static_cast<size_t>(i * power_ + p)];
      }
    }
    x = std::move(y);
  }
  const double scale = 1.0 / std::sqrt(norm);
  for (size_t i = 0; i < n; ++i) row[i] = static_cast<float>(x[i] * scale);
}

void Rotation::apply_rows(const MatrixF32& rows, ThreadTeam& team) const {
  if (rows.n_cols != n_) {
    throw formats::Error(formats::ErrorCode::kInternal,
                         fmt::format("rows of {} rotated by {}", rows.n_cols, n_));
  }
  team.parallel_for(rows.n_rows,
                    [&](int64_t row, int) { apply_row(rows.data + row * rows.row_stride); });
}

}  // namespace llmq::quant
