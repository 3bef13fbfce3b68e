#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <stdexcept>
#include <string>

#include "formats/error.h"

// What tests of every storey need: folders of their own, whole files, data from outside, errors.
namespace llmq::test {

/// An empty folder that disappears, with its content, at the end of the scope.
class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string pattern = (std::filesystem::temp_directory_path() / "llmq-test-XXXXXX").string();
    if (mkdtemp(pattern.data()) == nullptr) {
      throw std::runtime_error("mkdtemp failed for " + pattern);
    }
    path_ = pattern;
  }
  ~TemporaryFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;

  [[nodiscard]] const std::filesystem::path& path() const { return path_; }
  [[nodiscard]] std::filesystem::path operator/(const std::string& name) const {
    return path_ / name;
  }

 private:
  std::filesystem::path path_;
};

/// Whole content of a file; throws std::runtime_error when it cannot be read.
inline std::string read_file(const std::filesystem::path& path) {
  std::ifstream stream(path, std::ios::binary);
  if (!stream) {
    throw std::runtime_error("cannot read " + path.string());
  }
  return {std::istreambuf_iterator<char>(stream), std::istreambuf_iterator<char>()};
}

/// Creates or replaces a file; throws std::runtime_error when it cannot be written.
inline void write_file(const std::filesystem::path& path, const std::string& bytes) {
  std::ofstream stream(path, std::ios::binary);
  stream.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  if (!stream.flush()) {
    throw std::runtime_error("cannot write " + path.string());
  }
}

/// Folder of data that is not ours: LLMQ_TEST_DATA, or shared/data beside the repository. It may be
/// absent; tests that need it then skip.
inline std::filesystem::path test_data_folder() {
  const char* folder = std::getenv("LLMQ_TEST_DATA");
  return folder != nullptr ? std::filesystem::path(folder)
                           : std::filesystem::path(LLMQ_TEST_SOURCE_DIR) / "../../shared/data";
}

/// Message of the formats::Error that `act` throws; a test failure, and an empty text, when it
/// throws nothing or an error of another code.
inline std::string error_message(formats::ErrorCode code, const std::function<void()>& act) {
  try {
    act();
  } catch (const formats::Error& error) {
    EXPECT_EQ(formats::error_code_name(error.code()), formats::error_code_name(code))
        << error.what();
    return error.code() == code ? error.what() : "";
  }
  ADD_FAILURE() << "no error was thrown";
  return "";
}

}  // namespace llmq::test
