#include "convert/shard/shard_texts.h"

#include <string>
#include <vector>

#include "formats/file.h"
#include "formats/model_config.h"
#include "formats/scheme.h"

namespace llmq::convert {
namespace {

using formats::Json;
namespace fs = std::filesystem;

constexpr const char* kConfigFile = "config.json";

/// config.json as the engine of the layout reads it; the original text where nothing changes.
std::string engine_config(const ShardManifest& manifest) {
  const std::string& original = manifest.originals.at(kConfigFile);
  const Json document = formats::parse_json(original, kConfigFile);
  Json changes = Json::object();
  for (const auto& [key, size] : manifest.padded) changes[key] = size;
  const auto description = manifest.description();
  if (manifest.layout == ShardLayout::kMindie && description && !document.contains("quantize")) {
    const auto scheme = formats::parse_scheme_tag(description->second.model_quant_type);
    changes["quantize"] = formats::scheme_row(scheme).quantize;
  }
  return changes.empty() ? original : formats::rewrite_config(document, changes, {}).dump(2) + "\n";
}

void write_descriptions(const ShardManifest& manifest, const StoredLayout& layout,
                        const std::vector<fs::path>& folders, const fs::path& top) {
  const auto original = manifest.description();
  if (!original) return;
  const std::string& name = original->first;
  if (manifest.layout == ShardLayout::kHf) {
    formats::write_text_file(top / name, manifest.originals.at(name));
    for (const fs::path& folder : folders)
      formats::write_text_file(folder / name, manifest.originals.at(name));
    return;
  }
  const std::string text =
      formats::description_json(stored_description(manifest, layout)).dump(2) + "\n";
  for (const fs::path& folder : folders) formats::write_text_file(folder / name, text);
}

}  // namespace

void write_shard_texts(const ShardManifest& manifest, const StoredLayout& layout,
                       const fs::path& folder) {
  const bool is_hf = manifest.layout == ShardLayout::kHf;
  const Json document = manifest_json(manifest);
  std::vector<fs::path> folders;
  for (int64_t rank = 0; rank < manifest.tp; ++rank)
    folders.push_back(folder / rank_folder(manifest.layout, rank, manifest.tp));
  formats::write_text_file(folder / kConfigFile,
                           is_hf ? manifest.originals.at(kConfigFile) : engine_config(manifest));
  write_descriptions(manifest, layout, folders, folder);
  for (int64_t rank = 0; rank < manifest.tp; ++rank) {
    const fs::path& path = folders[static_cast<size_t>(rank)];
    if (is_hf) formats::write_text_file(path / kConfigFile, engine_config(manifest));
    formats::write_text_file(path / shard_note_file(manifest.layout, rank),
                             shard_note(document, rank).dump(1) + "\n");
    formats::sync_directory(path);
  }
  formats::write_text_file(folder / kShardManifestFile, document.dump(1) + "\n");
}

}  // namespace llmq::convert
