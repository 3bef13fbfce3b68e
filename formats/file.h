#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string_view>

namespace llmq::formats {

/// A file mapped read-only for its whole length. Movable; the bytes stay at their address. All
/// const members are thread-safe. A file that another process truncates while it is mapped raises
/// SIGBUS.
class MappedFile {
 public:
  /// Throws Error{kBadInput} when there is no such regular file, Error{kIo} when it cannot be
  /// mapped.
  explicit MappedFile(const std::filesystem::path& path);
  ~MappedFile();
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  [[nodiscard]] std::span<const std::byte> bytes() const { return {data_, size_bytes_}; }
  [[nodiscard]] const std::filesystem::path& path() const { return path_; }

  /// Asks the kernel to read `part` (inside bytes()) ahead of its use.
  static void prefetch(std::span<const std::byte> part);

  /// Unmaps the whole pages of `part` from this process's resident memory; reading them again maps
  /// them from the page cache again.
  static void release(std::span<const std::byte> part);

 private:
  std::filesystem::path path_;
  const std::byte* data_ = nullptr;
  size_t size_bytes_ = 0;
};

/// A new file written at chosen offsets by any number of threads.
class OutputFile {
 public:
  enum class Mode { kCreate, kReopen };

  /// kCreate makes the file with a length of `size_bytes`, unwritten parts being zero; kReopen
  /// continues one that has that size already. Throws Error{kIo}.
  OutputFile(const std::filesystem::path& path, uint64_t size_bytes, Mode mode = Mode::kCreate);
  ~OutputFile();
  OutputFile(OutputFile&& other) noexcept;
  OutputFile& operator=(OutputFile&&) = delete;
  OutputFile(const OutputFile&) = delete;
  OutputFile& operator=(const OutputFile&) = delete;

  /// Writes all of `bytes` at `offset_bytes`. Thread-safe. Throws Error{kIo}, with a sentence of
  /// its own for a full disk.
  void write_at(uint64_t offset_bytes, std::span<const std::byte> bytes) const;

  /// Returns when everything written is on the disk (fdatasync). Throws Error{kIo}.
  void sync() const;

  [[nodiscard]] const std::filesystem::path& path() const { return path_; }
  [[nodiscard]] uint64_t size_bytes() const { return size_bytes_; }

 private:
  std::filesystem::path path_;
  uint64_t size_bytes_ = 0;
  int fd_ = -1;
};

/// Writes `text` to `path` (created or replaced), then fsyncs it. Throws Error{kIo}.
void write_text_file(const std::filesystem::path& path, std::string_view text);

/// Copies a regular file's content, then fsyncs the copy. Throws Error{kIo} or Error{kBadInput}.
void copy_file_synced(const std::filesystem::path& from, const std::filesystem::path& to);

/// fsync of a directory, so that renames in it survive a power cut. Throws Error{kIo}.
void sync_directory(const std::filesystem::path& path);

/// Free bytes on the file system that holds `path` or its nearest existing parent.
uint64_t free_disk_bytes(const std::filesystem::path& path);

}  // namespace llmq::formats
