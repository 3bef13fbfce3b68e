#pragma once

#include <cstdint>

#include "quant/kernels/rounding/rounding.h"

namespace llmq::quant {

/// What quantization did to a set of values x that came back as x̂. Parts are combined with add and
/// merge; sums are double, so the result depends on the order of the parts in its last bits:
/// callers keep a fixed one. Not thread safe.
struct Distortion {
  int64_t n = 0;                    ///< values
  double sum_squares = 0.0;         ///< Σ x²
  double sum_squared_errors = 0.0;  ///< Σ (x − x̂)²
  float max_abs_error = 0.0F;       ///< max |x − x̂|
  int64_t n_clipped = 0;            ///< values that lay outside the codes
  int64_t n_zeros = 0;              ///< values whose code stands for zero

  /// Adds a row, or a part of one, of n_elements values.
  void add(const RoundingSums& sums, int64_t n_elements);

  /// Adds the values of another set.
  void merge(const Distortion& other);

  /// Signal to quantization noise ratio, 10·log10(Σx² / Σ(x − x̂)²), in dB. +inf where nothing was
  /// lost (also for a set that is empty or all zero), −inf where errors stand against a zero
  /// signal, NaN where either sum is infinite or NaN.
  [[nodiscard]] double sqnr_db() const;

  /// n_clipped / n, in [0, 1]; 0 for an empty set.
  [[nodiscard]] double clipped_share() const;

  /// n_zeros / n, in [0, 1]; 0 for an empty set.
  [[nodiscard]] double zero_share() const;
};

}  // namespace llmq::quant
