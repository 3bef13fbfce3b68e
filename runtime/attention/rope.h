#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "formats/model_config.h"

namespace llmq::runtime {

/// Rotation speeds of the rotary position embedding (RoPE, arXiv 2104.09864) of one model, its
/// scaling applied. Pair i of a head is (x[i], x[i + rotary_dim/2]), the half-rotated layout of
/// Hugging Face checkpoints.
struct RopeFrequencies {
  /// [rotary_dim/2] radians per position, rounded to float32 as the reference implementations do.
  std::vector<float> inv_freq;
  /// Factor on every cosine and sine (YaRN's temperature), 1 for the other kinds.
  double attention_factor = 1.0;

  [[nodiscard]] int64_t rotary_dim() const { return static_cast<int64_t>(inv_freq.size()) * 2; }
};

/// Frequencies of a configuration: plain, linear (arXiv 2306.15595), llama3 and yarn (arXiv
/// 2309.00071; the ramp is taken from original_max_position_embeddings, max_position_embeddings
/// where that is absent; attention_factor replaces the formula). Only the first
/// head_dim·partial_rotary_factor lanes of a head rotate.
///
/// Throws Error{kBadInput} for the kinds dynamic and longrope, whose frequencies depend on the
/// length of a sequence, and for an odd number of rotating lanes.
RopeFrequencies rope_frequencies(const formats::ModelConfig& config);

/// Positions the configuration is good for. Plain, llama3: max_position_embeddings. linear, yarn:
/// the original length (original_max_position_embeddings where given, else
/// max_position_embeddings) times factor, as serving engines have it; but never fewer than
/// max_position_embeddings, because some files state the extended length there.
int64_t max_positions(const formats::ModelConfig& config);

/// Cosines and sines of some rows' positions, shared by all layers and heads.
class RopeTable {
 public:
  explicit RopeTable(RopeFrequencies frequencies) : frequencies_(std::move(frequencies)) {}

  /// Fills the table for rows at `positions`. Angles are float64 products position · inv_freq,
  /// never recurrences, so that rows near position 1,000,000 are as exact as the first ones.
  void set_positions(std::span<const int64_t> positions);

  /// Rotates the first rotary_dim lanes of each of `n_heads` consecutive heads of `head_dim` floats
  /// by the angles of `row` (an index into the positions that were set).
  void rotate(int64_t row, float* heads, int64_t n_heads, int64_t head_dim) const;

  /// [rotary_dim/2] cosines (sines) of `row`, attention_factor multiplied in.
  [[nodiscard]] std::span<const float> cosines(int64_t row) const;
  [[nodiscard]] std::span<const float> sines(int64_t row) const;

  [[nodiscard]] const RopeFrequencies& frequencies() const { return frequencies_; }

 private:
  RopeFrequencies frequencies_;
  std::vector<float> cos_;  // [n_rows, rotary_dim/2]
  std::vector<float> sin_;
};

}  // namespace llmq::runtime
