#include <fmt/format.h>

#include <memory>
#include <optional>

#include "convert/commands/commands.h"
#include "convert/commands/folder_options.h"
#include "convert/report/summary.h"
#include "convert/shard/quantize_shards.h"
#include "convert/shard/shard_folder.h"
#include "formats/error.h"

namespace llmq::convert {
namespace {

constexpr const char* kFooter =
    "Examples:\n"
    "  llmq quant -src Qwen2.5-7B-Instruct -dst Qwen2.5-7B-w8a8 -type qwen_w8a8 -calib "
    "boolq.jsonl\n"
    "  llmq quant -src Qwen2.5-7B-Instruct -dst Qwen2.5-7B-w8a8-tp4 -type qwen_w8a8 --tp 4 "
    "--layout "
    "mindie\n"
    "The source is never touched; the destination appears only when it is complete and conforms.";

/// Options of quant alone.
struct QuantOptions : FolderOptions {
  std::optional<int64_t> tp;  ///< ranks to cut the result for; not cut where absent
  std::optional<formats::ShardLayout> layout;
  bool pad = false;
};

int run_sharded_quant(const QuantOptions& options, const FolderJob& job, Console& console) {
  const ShardOptions shards{*options.tp, options.layout.value_or(formats::ShardLayout::kHf),
                            options.pad};
  const formats::Json report = run_sharded_folder_job(job, shards, console);
  const bool is_dry = !report.contains("shards");
  console.result(report, summary_text(report) + (is_dry ? "" : shard_text(report["shards"])));
  return 0;
}

int run_quant(const QuantOptions& options, Console& console, const CommonOptions& common) {
  FolderJob job = folder_job(options, common);
  if (job.ledger.dtype == formats::DType::kF32) {
    throw formats::usage_error(
        "--dtype float32: engines load quantized models in float16 or bfloat16; choose one of "
        "them");
  }
  job.recipe = chosen_recipe(options);
  if (!options.tp && (options.layout || options.pad))
    throw formats::usage_error("--layout and --pad say how shards are cut; give --tp as well");
  if (options.tp) return run_sharded_quant(options, job, console);
  const formats::Json report = run_folder_job(job, console);
  console.result(report, summary_text(report));
  return 0;
}

}  // namespace

void add_quant_command(CLI::App& app, const ChooseAction& choose) {
  CLI::App* command = app.add_subcommand("quant", "Quantize a checkpoint");
  auto options = std::make_shared<QuantOptions>();
  command->add_option("--src,--model-path", options->source, "Folder of the float model")
      ->required();
  command->add_option("--dst,--save-path", options->destination, "Folder to write")->required();
  add_recipe_options(*command, *options);
  add_calibration_options(*command, *options);
  add_selection_options(*command, *options);
  add_layout_options(*command, *options);
  command->add_option("--tp", options->tp, "Write shards for so many ranks, as llmq shard does")
      ->check(CLI::Range(1, 1024));
  add_layout_option(*command, options->layout);
  command->add_flag("--pad", options->pad, "With --tp: append zeros to what ranks cannot divide");
  command->add_flag("--force", options->force, "Replace a destination that is not empty");
  command->add_flag("--no-resume", options->no_resume,
                    "Start over although an interrupted run could go on");
  command->add_option("--max-memory", options->max_memory,
                      "Refuse a run that is expected to need more: 4GiB, 512MiB, or bytes");
  command->add_flag("--dry-run", options->dry_run, "Decide and report, write nothing");
  command->footer(kFooter);
  command->callback([options, choose] {
    choose([options](Console& console, const CommonOptions& common) {
      return run_quant(*options, console, common);
    });
  });
}

}  // namespace llmq::convert
