#pragma once

#include <cstdint>
#include <span>
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
  /// [rotary_dim/2] radians per position of each pair (RoPE's frequencies), and how many positions
  /// the model is good for. Empty: pairs may come to stand at any angle.
  std::vector<float> inv_freq = {};
  int64_t max_positions = 0;
};

/// Keys and values of some tokens.
struct KvBatch {
  ConstMatrixF32 k;  ///< [n_rows, n_kv_heads · head_dim], after head norms and RoPE
  ConstMatrixF32 v;  ///< of the same extents
  /// [n_rows] positions of the tokens; may be empty where KvHeads::inv_freq is.
  std::span<const int64_t> positions = {};
};

/// What the scales of an int8 KV cache are derived from. All [n_kv_heads · head_dim].
struct KvStatistics {
  int64_t n_rows = 0;  ///< tokens observed
  /// Least and largest value that each lane of K takes when the tokens that were observed stand at
  /// any other position that the model is good for. A pair that can make a full turn there reaches
  /// ± its length ‖(k_i, k_{i+rotary_dim/2})‖ in both lanes; a slower one the arc from where it
  /// stands at position 0 to where it stands at the last one. Never above or below 0 alone.
  std::vector<float> key_min;
  std::vector<float> key_max;
  std::vector<float> value_bound;  ///< largest |v|
};

/// Gathers KvStatistics over batches. They do not depend on the order of rows or batches. Not
/// thread safe.
class KvObserver {
 public:
  /// Throws Error{kInternal} for extents that are not positive, a rotary_dim that is odd or above
  /// head_dim, or another number of frequencies.
  explicit KvObserver(KvHeads heads);

  /// Adds rows. Throws Error{kInternal} for other extents; Error{kBadInput} naming row and lane of
  /// the first element that is NaN or infinite, the statistics are those before the call then.
  void observe(const KvBatch& batch);

  [[nodiscard]] KvStatistics statistics() const;

 private:
  void observe_pair(double a, double b, size_t lane, double angle);
  [[nodiscard]] bool turns_fully(int64_t pair) const;

  KvHeads heads_;
  int64_t n_rows_ = 0;
  // [n_kv_heads · head_dim]; of a pair that turns fully, its squared length in key_max_.
  std::vector<double> key_min_;
  std::vector<double> key_max_;
  std::vector<float> value_bound_;
};

/// How the lanes of an int8 KV cache (C8) become codes: rint(x / scale + offset), within −128..127.
/// Each [n_kv_heads · head_dim], scales values of the dtype that was asked for, offsets whole
/// numbers within −128..127.
struct KvCacheScales {
  std::vector<float> key;
  std::vector<float> key_offset;
  std::vector<float> value;  ///< symmetric: offsets are 0
};

/// Scale of codes within ±127 for magnitudes up to `bound`: bound / 127, at least kScaleFloor,
/// rounded to `dtype` (F32, F16 or BF16) to nearest even; where that would give `bound` a code
/// above 127, the next value of the dtype. Throws as round_scale_to.
float symmetric_scale(float bound, formats::DType dtype);

/// Values: symmetric_scale of each lane's bound. Keys: the same, one for both lanes of a pair that
/// can make a full turn, so that the scales hold at positions far beyond those that were observed
/// (per lane ranges do not: slow pairs turn on, and clip). Lanes of pairs that cannot, and those
/// that do not turn, get the 256 codes from key_min to key_max where these steps are finer. Throws
/// Error{kBadInput} where nothing was observed, and as round_scale_to.
KvCacheScales kv_cache_scales(const KvStatistics& statistics, formats::DType dtype);

}  // namespace llmq::quant
