#pragma once

#include <cstdint>
#include <vector>

#include "formats/dtype.h"
#include "quant/kernels/gemm_f32/matrix_f32.h"

namespace llmq::quant {

/// Keys and values of one layer.
struct KvHeads {
  int64_t n_kv_heads = 0;
  int64_t head_dim = 0;
  /// Lanes of a head that RoPE turns, even: pair i is lanes (i, i + rotary_dim/2). Lanes from here
  /// on stay as they are.
  int64_t rotary_dim = 0;
};

/// What the scales of an int8 KV cache are derived from. All [n_kv_heads · head_dim].
struct KvStatistics {
  int64_t n_rows = 0;  ///< tokens observed
  /// Largest magnitude that a lane of K can reach at any position: of a lane that RoPE turns, the
  /// largest length ‖(k_i, k_{i+rotary_dim/2})‖ of its pair (√ of a sum of float64 squares, rounded
  /// to float32), which no rotation changes; of another lane its largest |k|.
  std::vector<float> key_bound;
  std::vector<float> value_bound;  ///< largest |v|
};

/// Gathers KvStatistics over batches. They do not depend on the order of rows or batches. Not
/// thread safe.
class KvObserver {
 public:
  /// Throws Error{kInternal} for extents that are not positive, a rotary_dim that is odd or above
  /// head_dim.
  explicit KvObserver(const KvHeads& heads);

  /// Adds rows k (after head norms and RoPE) and v, both [n_rows, n_kv_heads · head_dim]. Throws
  /// Error{kInternal} for other extents; Error{kBadInput} naming row and lane of the first element
  /// that is NaN or infinite, the statistics are those before the call then.
  void observe(const ConstMatrixF32& k, const ConstMatrixF32& v);

  [[nodiscard]] KvStatistics statistics() const;

 private:
  KvHeads heads_;
  int64_t n_rows_ = 0;
  std::vector<double> key_squares_;  // [n_kv_heads · head_dim], of pairs in both of their lanes
  std::vector<float> value_bound_;
};

/// Scales of an int8 KV cache (C8), symmetric: their offsets are 0. [n_kv_heads · head_dim], values
/// of the dtype that was asked for.
struct KvCacheScales {
  std::vector<float> key;    ///< both lanes of a RoPE pair share one
  std::vector<float> value;  ///< one per lane
};

/// Scale of codes within ±127 for magnitudes up to `bound`: bound / 127, at least kScaleFloor,
/// rounded to `dtype` (F32, F16 or BF16) to nearest even; where that would give `bound` a code
/// above 127, the next value of the dtype. Throws as round_scale_to.
float symmetric_scale(float bound, formats::DType dtype);

/// symmetric_scale of every lane's bound. Since the bound of K is that of the pair, the scales hold
/// at positions far beyond those that were observed. Throws Error{kBadInput} where nothing was
/// observed, and as round_scale_to.
KvCacheScales kv_cache_scales(const KvStatistics& statistics, formats::DType dtype);

}  // namespace llmq::quant
