#include "convert/commands/folder_options.h"

#include <algorithm>
#include <cmath>

#include "formats/error.h"
#include "quant/kernels/thread_team.h"

namespace llmq::convert {

void add_recipe_options(CLI::App& command, FolderOptions& options) {
  command.add_option("--type,--quant-type", options.type,
                     "Quantization type: a built-in recipe (an unknown one prints the list)");
  command.add_option("--recipe", options.recipe_file,
                     "Recipe file instead of a type; llmq plan --print-recipe shows one");
  options.disable_names_option = command.add_option(
      "--disable-names", options.disable_names,
      "Modules kept float, comma separated, * matches; replaces the recipe's list, "
      "a leading + adds to it");
  command.add_option("--disable-level", options.disable_level,
                     "L0, L1, ...: so many more linears stay float, those whose inputs have the "
                     "largest max|x| / std");
  command
      .add_option("--act-method", options.act_method,
                  "Activation ranges: 1 min-max, 2 histogram, 3 automatic per layer")
      ->check(CLI::Range(1, 3));
  options.weight_symmetric_option = add_switch(command, "--w-sym", options.weight_symmetric,
                                               "Symmetric weights; replaces the recipe's choice");
}

void add_calibration_options(CLI::App& command, FolderOptions& options) {
  command.add_option("--calib", options.calibration_file,
                     "Calibration texts: .jsonl, .json or plain text (default: a built-in set)");
  command
      .add_option("--calib-samples", options.calibration_samples, "Use the first N samples alone")
      ->check(CLI::Range(1, 1 << 24));
  command
      .add_option("--calib-length", options.calibration_length, "Cut samples at this many tokens")
      ->check(CLI::Range(2, 1 << 24));
  command
      .add_option("--stats", options.load_statistics,
                  "Statistics of an earlier run instead of calibrating")
      ->excludes("--calib");
  command.add_option("--save-stats", options.save_statistics,
                     "Write what calibration saw to this file");
}

void add_layout_options(CLI::App& command, FolderOptions& options) {
  command.add_option("--dtype", options.dtype,
                     "dtype of float tensors: float16 or bfloat16 (default: the source's; "
                     "float32 becomes float16)");
  command
      .add_option("--part-file-size", options.part_size_gib, "Split weight files at this many GiB")
      ->check(CLI::NonNegativeNumber);
  command.add_flag("--keep-tied", options.keep_tied,
                   "Do not write a tied lm_head.weight under its own name");
}

namespace {

/// "L3" or "3".
int64_t parse_disable_level(const std::string& text) {
  const std::string digits = text.starts_with('L') || text.starts_with('l') ? text.substr(1) : text;
  const bool is_number =
      !digits.empty() && digits.size() <= 6 &&
      std::all_of(digits.begin(), digits.end(), [](char c) { return c >= '0' && c <= '9'; });
  if (!is_number) {
    throw formats::usage_error("-disable_level " + text + ": is none of L0, L1, L2, ...");
  }
  return std::stoll(digits);
}

}  // namespace

Recipe chosen_recipe(const FolderOptions& options) {
  if (options.type.empty() == options.recipe_file.empty()) {
    throw formats::usage_error(options.type.empty() ? "give -type TYPE or --recipe FILE"
                                                    : "give either -type or --recipe, not both");
  }
  Recipe recipe =
      options.type.empty() ? read_recipe(options.recipe_file) : builtin_recipe(options.type);
  if (options.disable_names_option->count() > 0) apply_disable_names(recipe, options.disable_names);
  if (options.act_method != 0)
    recipe.act_method = static_cast<quant::ActMethod>(options.act_method);
  if (!options.disable_level.empty())
    recipe.disable_level = parse_disable_level(options.disable_level);
  if (options.weight_symmetric_option != nullptr && options.weight_symmetric_option->count() > 0) {
    for (RecipeRule& rule : recipe.rules) rule.symmetric = options.weight_symmetric;
  }
  return recipe;
}

FolderJob folder_job(const FolderOptions& options, const CommonOptions& common) {
  FolderJob job;
  job.source = options.source;
  job.destination = options.destination;
  if (!options.dtype.empty()) {
    try {
      job.ledger.dtype = formats::parse_torch_dtype(options.dtype);
    } catch (const formats::Error& error) {
      throw formats::usage_error(std::string("--dtype: ") + error.what());
    }
  }
  job.ledger.keep_tied = options.keep_tied;
  job.calibration = {options.calibration_file,
                     {options.calibration_samples, options.calibration_length},
                     options.load_statistics,
                     options.save_statistics};
  job.part_size_bytes = static_cast<uint64_t>(std::llround(options.part_size_gib * 1073741824.0));
  job.n_threads = thread_count(common);
  job.force = options.force;
  job.may_resume = !options.no_resume;
  job.dry_run = options.dry_run;
  return job;
}

int thread_count(const CommonOptions& common) {
  return common.n_threads > 0 ? common.n_threads : quant::default_thread_count();
}

}  // namespace llmq::convert
