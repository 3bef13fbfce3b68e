#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include "convert/pipeline/ledger.h"
#include "convert/recipes/recipe.h"
#include "convert/report/console.h"

namespace llmq::convert {

/// One run of `llmq quant` or `llmq convert`.
struct FolderJob {
  std::filesystem::path source;
  std::filesystem::path destination;
  /// What is done to the linears; absent: nothing, the weights stay float ("convert").
  std::optional<Recipe> recipe;
  LedgerOptions ledger;
  uint64_t part_size_bytes = 0;  ///< 0: one file
  int n_threads = 1;
  bool force = false;      ///< replace a non-empty destination
  bool may_resume = true;  ///< go on behind an interrupted run of the same job
  bool dry_run = false;    ///< decide and report, write nothing
};

/// Reads, quantizes and writes a folder: weights a row block at a time, then config.json,
/// description, index, side files and report; verifies the result; only then the destination
/// appears. Returns the report. Throws Error as its parts do; the destination is then as it was
/// before.
formats::Json run_folder_job(const FolderJob& job, Console& console);

/// dtype of the first float matrix of a folder. Throws Error{kBadInput} when it has none.
formats::DType source_dtype(const std::filesystem::path& source);

}  // namespace llmq::convert
