#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <memory>
#include <optional>

#include "convert/bench/bench_run.h"
#include "convert/bench/shapes.h"
#include "convert/bench/synthetic_model.h"
#include "convert/commands/commands.h"
#include "convert/commands/folder_options.h"
#include "convert/commands/model_options.h"
#include "convert/commands/ranks.h"
#include "convert/interrupt.h"
#include "formats/checkpoint.h"
#include "formats/error.h"
#include "runtime/model/model.h"

namespace llmq::convert {
namespace {

constexpr const char* kFooter =
    "Examples:\n"
    "  llmq bench --model_path Qwen2.5-0.5B-w8a16 --case_pair \"[[512,64],[2048,128]]\"\n"
    "  llmq bench --shape qwen2.5-1.5b -type qwen_w8a8 --kv int8 --depth 0,4096,32768\n"
    "  llmq bench --limits";

struct BenchOptions {
  ModelCommandOptions model;
  FolderOptions quantization;  ///< of a synthetic model
  std::string shape;
  std::string config;
  std::string save_folder;
  std::string cases = "[[512,64]]";
  std::vector<int64_t> batch_sizes{1};
  std::vector<int64_t> depths{0};
  bool is_depth_prefilled = false;
  bool limits = false;
  bool skips_limits = false;
  bool csv = false;
};

bool has_model(const BenchOptions& options) {
  return !options.model.folder.empty() || !options.shape.empty() || !options.config.empty();
}

void check_options(const BenchOptions& options) {
  const int n_models = static_cast<int>(!options.model.folder.empty()) +
                       static_cast<int>(!options.shape.empty()) +
                       static_cast<int>(!options.config.empty());
  if (n_models > 1)
    throw formats::usage_error("--model_path, --shape and --config exclude each other");
  if (n_models == 0 && !options.limits)
    throw formats::usage_error(
        "nothing to measure: give --model_path, --shape, --config or --limits");
  const bool is_quantized =
      !options.quantization.type.empty() || !options.quantization.recipe_file.empty();
  if (!options.model.folder.empty() && (is_quantized || !options.save_folder.empty()))
    throw formats::usage_error("-type, --recipe and --save-model are for --shape and --config");
}

/// The recipe of a synthetic model; none for a float one.
std::optional<Recipe> recipe_of(const BenchOptions& options) {
  if (options.quantization.type.empty() && options.quantization.recipe_file.empty()) {
    if (options.model.kv == "int8")
      throw formats::usage_error("--kv int8 needs scales: give a -type");
    return std::nullopt;
  }
  Recipe recipe = chosen_recipe(options.quantization);
  if (options.model.kv == "int8" && recipe.attention == formats::Scheme::kFloat)
    recipe.attention = formats::Scheme::kC8;
  return recipe;
}

std::unique_ptr<SyntheticModel> make_synthetic(const BenchOptions& options, Console& console,
                                               const CommonOptions& common) {
  SyntheticModelJob job;
  if (!options.shape.empty()) {
    job.config = bench_shape(options.shape);
  } else {
    std::filesystem::path path = options.config;
    if (std::filesystem::is_directory(path)) path /= "config.json";
    job.config = formats::read_json_file(path);
  }
  job.recipe = recipe_of(options);
  job.folder = options.save_folder;
  quant::ThreadTeam team(thread_count(common));
  auto model = std::make_unique<SyntheticModel>(job, team);
  console.info("weights are random: speed is that of a real model, text is not");
  return model;
}

std::string name_of(const BenchOptions& options, const std::filesystem::path& folder) {
  if (!options.shape.empty()) return "synthetic " + options.shape;
  if (options.config.empty()) return folder.filename().string();
  return "synthetic " + options.config;
}

std::vector<BenchCase> cases_of(const BenchOptions& options) {
  std::vector<BenchCase> cases;
  for (const int64_t batch_size : options.batch_sizes) {
    for (const int64_t depth : options.depths) {
      for (BenchCase one : parse_case_pairs(options.cases)) {
        one.batch_size = batch_size;
        one.depth = depth;
        one.is_depth_prefilled = options.is_depth_prefilled;
        cases.push_back(one);
      }
    }
  }
  return cases;
}

/// The first run of a model touches its weights and scratch memory for the first time.
void warm_up(runtime::Model& model, const std::vector<BenchCase>& cases) {
  int64_t n_tokens = 1;
  for (const BenchCase& one : cases)
    n_tokens = std::max(n_tokens, std::min<int64_t>(one.prefill_tokens, 64));
  run_bench_case(model, {n_tokens, 1});
}

int run_model_bench(const BenchOptions& options, const RankPlace& place) {
  const std::vector<BenchCase> cases = cases_of(options);
  std::unique_ptr<SyntheticModel> synthetic;
  std::filesystem::path folder = place.folder;
  if (options.model.folder.empty()) {
    synthetic = make_synthetic(options, *place.console, place.common);
    folder = synthetic->folder();
  }
  BenchContext context;
  context.name = name_of(options, folder);
  context.load.size_bytes =
      (place.manifest == nullptr ? formats::Checkpoint::open(folder)
                                 : open_rank(folder, *place.manifest, place.ranks->rank()))
          .size_bytes();
  const auto start = std::chrono::steady_clock::now();
  const std::unique_ptr<runtime::Model> model =
      synthetic == nullptr ? load_model(options.model, place)
                           : runtime::Model::load(folder, model_options(options.model, place));
  context.load.seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  if (!options.skips_limits) context.limits = quant::measure_limits(model->team());
  warm_up(*model, cases);
  formats::Json rows = formats::Json::array();
  for (const BenchCase& one : cases) {
    throw_if_interrupted();
    rows.push_back(bench_row(*model, one, run_bench_case(*model, one), context));
    if (options.limits) rows.back()["limits"] = limits_json(context.limits);
  }
  std::string text = options.csv ? bench_csv(rows) : bench_table(rows);
  if (options.limits && !options.csv) text += "\n" + limits_text(context.limits);
  place.console->result(rows, text);
  return 0;
}

int run_bench(const BenchOptions& options, Console& console, const CommonOptions& common) {
  check_options(options);
  if (has_model(options)) {
    return run_over_ranks(options.model, console, common,
                          [&](const RankPlace& place) { return run_model_bench(options, place); });
  }
  quant::ThreadTeam team(thread_count(common));
  const quant::MachineLimits limits = quant::measure_limits(team);
  console.result({{"limits", limits_json(limits)}}, limits_text(limits));
  return 0;
}

std::string shape_list() {
  std::string list;
  for (const std::string_view name : bench_shape_names())
    list += (list.empty() ? "" : ", ") + std::string(name);
  return list;
}

void add_model_choice(CLI::App& command, BenchOptions& options) {
  add_model_options(command, options.model);
  command.get_option("--model-path")->required(false);
  command.add_option("--shape", options.shape,
                     "Synthetic model with random weights instead of a folder: " + shape_list());
  command.add_option("--config", options.config,
                     "The same of the shape in a config.json (or its folder)");
  command.add_option("--save-model", options.save_folder,
                     "Leave the synthetic model in this new folder (default: a temporary one)");
  add_recipe_options(command, options.quantization);
}

}  // namespace

void add_bench_command(CLI::App& app, const ChooseAction& choose) {
  CLI::App* command = app.add_subcommand(
      "bench", "Measure first-token time and tokens per second beside the machine's limits");
  auto options = std::make_shared<BenchOptions>();
  add_model_choice(*command, *options);
  command->add_option("--case-pair", options->cases,
                      "[[prefill tokens, decode tokens], ...] (default [[512,64]])");
  command
      ->add_option("--batch-size", options->batch_sizes,
                   "Sequences that run together; several with commas")
      ->delimiter(',')
      ->check(CLI::Range(1, 1024));
  command
      ->add_option("--depth", options->depths,
                   "Tokens already in the KV cache; several with commas")
      ->delimiter(',')
      ->check(CLI::NonNegativeNumber);
  add_switch(*command, "--prefill-depth", options->is_depth_prefilled,
             "Run the tokens of --depth instead of storing random keys and values");
  command->add_flag("--limits", options->limits,
                    "Measure read bandwidth and the peaks of int8, bf16 and fp32 products; alone, "
                    "or beside a model");
  command
      ->add_flag("--skip-limits", options->skips_limits,
                 "Do not measure the machine; shares of its limits are left out")
      ->excludes("--limits");
  command->add_flag("--csv", options->csv, "Comma-separated values instead of a table");
  command->footer(kFooter);
  command->callback([options, choose] {
    choose([options](Console& console, const CommonOptions& common) {
      return run_bench(*options, console, common);
    });
  });
}

}  // namespace llmq::convert
