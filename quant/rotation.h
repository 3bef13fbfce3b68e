#pragma once

#include <cstdint>
#include <vector>

#include "quant/kernels/gemm_f32/matrix_f32.h"
#include "quant/kernels/thread_team.h"

namespace llmq::quant {

/// An orthogonal matrix R [n, n] for rotating activations, so that their outliers spread over all
/// channels (QuaRot, arXiv 2404.00456). Immutable; thread-safe.
class Rotation {
 public:
  /// The identity of no channels.
  Rotation() = default;

  /// A randomized Hadamard matrix: diag(±1)·(M ⊗ S) / √n, S the Sylvester matrix of a power of two
  /// and M one of Paley's (or [1]). Where no such pair makes n, M is the identity: blocks of the
  /// largest power of two that divides n are rotated on their own. Signs follow from `seed`.
  static Rotation hadamard(int64_t n, uint64_t seed);

  /// Any orthogonal matrix, [n, n] row-major.
  static Rotation dense(std::vector<double> matrix, int64_t n);

  [[nodiscard]] int64_t n() const { return n_; }

  /// x ← x·R for every row x of `rows` [m, n], in float64 with a fixed order of sums. Throws
  /// Error{kInternal} for other columns.
  void apply_rows(const MatrixF32& rows, ThreadTeam& team) const;

  /// The same for one row; `row` has n elements. May be called from several threads.
  void apply_row(float* row) const;

 private:
  int64_t n_ = 0;
  int64_t power_ = 1;          // order of S
  int64_t order_ = 1;          // order of M, n = order · power
  std::vector<double> signs_;  // [n]
  std::vector<int8_t> paley_;  // [order, order] of ±1; empty for the identity
  std::vector<double> dense_;  // [n, n] instead of all that
};

}  // namespace llmq::quant
