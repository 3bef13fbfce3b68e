#pragma once

#include <cstdint>
#include <vector>

#include "quant/kernels/gemm_f32/matrix_f32.h"
#include "quant/kernels/thread_team.h"

namespace llmq::quant {

/// Σ x·xᵀ over the rows x of activations.
struct Gram {
  int64_t k = 0;
  int64_t n_rows = 0;          ///< rows summed
  std::vector<double> values;  ///< [k, k] row-major, symmetric
};

/// Accumulates a Gram matrix batch by batch: each batch is a float32 product in the canonical order
/// of gemm_f32, batches are added in float64 in their order. The result depends on the rows and
/// their division into batches, never on threads or instruction set. Not thread-safe; work is
/// divided over the team.
class GramObserver {
 public:
  /// Adds one batch x [m, k]; the first decides k. Throws Error{kInternal} for another k.
  void observe(const ConstMatrixF32& x, ThreadTeam& team);

  /// The sum so far, mirrored to both triangles.
  [[nodiscard]] Gram gram() const;

 private:
  Gram sum_;                       // upper blocks only
  std::vector<float> transposed_;  // [k, m] of a batch
  std::vector<float> product_;     // [rows of a block, k]
};

}  // namespace llmq::quant
