#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "convert/calibration/activation_ranges.h"
#include "convert/calibration/layer_transformer.h"
#include "convert/pipeline/ledger.h"
#include "convert/pipeline/plan.h"
#include "convert/pipeline/unit_preparation.h"
#include "convert/report/console.h"
#include "quant/kernels/thread_team.h"
#include "runtime/calibrate/calibrator.h"
#include "runtime/calibrate/layer_statistics.h"

namespace llmq::convert {

/// Tokens that an expert must have seen in calibration to be fitted to them.
inline constexpr int64_t kFewestExpertTokens = 32;

/// Gives the units of a plan what calibration decides: activation parameters, weights changed by
/// smoothing and rotation, what methods need to know of inputs, scales of quantized attention. Runs
/// the float model layer by layer as units are asked for, or reads ranges off loaded statistics. A
/// layer's result does not depend on which units were asked for before. Not thread-safe.
class UnitPreparer {
 public:
  /// All of them must outlive it; statistics that are gathered go to `calibration`.
  UnitPreparer(CalibrationInput& calibration, const FolderPlan& plan, quant::ThreadTeam& team,
               Console& console);

  /// The preparation of a unit, valid until the next call. Layers must be asked for in ascending
  /// order; a unit outside the layers may come at any time (a head before the layers, tied to the
  /// embedding, costs a pass of its own). Throws as Calibrator, and Error{kBadInput} naming the
  /// linear where statistics are missing or no scale fits the model's dtype.
  const UnitPreparation& prepare(std::span<const LedgerEntry> entries);

  /// The rotation of hidden states that the prepared layers expect; empty for none.
  [[nodiscard]] std::function<void(const quant::MatrixF32& hidden)> change_of_hidden() const {
    return transformer_.change_of_hidden();
  }

  /// Adds what was decided to the results of the unit prepared last: ranges, parameters, dampings,
  /// tokens of experts.
  void add_to_results(std::span<const LedgerEntry> entries, formats::Json& results) const;

 private:
  void run_layer(int64_t layer);
  void begin_pass();
  void look_at_next_layer();
  void pass_next_layer();
  void look_at_head();
  [[nodiscard]] bool keeps_ranges_alone() const;
  [[nodiscard]] runtime::LayerWants wants(int64_t layer) const;
  void keep(int64_t layer, runtime::LayerStatistics seen);
  void forget();
  [[nodiscard]] int64_t n_tokens_of(const LedgerEntry& entry) const;
  void prepare_entry(const LedgerEntry& entry, EntryPreparation& preparation);
  void set_activation(const LedgerEntry& entry, const RecipeRule& rule,
                      EntryPreparation& preparation);
  void set_inputs(const LedgerEntry& entry, const RecipeRule& rule, EntryPreparation& preparation);
  void compute_attention(int64_t layer);
  [[nodiscard]] const quant::RangeStatistics& statistics_of(const LedgerEntry& entry);
  [[nodiscard]] const quant::RangeStatistics* range_of_all_experts(const LedgerEntry& entry);

  CalibrationInput& calibration_;
  const FolderPlan& plan_;
  quant::ThreadTeam& team_;
  Console& console_;
  LayerTransformer transformer_;
  std::unique_ptr<runtime::Calibrator> calibrator_;
  runtime::LayerStatistics seen_;      // of seen_layer_
  std::optional<int64_t> seen_layer_;  // -1: the head
  std::map<GroupKey, int64_t> expert_tokens_;
  std::map<runtime::ObservedGroup, quant::LinearInputs> inputs_;
  std::map<GroupKey, quant::RangeStatistics> borrowed_;
  std::map<std::string, std::string> few_tokens_;  // modules of experts: what they were fitted to
  UnitPreparation unit_;
};

}  // namespace llmq::convert
