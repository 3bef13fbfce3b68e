#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "quant/kernels/gemm_f32/matrix_f32.h"
#include "quant/kernels/thread_team.h"

namespace llmq::quant {

/// How the range of a static activation quantizer is decided; the values are those of
/// `-act_method`.
enum class ActMethod : uint8_t {
  kMinMax = 1,     ///< everything that was observed
  kHistogram = 2,  ///< the window of a histogram that loses least, rare outliers clipped
  kAutomatic = 3   ///< kHistogram where max_over_std() <= kMaxOverStdForHistogram, else kMinMax
};

inline constexpr int kHistogramBins = 2048;
inline constexpr double kMaxOverStdForHistogram = 50.0;

/// Counts of values in kHistogramBins bins of equal width from min to max; the last bin includes
/// max. Counts are fractions where bins of an earlier, narrower range were spread over these; their
/// total is the number of values. min = max: all values are equal and counted in the first bin.
struct Histogram {
  float min = 0.0F;
  float max = 0.0F;
  std::vector<double> counts;  ///< [kHistogramBins]
};

/// Sufficient statistics of the activations that one fused group of linears reads.
struct RangeStatistics {
  int64_t n = 0;           ///< values observed; where it is 0, so is all the rest
  float min = 0.0F;        ///< smallest value, never −0
  float max = 0.0F;        ///< largest value, never −0
  double mean = 0.0;       ///< of the values
  double deviation = 0.0;  ///< standard deviation, √(Σ(x − mean)² / n)
  std::optional<Histogram> histogram = std::nullopt;  ///< over [min, max], where asked for

  /// max |x|.
  [[nodiscard]] float absmax() const;

  /// max |x| / deviation, the measure of how hard a layer is to quantize: 0 where every value is
  /// zero, +inf where every value is the same other number.
  [[nodiscard]] double max_over_std() const;
};

/// Accumulates RangeStatistics over batches. The statistics depend on the values and the order of
/// the batches, never on the number of threads or the instruction set; the histogram and the
/// extremes do not depend on the order of rows in a batch either. Not thread safe.
class RangeObserver {
 public:
  /// A histogram is only kept `with_histogram`: it costs a second pass over every batch.
  explicit RangeObserver(bool with_histogram);

  /// Adds one batch x [m, k]; one without elements changes nothing. Throws Error{kBadInput} that
  /// names row and column of the first value that is NaN or infinite, or where a histogram's range
  /// max − min exceeds float32; the statistics are then those before the call.
  void observe(const ConstMatrixF32& x, ThreadTeam& team);

  /// The statistics of all batches so far.
  [[nodiscard]] RangeStatistics statistics() const;

 private:
  float min_ = 0.0F;
  float max_ = 0.0F;
  int64_t n_ = 0;
  double sum_ = 0.0;
  double sum_squares_ = 0.0;
  std::optional<Histogram> histogram_;
};

/// What a method decided.
struct ActivationRange {
  float min = 0.0F;
  float max = 0.0F;
  ActMethod chosen = ActMethod::kMinMax;  ///< kMinMax or kHistogram
};

/// The range that `method` decides on for 8-bit codes: finite, min <= max, not yet widened to
/// contain 0. `symmetric` widens it to [−a, a], a = max(|min|, |max|) of what the method found.
/// Throws Error{kBadInput} where nothing was observed, Error{kInternal} where the method needs a
/// histogram and there is none.
ActivationRange choose_range(const RangeStatistics& statistics, ActMethod method, bool symmetric);

}  // namespace llmq::quant
