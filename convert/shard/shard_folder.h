#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

#include "convert/report/console.h"
#include "convert/shard/shard_manifest.h"
#include "formats/json.h"

namespace llmq::convert {

/// A checkpoint to be cut for tensor-parallel ranks.
struct ShardJob {
  std::filesystem::path source;  ///< a float or quantized folder; only read
  std::filesystem::path destination;
  int64_t tp = 1;
  ShardLayout layout = ShardLayout::kHf;
  bool pad = false;    ///< append zeros to extents that do not divide
  bool force = false;  ///< replace a destination that is not empty
  int n_threads = 1;
};

/// Writes for each rank its part of every tensor, cut as serving engines cut it (column parallel:
/// rows; row parallel: columns, biases on rank 0 alone; key heads divided or replicated; query
/// heads padded within their group; head by vocabulary; embedding by vocabulary, or by hidden for
/// MindIE), in the folders and files and under the names of the layout; and a manifest from which
/// run_merge_job restores the source. The destination appears only complete. Memory does not depend
/// on the model's size. The bytes written do not depend on the number of threads. Returns {"tp",
/// "layout", "fingerprint", "tensors", "source_bytes", "rank_bytes": one a rank, "padded": {extent:
/// size}}. Throws Error{kBadInput} before any weight is read where something cannot be cut, with
/// the sizes that could; Error{kUsage}, Error{kIo}, Error{kInterrupted}.
formats::Json run_shard_job(const ShardJob& job, Console& console);

/// Shards to be put together.
struct MergeJob {
  std::filesystem::path source;  ///< a folder that run_shard_job wrote; only read
  std::filesystem::path destination;
  bool force = false;  ///< replace a destination that is not empty
  int n_threads = 1;
};

/// Restores the checkpoint that was cut: tensors, names, dtypes and the split into files, each
/// tensor checked against the checksum of the original. The destination appears only complete.
/// Returns {"tp", "fingerprint", "tensors", "written_bytes"}. Throws Error{kBadInput} naming the
/// rank and tensor that is missing, damaged, or of another run; Error{kIo}, Error{kInterrupted}.
formats::Json run_merge_job(const MergeJob& job, Console& console);

/// The report of either job for people.
std::string shard_text(const formats::Json& report);
std::string merge_text(const formats::Json& report);

}  // namespace llmq::convert
