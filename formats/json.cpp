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

/// Builds the value while it checks depth and duplicate keys. Keys are appended without the linear
/// search that ordered_json makes on each insertion: a vocabulary has 150,000 of them.
class CheckedBuilder : public nlohmann::json_sax<Json> {
 public:
  CheckedBuilder(std::string_view origin, size_t max_depth)
      : origin_(origin), max_depth_(max_depth) {}

  [[nodiscard]] Json take() { return std::move(root_); }

  bool null() override { return add(nullptr); }
  bool boolean(bool value) override { return add(value); }
  bool number_integer(number_integer_t value) override { return add(value); }
  bool number_unsigned(number_unsigned_t value) override { return add(value); }
  bool number_float(number_float_t value, const string_t&) override { return add(value); }
  bool string(string_t& value) override { return add(std::move(value)); }
  bool binary(binary_t&) override { return false; }
  bool start_object(size_t) override {
    keys_.emplace_back();
    return enter(Json::object());
  }
  bool key(string_t& name) override {
    if (keys_.back().insert(name).second) {
      next_key_ = std::move(name);
      return true;
    }
    throw bad_input(
        fmt::format("{}: the key \"{}\" appears twice in one object; remove one of them", origin_,
                    name.substr(0, 200)));
  }
  bool end_object() override {
    keys_.pop_back();
    open_.pop_back();
    return true;
  }
  bool start_array(size_t) override { return enter(Json::array()); }
  bool end_array() override {
    open_.pop_back();
    return true;
  }
  bool parse_error(size_t position, const std::string&,
                   const nlohmann::detail::exception& e) override {
    std::string reason = e.what();
    if (const size_t at = reason.find("syntax error"); at != std::string::npos) reason.erase(0, at);
    // What follows quotes the file's bytes, which may be anything.
    if (const size_t at = reason.find("; last read"); at != std::string::npos) reason.erase(at);
    throw bad_input(
        fmt::format("{}: not valid JSON at byte {} ({}); the file is damaged or truncated", origin_,
                    position, reason.substr(0, 200)));
  }

 private:
  bool enter(Json container) {
    if (open_.size() == max_depth_) {
      throw bad_input(
          fmt::format("{}: JSON nested deeper than {} levels; refused", origin_, max_depth_));
    }
    open_.push_back(append(std::move(container)));
    return true;
  }
  bool add(Json value) {
    append(std::move(value));
    return true;
  }
  Json* append(Json value) {
    if (open_.empty()) {
      root_ = std::move(value);
      return &root_;
    }
    Json& parent = *open_.back();
    if (parent.is_array()) {
      auto& elements = parent.get_ref<Json::array_t&>();
      elements.push_back(std::move(value));
      return &elements.back();
    }
    auto& members = static_cast<Json::object_t::Container&>(parent.get_ref<Json::object_t&>());
    members.emplace_back(std::move(next_key_), std::move(value));
    return &members.back().second;
  }

  std::string_view origin_;
  size_t max_depth_;
  Json root_;
  std::vector<Json*> open_;  // the containers that are not closed yet; only the last one grows
  std::string next_key_;
  std::vector<std::set<std::string>> keys_;
};

class FileDescriptor {
 public:
  /// O_NONBLOCK: a pipe under the name must be refused, not waited for.
  explicit FileDescriptor(const std::filesystem::path& path)
      : fd_(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)) {}
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
  CheckedBuilder builder(origin, limits.max_depth);
  Json::sax_parse(text.begin(), text.end(), &builder);
  return builder.take();
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

void append_key(Json& object, std::string key, Json value) {
  object.get_ref<Json::object_t&>().Json::object_t::Container::emplace_back(std::move(key),
                                                                            std::move(value));
}

}  // namespace llmq::formats
