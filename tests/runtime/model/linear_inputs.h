#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <utility>
#include <vector>

#include "formats/architecture.h"
#include "runtime/model/model.h"

namespace llmq::testing {

/// A matrix [n_rows, n_cols].
struct Values {
  int64_t n_rows = 0;
  int64_t n_cols = 0;
  std::vector<float> data;

  [[nodiscard]] quant::ConstMatrixF32 view() const { return {data.data(), n_rows, n_cols, n_cols}; }
};

/// What the linears of a model read.
struct LinearInputs {
  std::map<std::pair<int64_t, formats::FusedGroup>, Values> groups;  ///< by layer and group
  Values head;                                                       ///< after the final norm
  std::vector<Values> hidden;  ///< [n_layers + 1]: before each layer and after the last
};

/// Runs `tokens`, which may not be empty, as one text and at once through all layers of `model`,
/// with a KV cache of all layers and without a limit to its length.
LinearInputs linear_inputs(runtime::Model& model, std::span<const int32_t> tokens);

}  // namespace llmq::testing
