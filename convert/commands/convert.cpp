#include <memory>

#include "convert/commands/commands.h"
#include "convert/commands/folder_options.h"
#include "convert/report/summary.h"

namespace llmq::convert {
namespace {

constexpr const char* kFooter =
    "Examples:\n"
    "  llmq convert Qwen2.5-0.5B Qwen2.5-0.5B-fp16 --dtype float16\n"
    "  llmq convert Qwen2.5-7B Qwen2.5-7B-parts --part_file_size 2";

int run_convert(const FolderOptions& options, Console& console, const CommonOptions& common) {
  FolderJob job = folder_job(options, common);
  if (!job.ledger.dtype) job.ledger.dtype = source_dtype(job.source);
  // A float copy has no reason to hold a tied matrix twice.
  job.ledger.keep_tied = true;
  const formats::Json report = run_folder_job(job, console);
  console.result(report, summary_text(report));
  return 0;
}

}  // namespace

void add_convert_command(CLI::App& app, const ChooseAction& choose) {
  CLI::App* command = app.add_subcommand("convert", "Cast and re-shard a float checkpoint");
  auto options = std::make_shared<FolderOptions>();
  command->add_option("SRC", options->source, "Folder of the float model")->required();
  command->add_option("DST", options->destination, "Folder to write")->required();
  command->add_option("--dtype", options->dtype,
                      "float16, bfloat16 or float32 (default: the source's)");
  command
      ->add_option("--part-file-size", options->part_size_gib,
                   "Split weight files at this many GiB")
      ->check(CLI::NonNegativeNumber);
  command->add_flag("--force", options->force, "Replace a destination that is not empty");
  command->add_flag("--no-resume", options->no_resume,
                    "Start over although an interrupted run could go on");
  command->add_flag("--dry-run", options->dry_run, "Decide and report, write nothing");
  command->footer(kFooter);
  command->callback([options, choose] {
    choose([options](Console& console, const CommonOptions& common) {
      return run_convert(*options, console, common);
    });
  });
}

}  // namespace llmq::convert
