#include "formats/staging.h"

#include <fmt/format.h>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <string>
#include <system_error>

#include "formats/error.h"
#include "formats/file.h"

namespace llmq::formats {
namespace {

namespace fs = std::filesystem;

/// Absolute, without "." and "..", symbolic links of existing parts resolved, no trailing slash.
/// Throws Error{kBadInput} where links lead in a circle, Error{kIo} where a part cannot be read.
fs::path resolved(const fs::path& path) {
  std::error_code error;
  fs::path result = fs::weakly_canonical(fs::absolute(path), error);
  if (error == std::errc::too_many_symbolic_link_levels)
    throw bad_input(path.string() + " is a link that leads in a circle; remove it");
  if (error) throw io_error("cannot look up " + path.string(), error.value());
  if (!result.has_filename()) result = result.parent_path();
  return result;
}

/// True where a file system is mounted on the folder, so that no rename can replace it.
bool is_mount_point(const fs::path& folder) {
  struct statx status {};
  if (::statx(AT_FDCWD, folder.c_str(), 0, STATX_BASIC_STATS, &status) != 0) return false;
  return (status.stx_attributes_mask & status.stx_attributes & STATX_ATTR_MOUNT_ROOT) != 0;
}

bool is_inside(const fs::path& inner, const fs::path& outer) {
  const auto [inner_at, outer_at] =
      std::mismatch(inner.begin(), inner.end(), outer.begin(), outer.end());
  return outer_at == outer.end();
}

fs::path sibling(const fs::path& destination, const char* suffix) {
  return destination.parent_path() / fmt::format(".{}{}", destination.filename().string(), suffix);
}

}  // namespace

void check_destination(const fs::path& destination, const fs::path& source, bool force) {
  const fs::path to = resolved(destination);
  const fs::path from = resolved(source);
  const std::string name = destination.string();
  if (is_inside(to, from)) {
    throw bad_input("destination " + name +
                    " is the source folder or inside it; choose a folder elsewhere");
  }
  if (is_inside(from, to)) {
    throw bad_input("destination " + name +
                    " contains the source folder; choose a folder elsewhere");
  }
  if (fs::is_symlink(to)) {
    throw bad_input("destination " + name +
                    " is a link to a folder that does not exist; make that folder or remove the "
                    "link");
  }
  if (fs::exists(to) && is_mount_point(to)) {
    throw bad_input("destination " + name +
                    " is a mount point, which cannot be replaced; choose a folder inside it");
  }
  if (fs::exists(to) && !fs::is_directory(to)) {
    throw bad_input("destination " + name + " is a file; choose another folder");
  }
  if (fs::exists(to) && !fs::is_empty(to) && !force) {
    throw bad_input("destination " + name +
                    " is not empty; choose another folder or give --force to replace it");
  }
}

StagingFolder::StagingFolder(const fs::path& destination, const fs::path& source, bool force)
    : destination_(resolved(destination)), staging_(sibling(destination_, ".llmq-partial")) {
  check_destination(destination, source, force);
  std::error_code error;
  fs::create_directories(destination_.parent_path(), error);
  if (!error) fs::create_directory(staging_, error);
  if (!error && ::access(staging_.c_str(), W_OK) != 0) error.assign(errno, std::generic_category());
  if (error) {
    throw Error(ErrorCode::kIo, "cannot write beside destination " + destination.string() + ": " +
                                    error.message() + "; choose a folder that you may write to");
  }
}

StagingFolder::~StagingFolder() {
  if (is_kept_) return;
  std::error_code ignored;
  fs::remove_all(staging_, ignored);
}

void StagingFolder::clear() const {
  for (const auto& entry : fs::directory_iterator(staging_)) fs::remove_all(entry.path());
}

void StagingFolder::commit() {
  sync_directory(staging_);
  const fs::path old = sibling(destination_, ".llmq-old");
  std::error_code error;
  fs::remove_all(old, error);
  const bool had_destination = fs::exists(destination_);
  if (had_destination) fs::rename(destination_, old, error);
  if (!error) fs::rename(staging_, destination_, error);
  if (error) {
    const std::string reason = error.message();
    if (had_destination && !fs::exists(destination_)) fs::rename(old, destination_, error);
    throw Error(ErrorCode::kIo, "cannot rename " + staging_.string() + " to " +
                                    destination_.string() + ": " + reason);
  }
  sync_directory(destination_.parent_path());
  is_kept_ = true;
  fs::remove_all(old, error);
}

}  // namespace llmq::formats
