#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "runtime/model/model.h"
#include "tests/runtime/model/linear_inputs.h"
#include "tests/runtime/model/quantized_model.h"

namespace llmq::testing {

/// The code of an activation: clamp(rint(x / scale + offset), −128, 127), evaluated in float64 and
/// rounded to float32 where the published formula is; with `reciprocal`, x · reciprocal. NaN gives
/// −128.
int w8a8_code(float x, const W8A8Input& input, std::optional<float> reciprocal = {});

/// y [x.n_rows, n] of a static W8A8 linear, (Σ codes(x)·W + quant_bias) · deq_scale: exact sums and
/// float64 products, rounded to float32 where the formula is.
std::vector<float> w8a8_product(const W8A8Linear& linear, const Values& x,
                                std::optional<float> reciprocal = {});

/// A linear of a loaded model.
struct NamedLinear {
  std::string module;
  const runtime::LinearWeights* view = nullptr;
  int64_t layer = -1;  ///< −1 for the head
  formats::FusedGroup group = formats::FusedGroup::kHead;
};

/// All linears of a scheme: those of the layers, in the order of execution, and the head.
std::vector<NamedLinear> w8a8_linears(const runtime::Model& model,
                                      formats::Scheme scheme = formats::Scheme::kW8A8);

}  // namespace llmq::testing
