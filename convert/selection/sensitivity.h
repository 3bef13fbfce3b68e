#pragma once

#include <functional>
#include <memory>
#include <set>
#include <span>
#include <utility>
#include <vector>

#include "convert/calibration/activation_ranges.h"
#include "convert/calibration/unit_preparer.h"
#include "convert/pipeline/plan.h"
#include "convert/selection/choice.h"
#include "convert/selection/rounded_layer.h"
#include "convert/selection/select_layers.h"
#include "runtime/calibrate/calibrator.h"

namespace llmq::convert {

/// Groups that stay float: layer and group, as in SelectionGroup.
using FloatGroups = std::set<std::pair<int64_t, formats::FusedGroup>>;

/// The group of a SelectionGroup that a fused group belongs to.
formats::FusedGroup selection_group(formats::FusedGroup group);

/// Measures on calibration samples what quantizing parts of a model does to it. Every measurement
/// is one pass over the layers, in which each is prepared, quantized in memory as it would be
/// written, and run in prefill; memory holds one layer and the hidden states. Not thread-safe.
class SensitivityMeter {
 public:
  /// All of them must outlive it.
  SensitivityMeter(const FolderPlan& plan, const CalibrationInput& calibration,
                   const RunContext& context);

  /// Sets the score of every group: mean over tokens of ‖Δh‖² / ‖h‖², h being the residual stream
  /// behind the group's layer and Δh its change when that group alone is quantized, weights and
  /// activations. This is the output error that GPTQ (arXiv 2210.17323) and other layer-wise
  /// methods minimize, but taken where all groups of a layer add to the same stream, relative to it
  /// (as the block influence of ShortGPT, arXiv 2403.03853, compares a layer's input and output).
  /// What later layers make of the error is left out. With `with_kl` returns the mean KL of the
  /// model with everything quantized, else 0. Throws Error{kBadInput} where hidden states are not
  /// finite.
  double score(std::span<SelectionGroup> groups, bool with_kl);

  /// Mean KL(float ‖ quantized) in nats over the tokens that another token follows, of the model
  /// with all groups quantized but those of each set; one pass for all sets. Needs score() with_kl
  /// before. Memory grows by the hidden states for each set.
  std::vector<double> divergences(std::span<const FloatGroups> sets);

 private:
  using Streams = std::vector<std::unique_ptr<runtime::Calibrator>>;
  struct LayerInWork;
  void for_each_layer(const std::function<void(const LayerInWork&)>& visit);
  void score_layer(const LayerInWork& work, runtime::Calibrator& floats,
                   std::span<SelectionGroup> groups) const;
  [[nodiscard]] std::unique_ptr<runtime::Calibrator> new_stream(bool keeps_inputs) const;
  std::vector<double> divergences_of(const Streams& streams);

  const FolderPlan& plan_;
  const CalibrationInput& calibration_;
  RunContext context_;
  std::vector<float> reference_;  // [n_tokens, hidden_size] behind the last float layer
  std::vector<float> rotation_;   // [hidden_size, hidden_size] of rotated streams; else empty
};

}  // namespace llmq::convert
