#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "formats/dtype.h"
#include "formats/file.h"
#include "formats/json.h"
#include "formats/safetensors.h"
#include "runtime/model/model.h"

namespace llmq::testing {

/// A folder of its own under the system's temporary directory, removed at the end.
class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string name = (std::filesystem::temp_directory_path() / "llmq-test-XXXXXX").string();
    path_ = ::mkdtemp(name.data());
  }
  ~TemporaryFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;

  [[nodiscard]] const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

/// A tensor to be written.
struct NewTensor {
  formats::DType dtype = formats::DType::kF32;
  formats::Shape shape;
  std::vector<std::byte> bytes;
};

using NewTensors = std::map<std::string, NewTensor>;

template <typename T>
NewTensor new_tensor(formats::DType dtype, formats::Shape shape, const std::vector<T>& values) {
  NewTensor tensor{dtype, std::move(shape), std::vector<std::byte>(values.size() * sizeof(T))};
  std::memcpy(tensor.bytes.data(), values.data(), tensor.bytes.size());
  return tensor;
}

inline std::filesystem::path golden_root() {
  return std::filesystem::path(LLMQ_TEST_SOURCE_DIR) / "golden";
}

/// Folder of data that is not ours; may be absent.
inline std::filesystem::path data_root() {
  const char* set = std::getenv("LLMQ_TEST_DATA");
  return set != nullptr ? std::filesystem::path(set)
                        : std::filesystem::path(LLMQ_TEST_SOURCE_DIR) / "../../shared/data";
}

/// All tensors of a checkpoint, copied.
NewTensors read_tensors(const std::filesystem::path& folder);

/// Values of a float tensor.
std::vector<float> float_values(const NewTensor& tensor);

/// Writes config.json and model.safetensors.
void write_model(const std::filesystem::path& folder, const formats::Json& config,
                 const NewTensors& tensors);

/// Logits [tokens, vocab] of `tokens` as one new sequence.
std::vector<float> all_logits(runtime::Model& model, std::span<const int32_t> tokens);

}  // namespace llmq::testing
