#pragma once

#include <cstdint>
#include <vector>

#include "formats/dtype.h"
#include "quant/kernels/gemm_f32/matrix_f32.h"
#include "quant/kernels/thread_team.h"

namespace llmq::quant {

/// Values that a head's codes are to span.
struct HeadWindow {
  float min = 0.0F;
  float max = 0.0F;
};

/// What the scales of quantized attention (FAQuant) are derived from.
struct FaStatistics {
  int64_t n_rows = 0;         ///< tokens observed
  std::vector<HeadWindow> q;  ///< [n_heads]
  std::vector<HeadWindow> k;  ///< [n_kv_heads]
  std::vector<HeadWindow> v;  ///< [n_kv_heads]
};

/// Of a million values of q and k, those that a window may leave out (a ratio of 0.9999); a window
/// of v leaves out none.
inline constexpr int64_t kFaLeftOutPerMillion = 100;

/// The narrowest interval [x[i], x[j]] of `values` (finite, any order, at least one; reordered)
/// that leaves out floor(n · left_out_per_million / 10^6) of the n values: with the values sorted,
/// the smallest x[i + n − 1 − left_out] − x[i] in float32, the lowest i among equal ones.
HeadWindow smallest_window(std::vector<float>& values, int64_t left_out_per_million);

/// Gathers FaStatistics: per batch and head the smallest window of its n_rows · head_dim values,
/// over batches the extremes of the windows' ends. The result depends on how rows are divided into
/// batches, not on the number of threads. Not thread safe.
class FaObserver {
 public:
  /// Throws Error{kInternal} for extents that are not positive.
  FaObserver(int64_t n_heads, int64_t n_kv_heads, int64_t head_dim);

  /// Rows of one batch, as attention uses them (after head norms and RoPE).
  struct Batch {
    ConstMatrixF32 q;  ///< [n_rows, n_heads · head_dim]
    ConstMatrixF32 k;  ///< [n_rows, n_kv_heads · head_dim]
    ConstMatrixF32 v;  ///< [n_rows, n_kv_heads · head_dim]
  };

  /// Adds a batch, heads divided over the team; one without rows changes nothing. Throws
  /// Error{kInternal} for other extents, Error{kBadInput} naming the head where a value is NaN or
  /// infinite; the statistics are those before the call then.
  void observe(const Batch& batch, ThreadTeam& team);

  [[nodiscard]] FaStatistics statistics() const { return statistics_; }

 private:
  int64_t head_dim_;
  FaStatistics statistics_;
};

/// Scales of FAQuant, symmetric: their offsets are 0. Values of the dtype that was asked for.
struct FaHeadScales {
  std::vector<float> q;  ///< [n_heads]
  std::vector<float> k;  ///< [n_kv_heads]
  std::vector<float> v;  ///< [n_kv_heads]
};

/// max(|min|, |max|) / 127 of each head's window, by symmetric_scale (quant/kv_scales.h). Throws
/// Error{kBadInput} where nothing was observed, and as round_scale_to.
FaHeadScales fa_head_scales(const FaStatistics& statistics, formats::DType dtype);

}  // namespace llmq::quant
