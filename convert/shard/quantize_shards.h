#pragma once

#include "convert/pipeline/quantize_folder.h"
#include "convert/report/console.h"
#include "convert/shard/shard_plan.h"
#include "formats/json.h"

namespace llmq::convert {

/// Quantizes as run_folder_job does and cuts the result as run_shard_job does; the destination is
/// the folder of shards. The unsharded result lies beside it meanwhile (".NAME.llmq-unsharded"),
/// so that the disk holds both for a while; an interrupted quantization goes on from there. What
/// cannot be cut is refused before any weight is read. Returns the report of quantization, with
/// that of cutting as "shards". Throws Error as both do.
formats::Json run_sharded_folder_job(const FolderJob& job, const ShardOptions& options,
                                     Console& console);

}  // namespace llmq::convert
