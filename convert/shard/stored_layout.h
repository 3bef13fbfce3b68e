#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "convert/shard/shard_manifest.h"
#include "convert/shard/shard_plan.h"
#include "formats/checkpoint.h"
#include "formats/description.h"

namespace llmq::convert {

/// A tensor of a manifest.
struct ManifestPlace {
  size_t file = 0;
  size_t tensor = 0;
};

/// A tensor as every rank stores it; all ranks have the same shapes.
struct StoredPart {
  std::string name;
  formats::DType dtype = formats::DType::kF32;
  formats::Shape shape;
  /// What it holds, one behind the other, where each begins, and where the last one ends; behind
  /// that come zeros. Empty: the engine wants zeros of which the model has none.
  std::vector<ManifestPlace> members;
  std::vector<uint64_t> begins{0};
  std::string tag;  ///< in the description

  [[nodiscard]] uint64_t end() const { return begins.back(); }
  [[nodiscard]] uint64_t size_bytes() const { return formats::tensor_size_bytes(dtype, shape); }
};

/// A weight file that every rank stores.
struct StoredFile {
  std::string name;  ///< for the layout that has one folder for all: vllm_weight_file instead
  std::map<std::string, std::string> metadata;
  std::vector<StoredPart> parts;  ///< in the order of their bytes
};

/// Where a rank stores its part of a tensor.
struct StoredPlace {
  size_t file = 0;
  size_t part = 0;
  size_t member = 0;  ///< within the part
  /// Another tensor of the fused module has the same value, which is stored for both.
  bool is_shared = false;
};

/// Files, names and tensors of a layout.
struct StoredLayout {
  ShardLayout layout = ShardLayout::kHf;
  std::vector<StoredFile> files;
  /// Of each tensor of each file of the manifest.
  std::vector<std::vector<StoredPlace>> places;

  /// The file's name in the folder of a rank.
  [[nodiscard]] std::string file_name(size_t file, int64_t rank) const;
  [[nodiscard]] const StoredPart& part(const StoredPlace& place) const {
    return files[place.file].parts[place.part];
  }
};

/// Decides what ranks store. MindIE: names of formats::EngineNames, the embedding with one more row
/// of zeros, and a bias of zeros for norms before linears with static activations that have none;
/// members of a fused module that are not stored alike stay apart. vLLM: the same names in one
/// file; Throws Error{kBadInput} for members that differ, which it cannot load.
StoredLayout make_stored_layout(const ShardManifest& manifest, const ShardPlan& plan);

/// Throws Error{kBadInput} naming two tensors of a fused module that must have the same value, but
/// do not. Reads scalars only.
void check_shared_values(const formats::Checkpoint& source, const ShardManifest& manifest,
                         const StoredLayout& layout);

/// The description of a rank's weights: for kHf the original, for kMindie that of the stored names,
/// for kVllm both.
formats::Description stored_description(const ShardManifest& manifest, const StoredLayout& layout);

}  // namespace llmq::convert
