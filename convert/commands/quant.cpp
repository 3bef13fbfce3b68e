#include <fmt/format.h>

#include <memory>

#include "convert/commands/commands.h"
#include "convert/commands/folder_options.h"
#include "convert/report/summary.h"
#include "formats/error.h"

namespace llmq::convert {
namespace {

constexpr const char* kFooter =
    "Example:\n"
    "  llmq quant -src Qwen2.5-7B-Instruct -dst Qwen2.5-7B-w8a8 -type qwen_w8a8 -calib "
    "boolq.jsonl\n"
    "The source is never touched; the destination appears only when it is complete and conforms.";

int run_quant(const FolderOptions& options, Console& console, const CommonOptions& common) {
  FolderJob job = folder_job(options, common);
  if (job.ledger.dtype == formats::DType::kF32) {
    throw formats::usage_error(
        "--dtype float32: engines load quantized models in float16 or bfloat16; choose one of "
        "them");
  }
  job.recipe = chosen_recipe(options);
  const formats::Json report = run_folder_job(job, console);
  console.result(report, summary_text(report));
  return 0;
}

}  // namespace

void add_quant_command(CLI::App& app, const ChooseAction& choose) {
  CLI::App* command = app.add_subcommand("quant", "Quantize a checkpoint");
  auto options = std::make_shared<FolderOptions>();
  command->add_option("--src,--model-path", options->source, "Folder of the float model")
      ->required();
  command->add_option("--dst,--save-path", options->destination, "Folder to write")->required();
  add_recipe_options(*command, *options);
  add_calibration_options(*command, *options);
  add_selection_options(*command, *options);
  add_layout_options(*command, *options);
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
