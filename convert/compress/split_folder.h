#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "convert/compress/compressed_file.h"
#include "convert/compress/compressed_note.h"
#include "convert/shard/shard_manifest.h"
#include "formats/checkpoint.h"

namespace llmq::convert {

/// A weight file of the split folder, as compression goes through it.
struct SplitFile {
  int64_t rank = 0;
  std::string split;                   ///< path inside the split folder
  std::string name;                    ///< path inside the compressed folder
  std::vector<TensorToStore> tensors;  ///< in the order of their bytes
  std::map<std::string, std::string> metadata;
};

/// A folder of shards that are to be compressed. Immutable; thread safe.
class SplitFolder {
 public:
  /// Opens what run_shard_job wrote. Throws Error{kBadInput}.
  explicit SplitFolder(const std::filesystem::path& folder);

  [[nodiscard]] const ShardManifest& manifest() const { return manifest_; }
  [[nodiscard]] const std::string& fingerprint() const { return fingerprint_; }
  [[nodiscard]] const std::vector<SplitFile>& files() const { return files_; }

  /// Writes everything but weight files and indexes to `to`: texts that change with the
  /// compression, which are noted, and all other files as they are.
  void write_texts(const std::filesystem::path& to, CompressedNote& note) const;

  /// Writes the index of each folder that has one for the entries of its files (by
  /// SplitFile::name), and notes it.
  void write_indexes(const std::filesystem::path& to,
                     const std::map<std::string, std::vector<formats::TensorEntry>>& entries,
                     CompressedNote& note) const;

 private:
  void open_rank(int64_t rank);
  [[nodiscard]] std::vector<std::string> other_files() const;

  std::filesystem::path folder_;
  ShardManifest manifest_;
  std::string fingerprint_;
  std::vector<formats::Checkpoint> ranks_;
  std::vector<SplitFile> files_;
  std::set<std::string> coded_;       // names of coded weights of any rank
  std::vector<std::string> indexes_;  // paths of index files
};

/// "quant_model_weight_w8a8s.safetensors" → "quant_model_weight_w8a8sc.safetensors"; a name without
/// the scheme stays as it is.
std::string compressed_file_name(const std::string& name);

}  // namespace llmq::convert
