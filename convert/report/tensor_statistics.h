#pragma once

#include <cstdint>
#include <optional>

#include "formats/checkpoint.h"

namespace llmq::convert {

/// What the values of a tensor look like. Values that are not finite are counted and left out.
struct TensorStatistics {
  double min = 0;
  double max = 0;
  double mean = 0;
  double deviation = 0;   ///< standard deviation
  double zero_share = 0;  ///< in [0, 1]
  int64_t n_non_finite = 0;
  /// Order-0 entropy of byte codes in bits per code; only for I8 and U8.
  std::optional<double> entropy_bits;
};

/// Reads every value once, in float64. FP8 tensors give zeros. Thread-safe.
TensorStatistics tensor_statistics(const formats::StoredTensor& tensor);

}  // namespace llmq::convert
