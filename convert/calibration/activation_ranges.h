#pragma once

#include <cstdint>
#include <functional>
#include <string_view>
#include <vector>

#include "convert/calibration/statistics.h"
#include "convert/pipeline/ledger.h"
#include "convert/pipeline/plan.h"
#include "convert/report/console.h"
#include "quant/kernels/thread_team.h"
#include "runtime/model/layer_weights.h"

namespace llmq::convert {

/// What a calibrated job starts from: token windows to run the model on, or the statistics of an
/// earlier run; and the statistics as they become known.
struct CalibrationInput {
  std::vector<std::vector<int32_t>> windows;  ///< empty where statistics were loaded
  bool is_loaded = false;
  CalibrationStatistics statistics;

  /// Whether the model is to be run with CalibratorOptions::is_fast.
  [[nodiscard]] bool is_fast() const { return !is_loaded && !statistics.fast_order.empty(); }
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

/// The float weights of a plan's source.
runtime::WeightSource float_source(const FolderPlan& plan);

/// Whether the recipe's act_method looks at histograms, which cost time and memory.
bool needs_histogram(const Recipe& recipe);

/// Progress of a run over `n_total` tokens, and the place where a signal ends it.
std::function<void(int64_t)> show_progress(Console& console, std::string_view what,
                                           int64_t n_total);

}  // namespace llmq::convert
