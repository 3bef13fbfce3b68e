#include "convert/commands/folder_options.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <string_view>
#include <system_error>
#include <utility>

#include "formats/error.h"
#include "quant/kernels/thread_team.h"

namespace llmq::convert {

namespace {

void add_scheme_options(CLI::App& command, RecipeOptions& recipe) {
  command
      .add_option("--group-size", recipe.group_size, "Weight-only types: inputs a scale, 0: all")
      ->check(CLI::Range(0, 65536));
  command.add_option("--w-bit", recipe.weight_bits, "Bits of weights: 4 or 8, another scheme");
  command.add_option("--a-bit", recipe.activation_bits, "Bits of activations: 8 or 16");
  add_switch(command, "--w-sym", recipe.weight_symmetric,
             "Symmetric weights; replaces the recipe's choice");
  command.add_option("--method", recipe.weight_method,
                     "How weights become codes, for every rule: round, ssz, gptq");
  command.add_option("--anti-method", recipe.anti_method,
                     "Smoothing: m1 SmoothQuant, m2 shift and scale, m3 AWQ, m4 iterative, m6 "
                     "flexible; none");
  add_switch(command, "--use-kvcache-quant", recipe.use_kvcache_quant, "int8 KV cache (C8)");
  add_switch(command, "--use-fa-quant", recipe.use_fa_quant, "Quantized attention (FAQuant)");
}

void add_sparse_options(CLI::App& command, RecipeOptions& recipe) {
  command.add_option("--fraction", recipe.fraction, "Sparse types: share of protected outliers")
      ->check(CLI::Range(0.01, 0.1));
  command
      .add_option("--sigma-factor", recipe.sigma_factor,
                  "Sparse types: deviations up to the threshold")
      ->check(CLI::Range(3.0, 4.0));
  add_switch(command, "--use-sigma", recipe.use_sigma, "Sparse types: threshold by deviations");
  add_switch(command, "--co-sparse", recipe.co_sparse, "Sparse types: the routine's own codes");
  add_switch(command, "--is-lowbit", recipe.is_lowbit,
             "Sparse types: the float weight re-coded (goes before -co_sparse)");
  add_switch(command, "--do-smooth", recipe.do_smooth, "Sparse types: smooth before (m1)");
}

}  // namespace

void add_recipe_options(CLI::App& command, FolderOptions& options) {
  command.add_option("--type,--quant-type", options.type,
                     "Quantization type: a built-in recipe (an unknown one prints the list)");
  command.add_option("--model-type", options.model_type,
                     "Name of the model, as other tools take it: its best practice for the type");
  command.add_option("--recipe", options.recipe_file,
                     "Recipe file instead of a type; llmq plan --print-recipe shows one");
  command.add_option("--disable-names", options.recipe.disable_names,
                     "Modules kept float, comma separated, * matches; replaces the recipe's list, "
                     "a leading + adds to it");
  command.add_option("--disable-level", options.disable_level,
                     "L0, L1, ...: so many more linears stay float, those whose inputs have the "
                     "largest max|x| / std");
  command
      .add_option("--act-method", options.recipe.act_method,
                  "Activation ranges: 1 min-max, 2 histogram, 3 automatic per layer")
      ->check(CLI::Range(1, 3));
  add_scheme_options(command, options.recipe);
  add_sparse_options(command, options.recipe);
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
  command
      .add_flag(
          "--fast-calibration", options.fast_calibration,
          "Calibrate with activations rounded to bfloat16, by the tiles of AMX where there are any "
          "(without them it saves nothing); machines with and without AMX may write other bytes")
      ->excludes("--stats");
}

void add_selection_options(CLI::App& command, FolderOptions& options) {
  command.add_option("--target-bits", options.target_bits,
                     "Keep float what gains most by it, up to so many bits per weight");
  command.add_option("--max-kl", options.max_kl,
                     "Keep float as little as this mean KL (nats, on the calibration samples) "
                     "permits");
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

namespace {

void require_goal(std::string_view option, const std::optional<double>& value) {
  if (!value || (std::isfinite(*value) && *value > 0)) return;
  throw formats::usage_error(fmt::format("{} {}: must be a finite number above 0", option, *value));
}

SelectionGoal selection_goal(const FolderOptions& options) {
  require_goal("--target-bits", options.target_bits);
  require_goal("--max-kl", options.max_kl);
  const SelectionGoal goal{options.target_bits, options.max_kl};
  if (goal.is_given() && !options.load_statistics.empty()) {
    throw formats::usage_error(
        "--target-bits and --max-kl run the model on calibration samples, which --stats does not "
        "hold; give -calib, or leave --stats out");
  }
  return goal;
}

}  // namespace

void add_layout_option(CLI::App& command, std::optional<formats::ShardLayout>& layout) {
  command
      .add_option_function<std::string>(
          "--layout",
          [&layout](const std::string& name) { layout = formats::parse_shard_layout(name); },
          "Folders and names of the shards: hf (the model's own; default), mindie, vllm")
      ->check(CLI::IsMember({"hf", "mindie", "vllm"}));
}

Recipe chosen_recipe(const FolderOptions& options) {
  if (options.type.empty() == options.recipe_file.empty()) {
    throw formats::usage_error(options.type.empty() ? "give -type TYPE or --recipe FILE"
                                                    : "give either -type or --recipe, not both");
  }
  Recipe recipe = !options.recipe_file.empty()  ? read_recipe(options.recipe_file)
                  : !options.model_type.empty() ? best_practice(options.model_type, options.type)
                                                : builtin_recipe(options.type);
  RecipeOptions changes = options.recipe;
  if (!options.disable_level.empty())
    changes.disable_level = parse_disable_level(options.disable_level);
  apply_options(changes, recipe);
  return recipe;
}

namespace {

/// Bytes of "4GiB", "1.5 GB" or "1000000"; 0 of nothing.
uint64_t parse_memory(const std::string& text) {
  if (text.empty()) return 0;
  constexpr std::array<std::pair<std::string_view, double>, 7> kUnits{{{"", 1.0},
                                                                       {"KiB", 1024.0},
                                                                       {"MiB", 1048576.0},
                                                                       {"GiB", 1073741824.0},
                                                                       {"KB", 1e3},
                                                                       {"MB", 1e6},
                                                                       {"GB", 1e9}}};
  double value = -1.0;
  const char* end = text.data() + text.size();
  const auto [number_end, error] = std::from_chars(text.data(), end, value);
  if (error != std::errc()) value = -1.0;
  const std::string_view rest(number_end, static_cast<size_t>(end - number_end));
  const std::string_view unit = rest.substr(std::min(rest.find_first_not_of(' '), rest.size()));
  for (const auto& [name, factor] : kUnits) {
    const double size_bytes = value * factor;
    if (unit == name && size_bytes >= 1.0 && size_bytes < 1e18)
      return static_cast<uint64_t>(size_bytes);
  }
  throw formats::usage_error("--max-memory " + text +
                             ": is no size; write 4GiB, 512MiB or a number of bytes");
}

}  // namespace

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
                     options.save_statistics,
                     options.fast_calibration};
  job.selection = selection_goal(options);
  job.part_size_bytes = static_cast<uint64_t>(std::llround(options.part_size_gib * 1073741824.0));
  job.n_threads = thread_count(common);
  job.max_memory_bytes = parse_memory(options.max_memory);
  job.force = options.force;
  job.may_resume = !options.no_resume;
  job.dry_run = options.dry_run;
  return job;
}

int thread_count(const CommonOptions& common) {
  return common.n_threads > 0 ? common.n_threads : quant::default_thread_count();
}

}  // namespace llmq::convert
