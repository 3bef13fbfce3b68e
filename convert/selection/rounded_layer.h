#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "convert/pipeline/ledger.h"
#include "convert/pipeline/unit_preparation.h"
#include "quant/kernels/thread_team.h"
#include "runtime/model/layer_weights.h"

namespace llmq::convert {

/// A decoder layer as it would be written, in memory: every linear that the recipe quantizes in its
/// codes, scales and (with int8 activations) input parameters, beside the same linear in float, so
/// that the layer can be run with any of its groups quantized. Not thread-safe.
class RoundedLayer {
 public:
  /// `floats`: the layer of the checkpoint; `entries` and `preparation`: its unit, see
  /// UnitPreparation. All of them must outlive this object. Throws as quantize_weight and
  /// static_tensors, naming the tensor.
  RoundedLayer(const runtime::LayerWeights& floats, std::span<const LedgerEntry> entries,
               const UnitPreparation& preparation, formats::DType model_dtype,
               quant::ThreadTeam& team);
  ~RoundedLayer();
  RoundedLayer(const RoundedLayer&) = delete;
  RoundedLayer& operator=(const RoundedLayer&) = delete;

  /// The layer with those groups quantized for which `is_quantized` holds (experts of a layer come
  /// as kExpertGateUp and kExpertDown) and all else float. Views of this object and of the
  /// checkpoint.
  [[nodiscard]] runtime::LayerWeights with(
      const std::function<bool(formats::FusedGroup)>& is_quantized) const;

  /// True when smoothing or rotation changed the float weights.
  [[nodiscard]] bool is_transformed() const { return is_transformed_; }

 private:
  struct Linear;
  void take_values(const LedgerEntry& entry, const EntryPreparation& preparation);
  void quantize(const LedgerEntry& entry, const EntryPreparation& preparation,
                formats::DType model_dtype, quant::ThreadTeam& team);

  runtime::LayerWeights floats_;
  std::vector<std::unique_ptr<Linear>> linears_;
  bool is_transformed_ = false;
};

}  // namespace llmq::convert
