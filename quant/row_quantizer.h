#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "quant/weight_quantizer.h"

namespace llmq::quant {

/// One row of a linear on its way to codes, for the methods that fit codes to the others of the
/// row. All buffers belong to the thread.
class RowQuantizer {
 public:
  /// `inputs` may be null; both must outlive it.
  RowQuantizer(const WeightSpec& spec, int64_t k, const LinearInputs* inputs);

  /// Quantizes `row` [k] (finite): codes [k], params [n_groups]. Throws as affine_params.
  void run(std::span<const float> row, std::span<int8_t> codes, std::span<AffineParams> params);

 private:
  [[nodiscard]] int64_t group_of(int64_t column) const { return column / group_cols_; }
  [[nodiscard]] float round_code(float value, const AffineParams& params) const;
  [[nodiscard]] float bound(bool upper) const;
  AffineParams choose_params(std::span<const float> values, int64_t first_column) const;
  AffineParams clipped_params(std::span<const float> values, int64_t first_column) const;
  [[nodiscard]] AffineParams sparse_params(std::span<const float> values) const;
  AffineParams fitted_params(std::span<const float> values, AffineParams start) const;
  void round_all(std::span<const float> row, std::span<int8_t> codes,
                 std::span<const AffineParams> params) const;
  void clamp_bulk(std::span<const float> row, std::span<int8_t> codes,
                  std::span<const AffineParams> params) const;
  void spread_errors(std::span<const float> row, std::span<int8_t> codes,
                     std::span<const AffineParams> params);
  void refine(std::span<const float> row, std::span<int8_t> codes, std::span<AffineParams> params);
  void set_residual(std::span<const float> row, std::span<const int8_t> codes,
                    std::span<const AffineParams> params);
  void fit_scales(std::span<const float> row, std::span<int8_t> codes,
                  std::span<AffineParams> params);
  bool fit_codes(std::span<int8_t> codes, std::span<const AffineParams> params);

  const WeightSpec& spec_;
  int64_t k_;
  int64_t group_cols_;
  const LinearInputs* inputs_;
  bool uses_factor_;
  std::vector<float> work_;       // [k] in the order of quantization
  std::vector<double> residual_;  // [k] ŵ − w
  std::vector<double> gradient_;  // [k] H·(ŵ − w)
};

}  // namespace llmq::quant
