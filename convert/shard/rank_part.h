#pragma once

#include <cstdint>
#include <filesystem>

#include "convert/shard/shard_manifest.h"
#include "runtime/model/rank_part.h"

namespace llmq::convert {

/// Opens what a rank holds of a folder that was cut, in any layout, compressed or not: the stored
/// tensors are found by the same plan that cut them, and members of fused ones are views of their
/// rows. Throws Error{kBadInput} naming the tensor that is missing or is not what the manifest
/// says.
runtime::RankPart open_rank_part(const std::filesystem::path& folder, const ShardManifest& manifest,
                                 int64_t rank);

}  // namespace llmq::convert
