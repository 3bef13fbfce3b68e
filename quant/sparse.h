#pragma once

#include <span>

namespace llmq::quant {

/// How the threshold of a sparse row is found. The stored int8 codes lie on a grid of 4 bits for
/// all but the outliers, so that they code in about 3.5 bits.
struct SparseSpec {
  double fraction = 0.011;    ///< share of weights protected as outliers, 0.01 to 0.1
  bool use_sigma = false;     ///< the threshold is sigma_factor deviations, not a share
  double sigma_factor = 3.0;  ///< 3 to 4
  /// Which codes are stored: false ("low-bit"): the float weight re-coded on the chosen scale in 8
  /// bits; true ("co-sparse"): the routine's own codes, in which weights up to the threshold are
  /// coded in 4 bits (within ±7) and only outliers in 8.
  bool co_sparse = false;
};

/// Grid steps from zero to the threshold.
inline constexpr float kSparseSteps = 7.0F;

/// Threshold of one output channel (the vendor's routine is closed; this is our reconstruction of
/// what its options are documented to do): with use_sigma sigma_factor · σ of the row around its
/// mean; otherwise the largest magnitude that leaves ceil(fraction · k) weights above it, so that a
/// narrow row has an outlier, too (unless k is 1). float64
/// sums in order. 0 for a row of zeros. Throws Error{kUsage} for a spec out of range. Thread-safe.
double sparse_threshold(std::span<const float> row, const SparseSpec& spec);

}  // namespace llmq::quant
