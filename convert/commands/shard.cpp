#include <memory>
#include <optional>
#include <string>

#include "convert/commands/commands.h"
#include "convert/commands/folder_options.h"
#include "convert/shard/shard_folder.h"

namespace llmq::convert {
namespace {

constexpr const char* kShardFooter =
    "Examples:\n"
    "  llmq shard --tp 4 Qwen2.5-7B-w8a8 Qwen2.5-7B-w8a8-tp4\n"
    "  llmq shard --tp 8 --pad Qwen2.5-72B-w4a16 Qwen2.5-72B-w4a16-tp8\n"
    "  llmq shard --tp 4 --layout mindie Qwen2.5-7B-w8a8s Qwen2.5-7B-w8a8s-tp4\n"
    "Nothing is read of the weights before it is clear that all of them can be cut.";

constexpr const char* kMergeFooter =
    "Example:\n"
    "  llmq merge Qwen2.5-7B-w8a8-tp4 Qwen2.5-7B-w8a8\n"
    "Every tensor is compared with the checksum of the original.";

/// Folders and options as they come from the command line.
template <typename Job>
struct FoldersAndJob {
  std::string source;
  std::string destination;
  Job job;
};

/// The job with what all commands give.
template <typename Job>
Job completed(const FoldersAndJob<Job>& options, const CommonOptions& common) {
  Job job = options.job;
  job.source = options.source;
  job.destination = options.destination;
  job.n_threads = thread_count(common);
  return job;
}

}  // namespace

void add_shard_command(CLI::App& app, const ChooseAction& choose) {
  CLI::App* command =
      app.add_subcommand("shard", "Cut a checkpoint for tensor-parallel ranks, as engines do");
  auto options = std::make_shared<FoldersAndJob<ShardJob>>();
  command->add_option("SRC", options->source, "Folder of the model, float or quantized")
      ->required();
  command
      ->add_option("DST", options->destination, "Folder to write: one folder a rank and a manifest")
      ->required();
  command->add_option("--tp", options->job.tp, "Number of ranks")
      ->required()
      ->check(CLI::Range(1, 1024));
  auto layout = std::make_shared<std::optional<formats::ShardLayout>>();
  add_layout_option(*command, *layout);
  command->add_flag("--pad", options->job.pad,
                    "Append zeros to what the ranks cannot divide (heads are always padded)");
  command->add_flag("--force", options->job.force, "Replace a destination that is not empty");
  command->footer(kShardFooter);
  command->callback([options, layout, choose] {
    choose([options, layout](Console& console, const CommonOptions& common) {
      ShardJob job = completed(*options, common);
      job.layout = layout->value_or(formats::ShardLayout::kHf);
      const formats::Json report = run_shard_job(job, console);
      console.result(report, shard_text(report));
      return 0;
    });
  });
}

void add_merge_command(CLI::App& app, const ChooseAction& choose) {
  CLI::App* command =
      app.add_subcommand("merge", "Put shards together: the checkpoint that was cut, byte by byte");
  auto options = std::make_shared<FoldersAndJob<MergeJob>>();
  command->add_option("SRC", options->source, "Folder that llmq shard wrote")->required();
  command->add_option("DST", options->destination, "Folder to write")->required();
  command->add_flag("--force", options->job.force, "Replace a destination that is not empty");
  command->footer(kMergeFooter);
  command->callback([options, choose] {
    choose([options](Console& console, const CommonOptions& common) {
      const formats::Json report = run_merge_job(completed(*options, common), console);
      console.result(report, merge_text(report));
      return 0;
    });
  });
}

}  // namespace llmq::convert
