#pragma once

#include <filesystem>

namespace llmq::formats {

/// A destination folder that appears only complete. Work goes to a hidden folder beside it
/// (".NAME.llmq-partial"); commit() renames that into place. One process per destination.
class StagingFolder {
 public:
  /// Checks that `destination` may be written: absent or empty (or `force`), not the source, not
  /// inside it, not a folder that contains it, and nothing that a rename cannot replace (a mount
  /// point, a link to nothing). A link to a folder is followed. Throws Error{kBadInput} with the
  /// remedy, Error{kIo} where the parent is not writable. Makes or reopens the staging folder.
  StagingFolder(const std::filesystem::path& destination, const std::filesystem::path& source,
                bool force);

  /// Removes the staging folder unless it was committed or kept.
  ~StagingFolder();
  StagingFolder(const StagingFolder&) = delete;
  StagingFolder& operator=(const StagingFolder&) = delete;

  /// Where to write now.
  [[nodiscard]] const std::filesystem::path& path() const { return staging_; }
  [[nodiscard]] const std::filesystem::path& destination() const { return destination_; }

  /// Empties the staging folder.
  void clear() const;

  /// Leaves the staging folder in place when this object goes away, for a later run to resume.
  void keep_for_resume() { is_kept_ = true; }

  /// Syncs the staging folder and renames it to the destination; with force, what was there before
  /// is removed after the rename. Throws Error{kIo}.
  void commit();

 private:
  std::filesystem::path destination_;
  std::filesystem::path staging_;
  bool is_kept_ = false;
};

/// The checks of StagingFolder without making anything; for dry runs.
void check_destination(const std::filesystem::path& destination,
                       const std::filesystem::path& source, bool force);

}  // namespace llmq::formats
