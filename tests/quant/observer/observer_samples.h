#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

#include "quant/kernels/gemm_f32/matrix_f32.h"
#include "quant/kernels/thread_team.h"
#include "quant/observer/range_observer.h"

// Activations for tests of the observers, from integers alone; tests/tools/make_observer_goldens.py
// makes the same ones.
namespace llmq::quant::testing {

/// The finalizer of splitmix64.
inline uint64_t mix(uint64_t x) {
  x += 0x9E3779B97F4A7C15U;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9U;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBU;
  return x ^ (x >> 31);
}

/// Value `index` of a distribution: "uniform", "bell" (standard deviation 2.3), "square" (0 to 16),
/// "outliers" and "rare" (bell / 4, one of 1013 or of 50021 values 64 times as large).
inline float sample(uint64_t seed, uint64_t index, const std::string& kind) {
  const uint64_t bits = mix((seed << 32) + index);
  const auto piece = [bits](int i) { return static_cast<int64_t>((bits >> (16 * i)) & 0xFFFF); };
  const auto bell = static_cast<float>(piece(0) + piece(1) + piece(2) + piece(3) - 2 * 0xFFFF);
  if (kind == "uniform") return static_cast<float>(2 * piece(0) - 0xFFFF) * 0x1p-13F;
  if (kind == "bell") return bell * 0x1p-14F;
  if (kind == "square") return static_cast<float>((piece(0) >> 4) * (piece(0) >> 4)) * 0x1p-20F;
  if (kind != "outliers" && kind != "rare") throw std::invalid_argument(kind);
  const uint64_t period = kind == "outliers" ? 1013 : 50021;
  return bell * 0x1p-14F * (index % period == 7 ? 16.0F : 0.25F);
}

/// n >= 2 samples held within [low, high]; the first two are the limits.
inline std::vector<float> samples(uint64_t seed, size_t n, const std::string& kind, float low,
                                  float high) {
  std::vector<float> values(n);
  for (size_t i = 0; i < n; ++i) values[i] = std::clamp(sample(seed, i, kind), low, high);
  values[0] = low;
  values[1] = high;
  return values;
}

/// values as a matrix of n_rows rows.
inline ConstMatrixF32 as_matrix(const std::vector<float>& values, int64_t n_rows) {
  const auto n_cols = static_cast<int64_t>(values.size()) / n_rows;
  return {values.data(), n_rows, n_cols, n_cols};
}

/// Statistics, with a histogram, of batches that are observed one after the other.
inline RangeStatistics observed(const std::vector<std::vector<float>>& batches, int64_t n_rows = 1,
                                int n_threads = 1) {
  ThreadTeam team(n_threads);
  RangeObserver observer(true);
  for (const std::vector<float>& batch : batches) observer.observe(as_matrix(batch, n_rows), team);
  return observer.statistics();
}

}  // namespace llmq::quant::testing
