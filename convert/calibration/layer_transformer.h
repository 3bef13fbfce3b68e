#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <span>

#include "convert/pipeline/ledger.h"
#include "convert/pipeline/plan.h"
#include "convert/pipeline/unit_preparation.h"
#include "formats/json.h"
#include "quant/kernels/thread_team.h"
#include "runtime/calibrate/calibrator.h"

namespace llmq::convert {

/// Changes the weights of a model layer by layer as its recipe says, so that they are easier to
/// round and compute the same: rotation, then smoothing. Not thread-safe.
class LayerTransformer {
 public:
  /// All of them must outlive it.
  LayerTransformer(const FolderPlan& plan, quant::ThreadTeam& team);
  ~LayerTransformer();
  LayerTransformer(const LayerTransformer&) = delete;
  LayerTransformer& operator=(const LayerTransformer&) = delete;

  /// True when the recipe changes weights.
  [[nodiscard]] bool is_needed() const;

  /// Makes the changed copy of the layer that `calibrator` has run last (with keeps_inputs) from
  /// its weights.
  void transform(const runtime::LayerWeights& weights, runtime::Calibrator& calibrator);

  /// The changed layer, as it is executed.
  [[nodiscard]] runtime::LayerWeights view() const;

  /// The rotation of hidden states that the changed layer expects; empty for none.
  [[nodiscard]] std::function<void(const quant::MatrixF32& hidden)> change_of_hidden() const;

  /// Gives an entry the changed values: of the layer made last, or (outside the layers) a change of
  /// rows.
  void prepare_entry(const LedgerEntry& entry, EntryPreparation& preparation);

  /// Passes over the calibration samples that a layer takes at most.
  [[nodiscard]] int64_t passes_per_layer() const;

  /// What was decided for the layer made last, per subgraph.
  [[nodiscard]] const formats::Json& report() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace llmq::convert
