#pragma once

#include <cstdint>

#include "quant/kernels/isa.h"

/// Products of attention with keys and values that are stored as int8 codes: exact int32 sums of
/// 16-bit by 8-bit integers, and what turns floats into such integers and sums into floats by one
/// rounded float32 operation after the other. The bits do not depend on the instruction set.
/// Single-threaded; callers divide heads and positions over threads. Free of library code, because
/// files compiled for one instruction set include it.
///
/// Codes lie in the order in which they are multiplied. Of d lanes, d2 = ⌈d / 2⌉ pairs:
/// - keys in groups of 16 positions, [group, d2, 16, 2]: a line of 32 bytes holds two lanes of 16
///   keys, so that a product of one pair of query lanes gives 16 scores;
/// - values in pairs of positions, [pair, 2·d2, 2]: 32 bytes hold 16 lanes of two values.
/// What pads d, a group or a pair may be any codes where it meets zeros, or sums nobody reads.
namespace llmq::quant {

inline constexpr int64_t kKeysPerGroup = 16;
/// Weights whose rounding hands on what it left over: each to the next of its lane.
inline constexpr int64_t kWeightLanes = 16;

/// Offset of the codes of lane `lane` (even) and the next one of key `position` behind the first.
constexpr int64_t key_code_offset(int64_t position, int64_t lane, int64_t n_lane_pairs) {
  return ((position / kKeysPerGroup * n_lane_pairs + lane / 2) * kKeysPerGroup +
          position % kKeysPerGroup) *
             2 +
         lane % 2;
}

/// Offset of the code of a lane of value `position` behind the first.
constexpr int64_t value_code_offset(int64_t position, int64_t lane, int64_t n_lane_pairs) {
  return (position / 2 * (2 * n_lane_pairs) + lane) * 2 + position % 2;
}

/// sums[i, j] = Σ_l queries[i, l] · keys[j, l] modulo 2^32.
struct KeySumsTask {
  const int16_t* queries = nullptr;  ///< [m, 2 · n_lane_pairs]
  int64_t query_stride = 0;          ///< elements between queries
  int64_t m = 0;
  int64_t n_lane_pairs = 0;
  const int8_t* keys = nullptr;  ///< [n_groups, n_lane_pairs, 16, 2]
  int64_t n_groups = 0;
  /// Codes that are read after these and are fetched meanwhile, or others: not null, never read.
  const int8_t* next = nullptr;
  int32_t* sums = nullptr;  ///< [m, 16 · n_groups], overwritten
  int64_t sums_stride = 0;  ///< elements between rows of sums
};

/// sums[i, l] += Σ_j weights[i, j] · values[j, l] modulo 2^32.
struct ValueSumsTask {
  const int16_t* weights = nullptr;  ///< [m, 2 · n_position_pairs]
  int64_t weight_stride = 0;         ///< elements between rows of weights
  int64_t m = 0;
  int64_t n_position_pairs = 0;
  const int8_t* values = nullptr;  ///< [n_position_pairs, 2 · n_lane_pairs, 2]
  int64_t n_lane_pairs = 0;
  const int8_t* next = nullptr;  ///< as that of KeySumsTask
  int32_t* sums = nullptr;       ///< [m, 2 · n_lane_pairs], updated
  int64_t sums_stride = 0;       ///< elements between rows of sums
};

/// scores[i, j] = float(sums[i, j] − offset[i]) · factor[i]. No difference leaves int32.
struct ScoresTask {
  const int32_t* sums = nullptr;  ///< [m, n]
  int64_t sums_stride = 0;        ///< elements between rows of sums
  int64_t m = 0;
  int64_t n = 0;
  const int32_t* offset = nullptr;  ///< [m]
  const float* factor = nullptr;    ///< [m]
  float* scores = nullptr;          ///< [m, n], overwritten
  int64_t scores_stride = 0;        ///< elements between rows of scores
};

/// Weights of softmax as integers, for every row: code[i] = min(rint(w[i]·steps + left), steps), 0
/// where w[i] is not above 0. With `carries`, `left` is what rounding left over of the weight above
/// 0 before it in lane i mod 16 (exact − code), so that many small weights keep their sum; else it
/// is 0.
struct WeightCodesTask {
  const float* weights = nullptr;  ///< [m, n], at most 1
  int64_t weights_stride = 0;      ///< elements between rows of weights
  int64_t m = 0;
  int64_t n = 0;       ///< at most 2^16
  float steps = 0.0F;  ///< at most 32767
  bool carries = false;
  int16_t* codes = nullptr;  ///< [m, n], overwritten
  int64_t codes_stride = 0;  ///< elements between rows of codes
  int32_t* sums = nullptr;   ///< [m], overwritten by the sums of the rows' codes
};

/// The operations for one instruction set.
struct CodeSumsKernels {
  Isa isa = Isa::kScalar;  ///< of this implementation
  void (*key_sums)(const KeySumsTask& task) = nullptr;
  void (*value_sums)(const ValueSumsTask& task) = nullptr;
  void (*scores)(const ScoresTask& task) = nullptr;
  void (*weight_codes)(const WeightCodesTask& task) = nullptr;
};

/// The table for `isa`: kAvx2 serves kAvxVnni, kAvx512Vnni serves kAmx. `isa` must be supported by
/// this machine for the operations to be called. Thread safe.
const CodeSumsKernels& code_sums_kernels(Isa isa);

/// The tables behind code_sums_kernels.
extern const CodeSumsKernels kCodeSumsScalar;
extern const CodeSumsKernels kCodeSumsAvx2;
extern const CodeSumsKernels kCodeSumsAvx512Vnni;

}  // namespace llmq::quant
