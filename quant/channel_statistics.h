#pragma once

#include <cstdint>
#include <vector>

#include "quant/kernels/gemm_f32/matrix_f32.h"

namespace llmq::quant {

/// What each channel of a linear's inputs held in calibration.
struct ChannelStatistics {
  int64_t k = 0;
  int64_t n_rows = 0;
  std::vector<float> min;        ///< [k]
  std::vector<float> max;        ///< [k]
  std::vector<double> mean_abs;  ///< [k] mean of |x|
  int64_t n_kept = 0;            ///< rows kept
  std::vector<float> kept;       ///< [n_kept, k] some rows, evenly spread over all

  /// max |x| of a channel.
  [[nodiscard]] float absmax(int64_t channel) const;
};

/// Gathers ChannelStatistics over batches. They depend on the rows in their order alone. Not
/// thread-safe.
class ChannelObserver {
 public:
  /// Keeps between n_keep and 2·n_keep rows where there are as many.
  explicit ChannelObserver(int64_t n_keep = 64) : n_keep_(n_keep) {}

  /// Adds a batch x [m, k]; the first decides k. Throws Error{kBadInput} naming row and channel of
  /// a value that is NaN or infinite.
  void observe(const ConstMatrixF32& x);

  [[nodiscard]] ChannelStatistics statistics() const;

 private:
  void keep(const float* row);

  int64_t n_keep_;
  int64_t step_ = 1;       // every step_-th row is kept
  ChannelStatistics sum_;  // mean_abs holds sums
};

}  // namespace llmq::quant
