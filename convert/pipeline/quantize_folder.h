#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include "convert/calibration/samples.h"
#include "convert/pipeline/ledger.h"
#include "convert/recipes/recipe.h"
#include "convert/report/console.h"

namespace llmq::convert {

/// Where the ranges of static activations come from.
struct CalibrationJob {
  /// Texts to run the model on; empty: the built-in set.
  std::filesystem::path texts;
  CalibrationOptions options;
  /// Statistics of an earlier run, instead of running the model; empty: none.
  std::filesystem::path load_statistics;
  /// File to write the statistics of this run to; empty: none.
  std::filesystem::path save_statistics;
  /// Run the model with runtime::CalibratorOptions::is_fast.
  bool is_fast = false;
};

/// How much of a model is kept float, where the user gives a goal instead of names. Each finite and
/// above 0; where one is given, calibration texts are read whatever the recipe.
struct SelectionGoal {
  std::optional<double> target_bits;  ///< bits per weight that the written tensors may have
  std::optional<double>
      max_kl;  ///< mean KL in nats from the float model on the calibration samples

  [[nodiscard]] bool is_given() const { return target_bits || max_kl; }
};

/// One run of `llmq quant` or `llmq convert`.
struct FolderJob {
  std::filesystem::path source;
  std::filesystem::path destination;
  /// What is done to the linears; absent: nothing, the weights stay float ("convert").
  std::optional<Recipe> recipe;
  LedgerOptions ledger;
  /// Read for recipes that need it.
  CalibrationJob calibration;
  SelectionGoal selection;
  uint64_t part_size_bytes = 0;  ///< 0: one file
  int n_threads = 1;
  uint64_t max_memory_bytes = 0;  ///< a job that is expected to need more is refused; 0: no limit
  bool force = false;             ///< replace a non-empty destination
  bool may_resume = true;         ///< go on behind an interrupted run of the same job
  bool dry_run = false;           ///< decide and report, write nothing
};

/// Reads, quantizes and writes a folder: weights a row block at a time (where activations are
/// quantized as well, each decoder layer is first run on the calibration samples), then
/// config.json, description, index, side files and report; verifies the result; only then the
/// destination appears. Returns the report. Throws Error as its parts do; the destination is then
/// as it was before.
formats::Json run_folder_job(const FolderJob& requested, Console& console);

/// dtype of the first float matrix of a folder. Throws Error{kBadInput} when it has none.
formats::DType source_dtype(const std::filesystem::path& source);

}  // namespace llmq::convert
