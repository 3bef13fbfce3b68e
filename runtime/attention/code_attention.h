#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "runtime/attention/kv_cache.h"

namespace llmq::runtime {

/// Where a head's codes are, and how they are meant.
struct CodeHead {
  const KvCache* cache = nullptr;  ///< of DType::kI8
  int64_t layer = 0;
  int64_t kv_head = 0;
  const FaScales* fa = nullptr;  ///< of quantized attention; null for float queries over codes (C8)
};

/// Consecutive positions.
struct PositionRange {
  int64_t first = 0;
  int64_t n = 0;
};

/// Scores and weighted values of keys and values that are stored as int8 codes, in integers: the
/// codes are multiplied as they are, and only sums become floats. Holds the queries of one thread's
/// tile and its scratch. Not thread-safe. What a query gets depends on it and the codes alone.
///
/// Quantized attention (FAQuant) has queries as codes already; a score is Σ (q − o_q)(k − o_k),
/// times s_q·s_k/√d, and weights are rint(127·p).
///
/// C8 has float queries. With the keys' scales multiplied into a query, t = q·s_k, it is rounded to
/// Q = rint(t/σ), σ = max |t| / 32767: 16 bits, of which bfloat16 would keep 8. A score is
/// (Σ Q·k − Σ Q·o_k)·σ/√d. Weights are P = rint(32767·p + r), where r is what rounding left over of
/// the weight sixteen keys before: a long tail of weights below half a step keeps its sum.
///
/// No sum overflows: 32767·128·256 lanes and 32767·128·512 keys are below 2^31.
class CodeAttention {
 public:
  static constexpr int64_t kMaxLanes = 256;
  static constexpr int64_t kMaxPositions = 512;  ///< of one call

  /// Takes queries [n_rows, head_dim]; row r is of query head kv_head·group + r mod group. They are
  /// copied.
  void take_queries(const CodeHead& head, std::span<const float> queries, int64_t group);

  /// Scores of keys at `positions` into scores[row · stride ...].
  void score(const CodeHead& head, const PositionRange& positions, float* scores, int64_t stride);

  /// mix[row, lane] = Σ weight · value over `positions`. weights[row · stride ...] are from 0 to 1,
  /// and exactly 0 for keys that a row does not read. mix is [n_rows, head_dim], overwritten.
  void mix(const CodeHead& head, const PositionRange& positions, const float* weights,
           int64_t stride, float* mix);

 private:
  /// Weights of the pairs of positions of a page: a row begins at an even slot and ends with a
  /// pair.
  struct PairWeights {
    const int16_t* data;
    int64_t stride;
  };

  static constexpr int64_t kWeightStride = kMaxPositions + 2;

  /// Those of `part` of `positions`, which begins at `slot` of its page; valid until the next call.
  PairWeights pair_weights(const PositionRange& positions, const PositionRange& part, int64_t slot);
  void encode_float(const CodeHead& head, std::span<const float> query, int64_t row);
  void encode_codes(const CodeHead& head, std::span<const float> query, int64_t row, int64_t group);
  void write_mix(const quant::LaneParams& lanes, float steps, float* mix);

  int64_t n_rows_ = 0;
  int64_t n_lane_pairs_ = 0;
  std::vector<int16_t> queries_;      // [n_rows, 2 · n_lane_pairs]
  std::vector<float> factors_;        // [n_rows], of sums
  std::vector<int32_t> offset_sums_;  // [n_rows], Σ Q·o_k
  std::vector<int32_t> key_sums_;
  std::vector<int16_t> weights_;  // [n_rows, kWeightStride]
  std::vector<int16_t>
      page_weights_;                 // those of one page, where its pairs are not pairs of weights_
  std::vector<int32_t> value_sums_;  // [n_rows, 2 · n_lane_pairs]
  std::vector<int32_t> weight_sums_;  // [n_rows]
};

}  // namespace llmq::runtime
