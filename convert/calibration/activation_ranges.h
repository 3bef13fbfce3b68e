#pragma once

#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "convert/calibration/statistics.h"
#include "convert/pipeline/ledger.h"
#include "convert/pipeline/plan.h"
#include "convert/pipeline/stream.h"
#include "convert/report/console.h"
#include "quant/kernels/thread_team.h"
#include "runtime/calibrate/calibrator.h"

namespace llmq::convert {

/// What a calibrated job starts from: token windows to run the model on, or the statistics of an
/// earlier run; and the statistics as they become known.
struct CalibrationInput {
  std::vector<std::vector<int32_t>> windows;  ///< empty where statistics were loaded
  bool is_loaded = false;
  CalibrationStatistics statistics;

  /// What of it decides the bytes written.
  [[nodiscard]] formats::Json fingerprint() const;
  /// The `calibration` part of a report.
  [[nodiscard]] formats::Json report() const;
};

/// Reads texts or statistics of a job and says which. Throws Error{kBadInput} for a file that
/// cannot be used, a tokenizer that is missing or does not fit; Error{kUsage} when statistics lack
/// what the recipe's act_method or disable_level needs.
CalibrationInput open_calibration(const FolderJob& job, const FolderPlan& plan, Console& console);

/// Carries out the recipe's disable_level: runs the model on the first samples (unless statistics
/// hold the result) and adds to `recipe.keep_float` the linears that would be quantized and whose
/// inputs have the largest max|x| / std; of equal ones the first in the order of the ledger. The
/// level is 0 afterwards: the recipe as it is then, which the report shows, does the same again.
void keep_widest_float(CalibrationInput& calibration, const FolderPlan& plan,
                       quant::ThreadTeam& team, Console& console, Recipe& recipe);

/// Gives the linears of a plan their activation parameters. Runs the model layer by layer as they
/// are asked for, or reads them off loaded statistics. Not thread-safe.
class ActivationRanges {
 public:
  /// All of them must outlive it; statistics that are gathered go to `calibration`.
  ActivationRanges(CalibrationInput& calibration, const FolderPlan& plan, quant::ThreadTeam& team,
                   Console& console);

  /// Parameters of the entries of a unit, one each; those that need none keep defaults. Units must
  /// be asked for in ascending order of layers. Throws as Calibrator, and Error{kBadInput} naming
  /// the linear where statistics are missing or no scale fits the model's dtype.
  EntryActivations activations_of(std::span<const LedgerEntry> entries);

  /// Adds range, method and parameters to the results of the unit asked for last.
  void add_to_results(std::span<const LedgerEntry> entries, formats::Json& results) const;

 private:
  [[nodiscard]] const quant::RangeStatistics& statistics_of(const LedgerEntry& entry);
  void reach(const GroupKey& key);

  CalibrationInput& calibration_;
  const FolderPlan& plan_;
  quant::ThreadTeam& team_;
  Console& console_;
  std::unique_ptr<runtime::Calibrator> calibrator_;
  EntryActivations last_;  // of the unit asked for last
};

}  // namespace llmq::convert
