#pragma once

#include <map>
#include <string>
#include <unordered_map>
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
  /// Tags of the description, by tensor; empty for a float model.
  std::unordered_map<std::string, std::string> tags;
  /// Of each tensor of each file of the manifest.
  std::vector<std::vector<formats::TensorCut>> cuts;

  /// The part of a rank of a tensor of the manifest.
  [[nodiscard]] formats::TensorSlice slice(const ManifestTensor& tensor,
                                           const formats::TensorCut& cut, int64_t rank) const;
};

/// Decides the cuts. Throws Error{kBadInput} for a tensor that cannot be cut, with the TP and group
/// sizes that could, and for what the original config.json and description say wrong.
ShardPlan make_shard_plan(const ShardManifest& manifest);

/// How a model is to be cut.
struct ShardOptions {
  int64_t tp = 1;
  ShardLayout layout = ShardLayout::kHf;
  bool pad = false;  ///< append zeros to extents that do not divide
};

/// The manifest of a checkpoint that is to be cut; checksums are still 0, and what --pad does is
/// not yet in it.
ShardManifest manifest_of(const formats::Checkpoint& source, const ShardOptions& options);

/// The sizes that --pad gave, by the keys of config.json.
std::map<std::string, int64_t> padded_config_sizes(const ShardPlan& plan);

}  // namespace llmq::convert
