#pragma once

#include <cmath>
#include <string>
#include <vector>

#include "formats/float16.h"
#include "quant/kernels/gemm_bf16/driver.h"
#include "tests/quant/kernels/gemm_problem.h"

namespace llmq::quant {

inline GemmKind bf16_kind(bool is_fp16 = false) {
  return is_fp16 ? GemmKind{"fp16", 2, formats::DType::kF16, false, 0}
                 : GemmKind{"bf16", 2, formats::DType::kBF16, false, 0};
}

/// A product of gemm_bf16: a GemmProblem of 16-bit floats, and ways to run it.
struct Bf16Problem : GemmProblem {
  Bf16Problem(int64_t rows, int64_t cols, int64_t depth, bool is_fp16 = false)
      : GemmProblem(bf16_kind(is_fp16), rows, cols, depth) {}

  /// The first `n_rows` rows of y [m, n] in `y`, whose rows are n apart.
  [[nodiscard]] GemmBf16Args args(std::vector<float>& y, int64_t n_rows) const {
    return {.x = {x.data(), n_rows, k, k},
            .weights = storage.data() + misalignment,
            .weight_dtype = kind.dtype,
            .weight_stride = k,
            .bias = has_bias ? bias.data() : nullptr,
            .y = {y.data(), n_rows, n, n}};
  }

  template <typename Run>
  [[nodiscard]] std::vector<float> result(const Run& run) const {
    std::vector<float> y(static_cast<size_t>(m * n), -7.0F);
    run(args(y, m));
    return y;
  }
  [[nodiscard]] std::vector<float> specified() const { return result(gemm_bf16_specification); }
  [[nodiscard]] std::vector<float> by_lanes(ThreadTeam& team, Isa isa) const {
    return result([&](const GemmBf16Args& a) { gemm_bf16_by_lanes(a, team, isa); });
  }

  /// x as it is multiplied.
  [[nodiscard]] float rounded_x(int64_t row, int64_t i) const {
    const float value = x[static_cast<size_t>(row * k + i)];
    if (std::fabs(value) < 0x1p-126F) return std::copysign(0.0F, value);
    return formats::bf16_to_float(formats::float_to_bf16(value));
  }
  /// The weight as it is multiplied, subnormal or not.
  [[nodiscard]] float rounded_weight(int64_t col, int64_t i) const {
    return formats::bf16_to_float(formats::float_to_bf16(unscaled_weight(col, i)));
  }
};

}  // namespace llmq::quant
