#include "formats/file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <string>
#include <utility>

#include "formats/error.h"

namespace llmq::formats {
namespace {

Error write_error(const std::filesystem::path& path, int saved_errno) {
  if (saved_errno == ENOSPC || saved_errno == EDQUOT) {
    return {ErrorCode::kIo, "the disk is full while writing " + path.string() +
                                "; free some space or choose another destination"};
  }
  if (saved_errno == EFBIG) {
    return {ErrorCode::kIo, "the file-size limit is reached while writing " + path.string() +
                                "; raise the limit (ulimit -f) or split with --part_file_size"};
  }
  return io_error("cannot write " + path.string(), saved_errno);
}

void write_all(int fd, const std::filesystem::path& path, uint64_t offset_bytes,
               std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t n = ::pwrite(fd, bytes.data(), bytes.size(), static_cast<off_t>(offset_bytes));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) throw write_error(path, errno);
    bytes = bytes.subspan(static_cast<size_t>(n));
    offset_bytes += static_cast<uint64_t>(n);
  }
}

/// The whole pages inside `part`, as madvise wants them.
std::pair<void*, size_t> whole_pages(std::span<const std::byte> part) {
  const auto page = static_cast<uintptr_t>(::sysconf(_SC_PAGESIZE));
  const auto begin = reinterpret_cast<uintptr_t>(part.data());
  const uintptr_t first = (begin + page - 1) / page * page;
  const uintptr_t last = (begin + part.size()) / page * page;
  if (last <= first) return {nullptr, 0};
  // NOLINTNEXTLINE(performance-no-int-to-ptr): madvise takes an address rounded to a page
  return {reinterpret_cast<void*>(first), last - first};
}

}  // namespace

MappedFile::MappedFile(const std::filesystem::path& path) : path_(path) {
  // O_NONBLOCK: a pipe under the name must be refused, not waited for.
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) {
    if (errno == ENOENT || errno == ENOTDIR) throw bad_input(path.string() + ": no such file");
    throw io_error("cannot open " + path.string(), errno);
  }
  struct stat status {};
  if (::fstat(fd, &status) != 0 || !S_ISREG(status.st_mode)) {
    ::close(fd);
    throw bad_input(path.string() + ": not a regular file");
  }
  size_bytes_ = static_cast<size_t>(status.st_size);
  if (size_bytes_ > 0) {
    void* address = ::mmap(nullptr, size_bytes_, PROT_READ, MAP_SHARED, fd, 0);
    const int saved_errno = errno;
    ::close(fd);
    if (address == MAP_FAILED) throw io_error("cannot map " + path.string(), saved_errno);
    data_ = static_cast<const std::byte*>(address);
  } else {
    ::close(fd);
  }
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) ::munmap(const_cast<std::byte*>(data_), size_bytes_);
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : path_(std::move(other.path_)),
      data_(std::exchange(other.data_, nullptr)),
      size_bytes_(std::exchange(other.size_bytes_, 0)) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(data_, other.data_);
  std::swap(size_bytes_, other.size_bytes_);
  return *this;
}

void MappedFile::prefetch(std::span<const std::byte> part) {
  const auto [address, size_bytes] = whole_pages(part);
  if (size_bytes > 0) ::madvise(address, size_bytes, MADV_WILLNEED);
}

void MappedFile::release(std::span<const std::byte> part) {
  const auto [address, size_bytes] = whole_pages(part);
  if (size_bytes > 0) ::madvise(address, size_bytes, MADV_DONTNEED);
}

OutputFile::OutputFile(const std::filesystem::path& path, uint64_t size_bytes, Mode mode)
    : path_(path), size_bytes_(size_bytes) {
  const int flags = O_RDWR | O_CLOEXEC | (mode == Mode::kCreate ? O_CREAT | O_TRUNC : 0);
  fd_ = ::open(path.c_str(), flags, 0644);
  if (fd_ < 0) throw io_error("cannot create " + path.string(), errno);
  if (mode == Mode::kReopen || size_bytes == 0) return;
  if (::ftruncate(fd_, static_cast<off_t>(size_bytes)) == 0) return;
  const int saved_errno = errno;
  ::close(fd_);
  throw write_error(path, saved_errno);
}

OutputFile::~OutputFile() {
  if (fd_ >= 0) ::close(fd_);
}

OutputFile::OutputFile(OutputFile&& other) noexcept
    : path_(std::move(other.path_)),
      size_bytes_(other.size_bytes_),
      fd_(std::exchange(other.fd_, -1)) {}

void OutputFile::write_at(uint64_t offset_bytes, std::span<const std::byte> bytes) const {
  if (offset_bytes > size_bytes_ || bytes.size() > size_bytes_ - offset_bytes) {
    throw Error(ErrorCode::kInternal,
                fmt::format("write of {} bytes at {} is outside {} of {} bytes", bytes.size(),
                            offset_bytes, path_.string(), size_bytes_));
  }
  write_all(fd_, path_, offset_bytes, bytes);
}

void OutputFile::sync() const {
  if (::fdatasync(fd_) != 0) throw write_error(path_, errno);
}

void write_text_file(const std::filesystem::path& path, std::string_view text) {
  const int fd = ::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (fd < 0) throw io_error("cannot create " + path.string(), errno);
  try {
    write_all(fd, path, 0, std::as_bytes(std::span(text)));
    if (::fsync(fd) != 0) throw write_error(path, errno);
  } catch (...) {
    ::close(fd);
    throw;
  }
  ::close(fd);
}

void copy_file_synced(const std::filesystem::path& from, const std::filesystem::path& to) {
  const MappedFile source(from);
  const std::span<const std::byte> bytes = source.bytes();
  write_text_file(to, {reinterpret_cast<const char*>(bytes.data()), bytes.size()});
}

void sync_directory(const std::filesystem::path& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) throw io_error("cannot open directory " + path.string(), errno);
  const int result = ::fsync(fd);
  const int saved_errno = errno;
  ::close(fd);
  // Some file systems (network mounts) have no fsync for directories; nothing more can be done
  // there.
  if (result != 0 && saved_errno != EINVAL) {
    throw io_error("cannot sync directory " + path.string(), saved_errno);
  }
}

uint64_t free_disk_bytes(const std::filesystem::path& path) {
  std::filesystem::path existing = std::filesystem::absolute(path);
  while (!std::filesystem::exists(existing) && existing.has_relative_path()) {
    existing = existing.parent_path();
  }
  struct statvfs status {};
  if (::statvfs(existing.c_str(), &status) != 0) {
    throw io_error("cannot ask for free space at " + existing.string(), errno);
  }
  return static_cast<uint64_t>(status.f_bavail) * status.f_frsize;
}

}  // namespace llmq::formats
