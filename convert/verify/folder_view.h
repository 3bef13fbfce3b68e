#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "formats/architecture.h"
#include "formats/checkpoint.h"
#include "formats/description.h"
#include "formats/model_config.h"
#include "formats/scheme.h"

namespace llmq::convert {

/// A linear of a folder with the scheme that the description gives it.
struct LinearView {
  std::string module;
  const formats::ExpectedTensor* expected = nullptr;
  formats::Scheme scheme = formats::Scheme::kFloat;
};

/// A folder as the rules see it: weights, config.json and, for quantized ones, the description.
class FolderView {
 public:
  /// Throws Error{kBadInput} when weights, config.json or the description cannot be read.
  explicit FolderView(const std::filesystem::path& folder);

  [[nodiscard]] const formats::Checkpoint& checkpoint() const { return checkpoint_; }
  [[nodiscard]] const formats::Json& config_document() const { return config_document_; }
  [[nodiscard]] const formats::ModelConfig& config() const { return config_; }
  [[nodiscard]] const std::optional<formats::Description>& description() const {
    return description_;
  }
  /// Every linear of the architecture table that the folder has.
  [[nodiscard]] const std::vector<LinearView>& linears() const { return linears_; }
  /// Tag of a tensor in the description; empty where it has none.
  [[nodiscard]] std::string_view tag_of(const std::string& tensor) const;
  /// dtype that engines will run the float tensors in.
  [[nodiscard]] formats::DType model_dtype() const { return config_.torch_dtype; }

 private:
  formats::Checkpoint checkpoint_;
  formats::Json config_document_;
  formats::ModelConfig config_;
  std::optional<formats::Description> description_;
  std::unordered_map<std::string, std::string> tags_;
  std::vector<formats::ExpectedTensor> expected_;
  std::vector<LinearView> linears_;
};

/// Elements of a tensor as float64; for small tensors. Throws Error{kBadInput} for FP8.
std::vector<double> tensor_values(const formats::StoredTensor& tensor);

}  // namespace llmq::convert
