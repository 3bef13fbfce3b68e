#include <memory>

#include "convert/commands/commands.h"
#include "convert/commands/folder_options.h"
#include "convert/repair/repair_folder.h"
#include "convert/report/summary.h"
#include "formats/error.h"

namespace llmq::convert {
namespace {

constexpr const char* kFooter =
    "Examples:\n"
    "  llmq convert Qwen2.5-0.5B Qwen2.5-0.5B-fp16 --dtype float16\n"
    "  llmq convert Qwen2.5-7B Qwen2.5-7B-parts --part_file_size 2\n"
    "  llmq convert --repair Qwen2.5-7B-w8a8 Qwen2.5-7B-w8a8-fp16 --dtype float16\n"
    "  llmq convert --repair Qwen2.5-7B-mix Qwen2.5-7B-dynamic --to w8a8_dynamic";

/// What --repair adds to the options of the command.
struct RepairOptions {
  bool is_asked = false;
  std::string to;      ///< "w8a8", "w8a8_dynamic" or empty
  std::string engine;  ///< "mindie", "vllm-ascend" or empty
};

int run_repair(const FolderOptions& options, const RepairOptions& repair, Console& console,
               const CommonOptions& common) {
  const FolderJob folder = folder_job(options, common);
  if (options.part_size_gib > 0 || options.dry_run)
    throw formats::usage_error("--repair keeps the files as they are cut, and has no dry run");
  if (folder.ledger.dtype == formats::DType::kF32)
    throw formats::usage_error("--dtype float32: quantized folders are float16 or bfloat16");
  RepairJob job{{options.source, folder.ledger.dtype, std::nullopt, std::nullopt},
                options.destination,
                options.force,
                folder.n_threads};
  if (!repair.to.empty()) {
    job.request.to = repair.to == "w8a8" ? formats::Scheme::kW8A8 : formats::Scheme::kW8A8Dynamic;
  }
  if (!repair.engine.empty()) {
    job.request.engine = repair.engine == "mindie" ? Engine::kMindIe : Engine::kVllmAscend;
  }
  const formats::Json report = run_repair_job(job, console);
  console.result(report, repair_text(report));
  if (report["conformance"]["ok"].get<bool>()) return 0;
  console.warn(
      "the folder was written, but still breaks a rule; what no repair mends needs the float "
      "model");
  return static_cast<int>(formats::ErrorCode::kGate);
}

int run_convert(const FolderOptions& options, const RepairOptions& repair, Console& console,
                const CommonOptions& common) {
  if (repair.is_asked) return run_repair(options, repair, console, common);
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
  CLI::App* command = app.add_subcommand(
      "convert", "Cast and re-shard a float checkpoint, or repair a quantized folder");
  auto options = std::make_shared<FolderOptions>();
  auto repair = std::make_shared<RepairOptions>();
  command
      ->add_option("SRC", options->source,
                   "Folder of the float model (--repair: of the quantized one)")
      ->required();
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
  CLI::Option* is_repair = command->add_flag(
      "--repair", repair->is_asked,
      "Write a repaired copy of a quantized folder: encodings for its dtype, description, config");
  command->add_option("--to", repair->to, "With --repair, from W8A8_MIX: w8a8 or w8a8_dynamic")
      ->check(CLI::IsMember({"w8a8", "w8a8_dynamic"}))
      ->needs(is_repair);
  command
      ->add_option("--engine", repair->engine,
                   "With --repair: mindie or vllm-ascend, whose names and keys the folder gets")
      ->check(CLI::IsMember({"mindie", "vllm-ascend"}))
      ->needs(is_repair);
  command->footer(kFooter);
  command->callback([options, repair, choose] {
    choose([options, repair](Console& console, const CommonOptions& common) {
      return run_convert(*options, *repair, console, common);
    });
  });
}

}  // namespace llmq::convert
