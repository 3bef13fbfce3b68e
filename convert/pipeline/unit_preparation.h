#pragma once

#include <functional>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "convert/pipeline/ledger.h"
#include "formats/json.h"
#include "quant/affine.h"
#include "quant/kernels/gemm_f32/matrix_f32.h"
#include "quant/static_w8a8.h"
#include "quant/weight_quantizer.h"

namespace llmq::convert {

/// What is to be known about one entry of a unit before it is written, beside its stored values.
struct EntryPreparation {
  /// How the inputs of the linear become codes; read for schemes with static activations only.
  quant::ActivationParams activation = {};
  /// float32 values, row-major in the shape of the source, to be written or quantized instead of
  /// the stored ones; empty: the stored ones. Owned by whoever prepared the unit.
  std::span<const float> values = {};
  /// Changes stored rows [n, k], widened to float32, before they are written or quantized as
  /// `output`; empty for none. Called from several threads, on different rows.
  std::function<void(const OutputModule& output, const quant::MatrixF32& rows)> change_rows = {};
  /// What the linear read in calibration, for methods that look at it; null for none.
  const quant::LinearInputs* inputs = nullptr;
  /// Sees each block of quantized rows [first_row, …); empty for none. Called from several threads.
  std::function<void(int64_t first_row, const quant::AffineMatrix& block)> on_quantized = {};
};

/// What is to be known about a unit before it is written.
struct UnitPreparation {
  std::vector<EntryPreparation> entries;  ///< one per entry of the unit
  /// Values of tensors that no source tensor gives (scales of keys and values), by name.
  std::map<std::string, std::vector<float>> computed;
  /// What smoothing did to each subgraph of a layer, for the report; empty for other units.
  formats::Json transformations = formats::Json::array();
};

}  // namespace llmq::convert
