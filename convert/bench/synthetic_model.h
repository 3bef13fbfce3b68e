#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>

#include "convert/recipes/recipe.h"
#include "formats/json.h"
#include "quant/kernels/thread_team.h"

namespace llmq::convert {

/// What a synthetic model is made from.
struct SyntheticModelJob {
  formats::Json config;          ///< a config.json document
  std::optional<Recipe> recipe;  ///< absent: float
  /// New or empty folder to leave the model in; empty: a temporary one that is removed.
  std::filesystem::path folder;
};

/// A folder with a model of a given shape and quantization whose numbers mean nothing: random codes
/// and scales of a plausible size, a block of which repeats itself throughout. It takes as long to
/// run as a real one. Every tensor, file and key is that of `llmq quant`, whose plan it follows;
/// the weights are made at the speed of memory and are in the page cache afterwards.
class SyntheticModel {
 public:
  /// Throws as make_folder_plan, Error{kUsage} for a folder that holds something, and Error{kIo}
  /// when the files cannot be written.
  SyntheticModel(const SyntheticModelJob& job, quant::ThreadTeam& team);
  /// Removes a temporary folder.
  ~SyntheticModel();
  SyntheticModel(const SyntheticModel&) = delete;
  SyntheticModel& operator=(const SyntheticModel&) = delete;

  [[nodiscard]] const std::filesystem::path& folder() const { return folder_; }

 private:
  std::filesystem::path folder_;
  bool is_temporary_ = false;
};

}  // namespace llmq::convert
