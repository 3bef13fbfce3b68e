#include <fmt/format.h>

#include <memory>
#include <string>

#include "convert/commands/commands.h"
#include "convert/commands/folder_options.h"
#include "convert/compress/compress_folder.h"
#include "formats/error.h"

namespace llmq::convert {
namespace {

constexpr const char* kFooter =
    "Examples:\n"
    "  llmq sparse-compress --tp 4 --model_path Qwen2.5-7B-w8a8s --save_directory "
    "Qwen2.5-7B-w8a8sc\n"
    "  llmq sparse-compress --decompress --model_path Qwen2.5-7B-w8a8sc --save_directory "
    "Qwen2.5-7B-split\n"
    "Codes are kept exactly; the coding is llmq's own (docs/w8a8sc.md). Ascend's hardware reads "
    "another, which only\n"
    "the vendor's compressor writes: give it the folder of --save_split_w8a8s_dir.";

/// Options as they come from the command line.
struct SparseOptions {
  std::string model_path;
  std::string save_directory;
  std::string split_directory;
  std::string codec = "rans";
  std::string layout = "mindie";
  int64_t tp = 0;
  int n_workers = 0;
  bool decompress = false;
  bool pad = false;
  bool force = false;
  bool no_resume = false;
};

int worker_count(const SparseOptions& options, const CommonOptions& common) {
  return options.n_workers > 0 ? options.n_workers : thread_count(common);
}

ShardLayout chosen_layout(const std::string& name) {
  try {
    const ShardLayout layout = formats::parse_shard_layout(name);
    if (layout != ShardLayout::kVllm) return layout;
  } catch (const formats::Error& error) {
    throw formats::usage_error(std::string("--layout: ") + error.what());
  }
  throw formats::usage_error(
      "--layout vllm: its one folder for all ranks is not compressed; known are mindie and hf");
}

formats::Json compress(const SparseOptions& options, const CommonOptions& common,
                       Console& console) {
  if (options.tp == 0)
    throw formats::usage_error("--tp is needed: the number of ranks to cut the model for");
  CompressJob job;
  job.source = options.model_path;
  job.destination = options.save_directory;
  job.split = options.split_directory;
  job.tp = options.tp;
  job.layout = chosen_layout(options.layout);
  job.codec = quant::parse_codec(options.codec);
  job.pad = options.pad;
  job.force = options.force;
  job.may_resume = !options.no_resume;
  job.n_threads = worker_count(options, common);
  return run_compress_job(job, console);
}

formats::Json decompress(const SparseOptions& options, const CommonOptions& common,
                         Console& console) {
  if (options.tp != 0 || !options.split_directory.empty()) {
    throw formats::usage_error(
        "--decompress takes neither --tp nor --save_split_w8a8s_dir; it restores the split folder "
        "in --save_directory");
  }
  DecompressJob job;
  job.source = options.model_path;
  job.destination = options.save_directory;
  job.force = options.force;
  job.n_threads = worker_count(options, common);
  return run_decompress_job(job, console);
}

void add_options(CLI::App& command, SparseOptions& options) {
  command.add_option("--model-path", options.model_path, "W8A8S folder; with --decompress W8A8SC")
      ->required();
  command.add_option("--save-directory", options.save_directory, "Folder to write")->required();
  command.add_option("--tp", options.tp, "Number of ranks")->check(CLI::Range(1, 1024));
  command.add_option("--save-split-w8a8s-dir", options.split_directory,
                     "Keep the cut, uncompressed folder here, for the vendor's compressor");
  command.add_option("--codec", options.codec,
                     "rans (default: smaller, faster) or deflate (read by any zlib)");
  command.add_option("--layout", options.layout,
                     "Names and folders of the ranks: mindie (default) or hf");
  command
      .add_option("--multiprocess-num", options.n_workers,
                  "Threads, under the vendor's name; the files are the same for any number")
      ->check(CLI::Range(1, 1024));
  command.add_flag("--decompress", options.decompress, "Go back to the split W8A8S folder");
  command.add_flag("--pad", options.pad,
                   "Append zeros to what the ranks cannot divide (heads are always padded)");
  command.add_flag("--force", options.force, "Replace a destination that is not empty");
  command.add_flag("--no-resume", options.no_resume,
                   "Start over although an interrupted run could go on");
}

}  // namespace

void add_sparse_compress_command(CLI::App& app, const ChooseAction& choose) {
  CLI::App* command = app.add_subcommand(
      "sparse-compress", "Cut a W8A8S checkpoint for ranks and compress it without loss (W8A8SC)");
  auto options = std::make_shared<SparseOptions>();
  add_options(*command, *options);
  command->footer(kFooter);
  command->callback([options, choose] {
    choose([options](Console& console, const CommonOptions& common) {
      if (options->decompress) {
        const formats::Json report = decompress(*options, common, console);
        console.result(report, decompress_text(report));
      } else {
        const formats::Json report = compress(*options, common, console);
        console.result(report, compress_text(report));
      }
      return 0;
    });
  });
}

}  // namespace llmq::convert
