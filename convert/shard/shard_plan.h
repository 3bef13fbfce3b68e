#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "convert/shard/shard_manifest.h"
#include "formats/checkpoint.h"
#include "formats/model_config.h"
#include "formats/slicing.h"

namespace llmq::convert {

/// How a model is cut for every rank, decided from names, shapes and configuration alone, so that
/// cutting and putting together follow from the same manifest.
struct ShardPlan {
  formats::Partition partition;
  /// Of each tensor of each file of the manifest.
  std::vector<std::vector<formats::TensorCut>> cuts;

  /// The part of a rank of a tensor of the manifest.
  [[nodiscard]] formats::TensorSlice slice(const ManifestTensor& tensor,
                                           const formats::TensorCut& cut, int64_t rank) const;
};

/// Decides the cuts. `folder` holds config.json and, for quantized models, the description. Throws
/// Error{kBadInput} for a tensor that cannot be cut, with the TP and group sizes that could, and
/// for what the two files say wrong.
ShardPlan make_shard_plan(const ShardManifest& manifest, const std::filesystem::path& folder);

/// The manifest of a checkpoint that is to be cut; checksums are still 0.
ShardManifest manifest_of(const formats::Checkpoint& source, int64_t tp, bool is_padded);

}  // namespace llmq::convert
