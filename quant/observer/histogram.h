#pragma once

#include <cstdint>
#include <span>

#include "quant/kernels/gemm_f32/matrix_f32.h"
#include "quant/kernels/thread_team.h"
#include "quant/observer/range_observer.h"

namespace llmq::quant {

/// Histogram of x [m, k], not empty, whose values are finite and lie in [min, max] with max − min
/// finite. Bin = trunc((x − min) / (max − min) · kHistogramBins) in float32, at most the last.
Histogram make_histogram(const ConstMatrixF32& x, float min, float max, ThreadTeam& team);

/// Adds the counts of `earlier` to `later`, whose range contains that of `earlier`. Bins are
/// spread by cutting each into 16 equal parts that hold equal shares; every part goes to the bin
/// that contains its middle.
void add_histogram(const Histogram& earlier, Histogram& later);

/// Bins of a histogram that are quantized without clipping.
struct BinWindow {
  int first = 0;
  int last = kHistogramBins - 1;  ///< inclusive
};

/// Expected squared error, summed over all values and in units of the squared bin width, of
/// quantizing to 256 levels spread over `window`: level i stands for the middle of the i-th of 256
/// equal parts, values are spread evenly within their bin, and what lies outside goes to the first
/// or last level. `counts` [kHistogramBins].
double quantization_error(std::span<const double> counts, const BinWindow& window);

/// The window that PyTorch's histogram observer would search out: starting with all bins, quantiles
/// of 10⁻⁵ are given up on the side where that frees more bins, as long as quantization_error does
/// not grow. The first step is taken unseen. `counts` [kHistogramBins], not negative, not all zero.
BinWindow search_window(std::span<const double> counts);

}  // namespace llmq::quant
