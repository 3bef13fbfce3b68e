#include "convert/commands/ranks.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>

#include "convert/commands/folder_options.h"
#include "convert/program.h"
#include "convert/shard/rank_part.h"
#include "convert/shard/shard_manifest.h"
#include "formats/error.h"
#include "runtime/parallel/mpi_ranks.h"
#include "runtime/parallel/thread_ranks.h"

namespace llmq::convert {
namespace {

namespace fs = std::filesystem;
using formats::bad_input;

/// A folder that was cut for ranks.
struct ShardedFolder {
  fs::path path;
  ShardManifest manifest;
  formats::Json document;

  /// What a rank loads belongs to the run of the manifest.
  void check_part(int64_t rank) const {
    check_shard_note(path / rank_folder(manifest.layout, rank, manifest.tp), document, rank);
  }
};

std::optional<ShardedFolder> open_sharded(const ModelCommandOptions& options) {
  const fs::path path = options.folder;
  if (!fs::exists(path / kShardManifestFile)) {
    const int64_t n_ranks = std::max(options.tp, runtime::mpi_launched_ranks().value_or(1));
    if (n_ranks == 1) return std::nullopt;
    throw bad_input(fmt::format(
        "{}: is not cut for ranks; make a folder that is by `llmq shard --tp {} {} DST`",
        options.folder, n_ranks, options.folder));
  }
  ShardedFolder folder{path, read_manifest(path), {}};
  folder.document = manifest_json(folder.manifest);
  if (options.tp != 0 && options.tp != folder.manifest.tp) {
    throw bad_input(
        fmt::format("{}: was cut for {} ranks, not {}; run it with --tp {} or cut the "
                    "model again",
                    options.folder, folder.manifest.tp, options.tp, folder.manifest.tp));
  }
  return folder;
}

int run_as_threads(const ShardedFolder& folder, const RankPlace& all, const RankBody& body) {
  const int64_t tp = folder.manifest.tp;
  int exit_code = 0;
  runtime::run_thread_ranks(tp, [&](runtime::Communicator& ranks) {
    Console silent(all.common.json, LogLevel::kQuiet);
    silent.mute();
    folder.check_part(ranks.rank());
    RankPlace place{folder.path, &folder.manifest, &ranks, all.common,
                    ranks.rank() == 0 ? all.console : &silent};
    place.common.n_threads = static_cast<int>(std::max<int64_t>(1, thread_count(all.common) / tp));
    const int code = body(place);
    if (ranks.rank() == 0) exit_code = code;
  });
  return exit_code;
}

int run_as_process(const ShardedFolder& folder, const RankPlace& all, const RankBody& body) {
  int exit_code = 0;
  const auto on_error = [&](int64_t rank) {
    return run_action(
        [rank](Console&, const CommonOptions&) -> int {
          try {
            throw;
          } catch (const formats::Error& error) {
            if (rank == 0) throw;
            throw error.with_context(fmt::format("rank {}", rank));
          }
        },
        *all.console, all.common);
  };
  runtime::run_mpi_rank(
      [&](runtime::Communicator& ranks) {
        Console silent(all.common.json, LogLevel::kQuiet);
        silent.mute();
        folder.check_part(ranks.rank());
        const RankPlace place{folder.path, &folder.manifest, &ranks, all.common,
                              ranks.rank() == 0 ? all.console : &silent};
        const int code = body(place);
        if (ranks.rank() == 0) exit_code = code;
      },
      on_error);
  return exit_code;
}

}  // namespace

runtime::ModelOptions model_options(const ModelCommandOptions& options, const RankPlace& place) {
  runtime::ModelOptions result = model_options(options, place.common);
  result.ranks = place.ranks;
  return result;
}

std::unique_ptr<runtime::Model> load_model(const ModelCommandOptions& options,
                                           const RankPlace& place) {
  const runtime::ModelOptions run = model_options(options, place);
  if (place.manifest == nullptr) return runtime::Model::load(place.folder, run);
  return runtime::Model::load_part(
      open_rank_part(place.folder, *place.manifest, place.ranks->rank()), place.folder, run);
}

int run_over_ranks(const ModelCommandOptions& options, Console& console,
                   const CommonOptions& common, const RankBody& body) {
  const RankPlace all{options.folder, nullptr, nullptr, common, &console};
  const std::optional<ShardedFolder> folder = open_sharded(options);
  if (!folder) return body(all);
  const int64_t n_launched = runtime::mpi_launched_ranks().value_or(1);
  if (n_launched == 1) return run_as_threads(*folder, all, body);
  if (n_launched != folder->manifest.tp) {
    throw formats::usage_error(
        fmt::format("{} processes were launched for a model that was cut for {} ranks; start "
                    "`mpirun -n {}`",
                    n_launched, folder->manifest.tp, folder->manifest.tp));
  }
  return run_as_process(*folder, all, body);
}

}  // namespace llmq::convert
