#pragma once

#include <CLI/CLI.hpp>
#include <optional>
#include <string>

#include "convert/commands/commands.h"
#include "convert/pipeline/quantize_folder.h"
#include "convert/recipes/recipe_options.h"
#include "formats/engine_names.h"

namespace llmq::convert {

/// Options of quant, plan and convert as they come from the command line, in the original spelling.
struct FolderOptions {
  std::string source;
  std::string destination;
  std::string type;
  std::string recipe_file;
  std::string model_type;  ///< with a type in other tools' spelling: that model's best practice
  std::string dtype;
  double part_size_gib = 0;
  std::string calibration_file;
  int64_t calibration_samples = 0;
  int64_t calibration_length = 0;
  std::string load_statistics;
  std::string save_statistics;
  bool fast_calibration = false;
  std::string disable_level;
  std::string max_memory;  ///< "4GiB", "512MiB" or a number of bytes
  std::optional<double> target_bits;
  std::optional<double> max_kl;
  RecipeOptions recipe;  ///< what changes the recipe
  bool keep_tied = false;
  bool no_resume = false;
  bool force = false;
  bool dry_run = false;
};

/// Adds the options that decide what is done to weights: -type, --recipe, and those that change a
/// recipe.
void add_recipe_options(CLI::App& command, FolderOptions& options);

/// Adds the options of calibration (-calib, --calib-samples, --calib-length, --stats,
/// --save-stats, --fast-calibration).
void add_calibration_options(CLI::App& command, FolderOptions& options);

/// Adds --target-bits and --max-kl.
void add_selection_options(CLI::App& command, FolderOptions& options);

/// Adds --dtype, -part_file_size, --keep-tied.
void add_layout_options(CLI::App& command, FolderOptions& options);

/// Adds --layout hf|mindie|vllm, the folders, files and names of shards.
void add_layout_option(CLI::App& command, std::optional<formats::ShardLayout>& layout);

/// The recipe that the options ask for. Throws Error{kUsage} when neither or both of -type and
/// --recipe are given, the type is unknown, or -disable_level is not L0, L1, ...
Recipe chosen_recipe(const FolderOptions& options);

/// The job that the options describe, without a recipe. Throws Error{kUsage} for a bad --dtype or
/// --max-memory, and for --target-bits or --max-kl that is not finite and above 0 or stands beside
/// --stats.
FolderJob folder_job(const FolderOptions& options, const CommonOptions& common);

/// --threads, or all CPUs that the process may use.
int thread_count(const CommonOptions& common);

}  // namespace llmq::convert
