#pragma once

#include <cstddef>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "formats/dtype.h"
#include "formats/file.h"

namespace llmq::formats {

/// A tensor of a checkpoint, pointing into a mapped file.
struct StoredTensor {
  std::string name;
  DType dtype = DType::kF32;
  Shape shape;
  std::span<const std::byte> bytes;  ///< row-major little-endian; any alignment
  size_t file_index = 0;             ///< into Checkpoint::files()
};

/// All tensors of a folder: one safetensors file, or several with an index. Only headers are read
/// when it is opened. Immutable afterwards and thread-safe; tensors live as long as the checkpoint.
class Checkpoint {
 public:
  /// Opens `folder`. Files may be symbolic links to anywhere, as download caches make them. Throws
  /// Error{kBadInput} when no weights are found, a shard is missing, an index names a file outside
  /// the folder, a tensor that its shard lacks, or lacks one that a shard has, or when a tensor is
  /// there twice; Error{kIo} when a file cannot be mapped.
  static Checkpoint open(const std::filesystem::path& folder);

  /// Opens one weight file of a folder that holds those of several checkpoints. Errors as open().
  static Checkpoint open_file(const std::filesystem::path& folder, const std::string& name);

  /// The files of `stored` with other tensors, whose bytes lie in them: renamed ones, or parts of
  /// those stored. Throws Error{kBadInput} where two have one name.
  static Checkpoint of_views(Checkpoint stored, std::vector<StoredTensor> tensors);

  /// In file order, then by offset.
  [[nodiscard]] const std::vector<StoredTensor>& tensors() const { return tensors_; }

  /// Null when there is none of that name.
  [[nodiscard]] const StoredTensor* find(std::string_view name) const;

  /// Throws Error{kBadInput} naming the folder when there is none of that name.
  [[nodiscard]] const StoredTensor& at(std::string_view name) const;

  [[nodiscard]] const std::filesystem::path& folder() const { return folder_; }
  /// Names of the weight files inside the folder.
  [[nodiscard]] const std::vector<std::string>& files() const { return file_names_; }
  /// The index file's name, where there is one.
  [[nodiscard]] const std::optional<std::string>& index_file() const { return index_file_; }
  /// Bytes of all tensors.
  [[nodiscard]] uint64_t size_bytes() const;

 private:
  void add_file(const std::string& name);
  void add_indexed_files();

  std::filesystem::path folder_;
  std::optional<std::string> index_file_;
  std::vector<std::string> file_names_;
  std::vector<MappedFile> mapped_;
  std::vector<StoredTensor> tensors_;
  std::unordered_map<std::string, size_t> by_name_;
};

}  // namespace llmq::formats
