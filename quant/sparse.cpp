#include "quant/sparse.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <vector>

#include "formats/error.h"

namespace llmq::quant {
namespace {

void check_spec(const SparseSpec& spec) {
  if (!(spec.fraction >= 0.01 && spec.fraction <= 0.1)) {
    throw formats::usage_error(
        fmt::format("a fraction of {} is not possible; it goes from 0.01 to 0.1", spec.fraction));
  }
  if (!(spec.sigma_factor >= 3.0 && spec.sigma_factor <= 4.0)) {
    throw formats::usage_error(fmt::format(
        "a sigma_factor of {} is not possible; it goes from 3 to 4", spec.sigma_factor));
  }
}

double deviation(std::span<const float> row) {
  double sum = 0.0;
  for (const float w : row) sum += w;
  const double mean = sum / static_cast<double>(row.size());
  double squares = 0.0;
  for (const float w : row) squares += (w - mean) * (w - mean);
  return std::sqrt(squares / static_cast<double>(row.size()));
}

double magnitude_below(std::span<const float> row, double fraction) {
  std::vector<float> magnitudes(row.size());
  std::transform(row.begin(), row.end(), magnitudes.begin(), [](float w) { return std::abs(w); });
  const auto share =
      static_cast<std::ptrdiff_t>(std::ceil(fraction * static_cast<double>(row.size())));
  const auto n_above = std::min(share, static_cast<std::ptrdiff_t>(row.size()) - 1);
  std::nth_element(magnitudes.begin(), magnitudes.begin() + n_above, magnitudes.end(),
                   std::greater<>());
  return magnitudes[static_cast<size_t>(n_above)];
}

}  // namespace

double sparse_threshold(std::span<const float> row, const SparseSpec& spec) {
  check_spec(spec);
  if (row.empty()) return 0.0;
  return spec.use_sigma ? spec.sigma_factor * deviation(row) : magnitude_below(row, spec.fraction);
}

}  // namespace llmq::quant
