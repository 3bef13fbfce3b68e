#include "quant/distortion.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace llmq::quant {
namespace {

double share(int64_t part, int64_t whole) {
  return whole == 0 ? 0.0 : static_cast<double>(part) / static_cast<double>(whole);
}

}  // namespace

void Distortion::add(const RoundingSums& sums, int64_t n_elements) {
  merge({n_elements, sums.sum_squares, sums.sum_squared_errors, sums.max_abs_error, sums.n_clipped,
         sums.n_zeros});
}

void Distortion::merge(const Distortion& other) {
  n += other.n;
  sum_squares += other.sum_squares;
  sum_squared_errors += other.sum_squared_errors;
  max_abs_error = std::max(max_abs_error, other.max_abs_error);
  n_clipped += other.n_clipped;
  n_zeros += other.n_zeros;
}

double Distortion::sqnr_db() const {
  if (!std::isfinite(sum_squares) || !std::isfinite(sum_squared_errors)) {
    return std::numeric_limits<double>::quiet_NaN();
  }
  if (sum_squared_errors == 0.0) return std::numeric_limits<double>::infinity();
  return 10.0 * std::log10(sum_squares / sum_squared_errors);
}

double Distortion::clipped_share() const {
  return share(n_clipped, n);
}

double Distortion::zero_share() const {
  return share(n_zeros, n);
}

}  // namespace llmq::quant
