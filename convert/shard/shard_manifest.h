#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "formats/checkpoint.h"
#include "formats/description.h"
#include "formats/dtype.h"
#include "formats/engine_names.h"
#include "formats/json.h"
#include "formats/model_config.h"

namespace llmq::convert {

/// Name of the manifest at the top of a sharded folder.
inline constexpr std::string_view kShardManifestFile = "llmq_shards.json";

using formats::ShardLayout;

/// The folder of a rank inside a sharded folder; empty for the layout that has one for all.
std::string rank_folder(ShardLayout layout, int64_t rank, int64_t tp);

/// Name of the note that says which run a rank's weights belong to, inside its folder.
std::string shard_note_file(ShardLayout layout, int64_t rank);

/// Name of the weight file of a rank in the layout that has one folder for all.
std::string vllm_weight_file(int64_t rank);

/// A tensor of the unsharded model.
struct ManifestTensor {
  std::string name;
  formats::DType dtype = formats::DType::kF32;
  formats::Shape shape;
  uint32_t crc32 = 0;  ///< of its bytes, as zlib computes it
};

/// A weight file of the unsharded model.
struct ManifestFile {
  std::string name;
  std::map<std::string, std::string> metadata;  ///< its header's __metadata__
  std::vector<ManifestTensor> tensors;          ///< in the order of their bytes
};

/// What a sharded folder says about the model that it was made of: enough to put it together again.
struct ShardManifest {
  int64_t tp = 1;
  ShardLayout layout = ShardLayout::kHf;
  bool is_padded = false;  ///< made with --pad
  /// Sizes that --pad gave to extents (by the key of config.json), which config.json then has too.
  std::map<std::string, int64_t> padded;
  bool bare_names = false;  ///< ModelConfig::bare_names of the model
  std::optional<std::string> index_file;
  std::vector<ManifestFile> files;
  /// config.json, the description and the index as they were, by name.
  std::map<std::string, std::string> originals;

  /// The original config.json. Throws Error{kBadInput}.
  [[nodiscard]] formats::ModelConfig config() const;

  /// The original description and its name; nothing for a float model. Throws Error{kBadInput}.
  [[nodiscard]] std::optional<std::pair<std::string, formats::Description>> description() const;
};

/// The manifest as a document, with the fingerprint of everything in it.
formats::Json manifest_json(const ShardManifest& manifest);

/// Eight hexadecimal digits that differ between models, TP sizes and layouts: the CRC-32 of the
/// document without its fingerprint.
std::string manifest_fingerprint(const formats::Json& document);

/// Reads `folder`/llmq_shards.json. Throws Error{kBadInput} where it is missing, was changed by
/// hand, is of a later version, or names files outside the folder.
ShardManifest read_manifest(const std::filesystem::path& folder);

/// The note of a rank's folder.
formats::Json shard_note(const formats::Json& manifest, int64_t rank);

/// Throws Error{kBadInput} where the folder of a rank is missing or belongs to another run, TP size
/// or rank than the manifest.
void check_shard_note(const std::filesystem::path& rank_path, const formats::Json& manifest,
                      int64_t rank);

/// The weights of a rank of a sharded folder. Throws Error{kBadInput} where they are missing.
formats::Checkpoint open_rank(const std::filesystem::path& folder, const ShardManifest& manifest,
                              int64_t rank);

}  // namespace llmq::convert
