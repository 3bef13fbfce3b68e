#include "formats/json.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <set>
#include <vector>

#include "formats/error.h"

namespace llmq::formats {
namespace {

/// Sees every event of a text before a value is built, so that depth and duplicate keys are refused
/// without allocating what a hostile text describes.
class LimitChecker : public nlohmann::json_sax<Json> {
 public:
  LimitChecker(std::string_view origin, size_t max_depth)
      : origin_(origin), max_depth_(max_depth) {}

  bool null() override { return true; }
  bool boolean(bool) override { return true; }
  bool number_integer(number_integer_t) override { return true; }
  bool number_unsigned(number_unsigned_t) override { return true; }
  bool number_float(number_float_t, const string_t&) override { return true; }
  bool string(string_t&) override { return true; }
  bool binary(binary_t&) override { return true; }
  bool start_object(size_t) override {
    keys_.emplace_back();
    return enter();
  }
  bool key(string_t& name) override {
    if (keys_.back().insert(name).second) return true;
    throw bad_input(
        fmt::format("{}: the key \"{}\" appears twice in one object; remove one of them", origin_,
                    name.substr(0, 200)));
  }
  bool end_object() override {
    keys_.pop_back();
    --depth_;
    return true;
  }
  bool start_array(size_t) override { return enter(); }
  bool end_array() override {
    --depth_;
    return true;
  }
  bool parse_error(size_t position, const std::string&,
                   const nlohmann::detail::exception& e) override {
    std::string reason = e.what();
    if (const size_t at = reason.find("syntax error"); at != std::string::npos) reason.erase(0, at);
    throw bad_input(
        fmt::format("{}: not valid JSON at byte {} ({}); the file is damaged or truncated", origin_,
                    position, reason.substr(0, 200)));
  }

 private:
  bool enter() {
    if (++depth_ <= max_depth_) return true;
    throw bad_input(
        fmt::format("{}: JSON nested deeper than {} levels; refused", origin_, max_depth_));
  }

  std::string_view origin_;
  size_t max_depth_;
  size_t depth_ = 0;
  std::vector<std::set<std::string>> keys_;
};

class FileDescriptor {
 public:
  explicit FileDescriptor(const std::filesystem::path& path)
      : fd_(::open(path.c_str(), O_RDONLY | O_CLOEXEC)) {}
  ~FileDescriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  FileDescriptor(const FileDescriptor&) = delete;
  FileDescriptor& operator=(const FileDescriptor&) = delete;
  [[nodiscard]] int get() const { return fd_; }

 private:
  int fd_;
};

}  // namespace

Json parse_json(std::string_view text, std::string_view origin, const JsonLimits& limits) {
  if (text.size() > limits.max_bytes) {
    throw bad_input(fmt::format("{}: {} bytes of JSON, more than the {} allowed", origin,
                                text.size(), limits.max_bytes));
  }
  LimitChecker checker(origin, limits.max_depth);
  Json::sax_parse(text.begin(), text.end(), &checker);
  return Json::parse(text.begin(), text.end());
}

Json read_json_file(const std::filesystem::path& path, const JsonLimits& limits) {
  return parse_json(read_text_file(path, limits.max_bytes), path.string(), limits);
}

std::string read_text_file(const std::filesystem::path& path, size_t max_bytes) {
  const FileDescriptor file(path);
  if (file.get() < 0) {
    if (errno == ENOENT || errno == ENOTDIR) throw bad_input(path.string() + ": no such file");
    throw io_error("cannot open " + path.string(), errno);
  }
  struct stat status {};
  if (::fstat(file.get(), &status) != 0) throw io_error("cannot stat " + path.string(), errno);
  if (!S_ISREG(status.st_mode)) throw bad_input(path.string() + ": not a regular file");
  if (static_cast<uint64_t>(status.st_size) > max_bytes) {
    throw bad_input(fmt::format("{}: {} bytes, more than the {} allowed", path.string(),
                                status.st_size, max_bytes));
  }
  std::string text(static_cast<size_t>(status.st_size), '\0');
  size_t n_read = 0;
  while (n_read < text.size()) {
    const ssize_t n = ::read(file.get(), text.data() + n_read, text.size() - n_read);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) throw io_error("cannot read " + path.string(), errno);
    if (n == 0) throw bad_input(path.string() + ": shrank while it was read");
    n_read += static_cast<size_t>(n);
  }
  return text;
}

}  // namespace llmq::formats
