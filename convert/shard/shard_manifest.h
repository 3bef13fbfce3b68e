#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "formats/dtype.h"
#include "formats/json.h"

namespace llmq::convert {

/// Name of the manifest at the top of a sharded folder.
inline constexpr std::string_view kShardManifestFile = "llmq_shards.json";
/// Name of the note in each rank's folder that says which run it belongs to.
inline constexpr std::string_view kShardNoteFile = "llmq_shard.json";

/// How the ranks' folders, files and tensors are called.
enum class ShardLayout : uint8_t {
  kHf,  ///< rank-{r}/, with the files and names of the unsharded model
};

/// "hf", ...
std::string_view shard_layout_name(ShardLayout layout);

/// Inverse of shard_layout_name. Throws Error{kBadInput} listing the known layouts.
ShardLayout parse_shard_layout(std::string_view name);

/// The folder of a rank inside a sharded folder.
std::string rank_folder(ShardLayout layout, int64_t rank, int64_t tp);

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
  bool is_padded = false;   ///< made with --pad
  bool bare_names = false;  ///< ModelConfig::bare_names of the model
  std::optional<std::string> index_file;
  std::vector<ManifestFile> files;
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

}  // namespace llmq::convert
