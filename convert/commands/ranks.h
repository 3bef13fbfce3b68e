#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>

#include "convert/commands/commands.h"
#include "convert/commands/model_options.h"
#include "convert/shard/shard_manifest.h"
#include "runtime/parallel/communicator.h"

namespace llmq::convert {

/// Where a command runs as one rank of several, or alone.
struct RankPlace {
  std::filesystem::path folder;             ///< of the model or of all its parts
  const ShardManifest* manifest = nullptr;  ///< of a folder that was cut, else null
  runtime::Communicator* ranks = nullptr;   ///< null for a whole model
  CommonOptions common;                     ///< with this rank's share of the threads
  Console* console = nullptr;               ///< says nothing on ranks above 0

  [[nodiscard]] bool is_first() const { return ranks == nullptr || ranks->rank() == 0; }
};

/// The runtime's options of a command at a place.
runtime::ModelOptions model_options(const ModelCommandOptions& options, const RankPlace& place);

/// The model of a place, or its rank's part. Throws as runtime::Model::load and open_rank_part.
std::unique_ptr<runtime::Model> load_model(const ModelCommandOptions& options,
                                           const RankPlace& place);

/// What each rank does; returns an exit code, of which rank 0's counts.
using RankBody = std::function<int(const RankPlace&)>;

/// Runs a command on a model. On a folder that was cut for ranks (`llmq shard`): once for each of
/// them, as threads of this process, or, where an MPI launcher started it, as the rank that this
/// process is. All ranks do the same work on the same text; rank 0 alone reports. Throws
/// Error{kBadInput} where --tp differs from the ranks that the folder was cut for, or the folder is
/// whole; Error{kUsage} where the launcher started another number of processes.
int run_over_ranks(const ModelCommandOptions& options, Console& console,
                   const CommonOptions& common, const RankBody& body);

}  // namespace llmq::convert
