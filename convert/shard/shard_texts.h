#pragma once

#include <cstdint>
#include <filesystem>

#include "convert/shard/shard_manifest.h"
#include "convert/shard/stored_layout.h"

namespace llmq::convert {

/// Writes what says how the weights of a sharded folder are read: config.json, description, the
/// notes of the ranks and, last, the manifest, whose checksums are there by now. Where --pad made
/// extents larger, the config.json that an engine reads has the larger sizes: in layout hf that of
/// each rank's folder, else the one at the top; the original is in the manifest. Throws Error{kIo}.
void write_shard_texts(const ShardManifest& manifest, const StoredLayout& layout,
                       const std::filesystem::path& folder);

}  // namespace llmq::convert
