#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "formats/checkpoint.h"
#include "formats/description.h"
#include "formats/model_config.h"
#include "formats/slicing.h"

namespace llmq::runtime {

/// Where the rows of a linear lie in a compressed matrix that holds those of others too.
struct CompressedPlace {
  int64_t n_stored = 0;   ///< rows of the stored matrix
  int64_t first_row = 0;  ///< of this linear
};

/// What one rank holds of a model, whatever names an engine gave to its files and tensors: found
/// under the names of the whole model.
struct RankPart {
  formats::ModelConfig config;      ///< of the whole model
  formats::ModelConfig own_config;  ///< formats::rank_config of what this rank holds
  /// This rank's heads that no head of the model stands behind.
  std::vector<int64_t> padded_heads;
  std::unique_ptr<formats::Description> description;  ///< null: all weights are float
  formats::Checkpoint checkpoint;
  formats::EmbeddingCut embedding = formats::EmbeddingCut::kVocabulary;
  /// Compressed linears (module path) that share a stored matrix with others.
  std::map<std::string, CompressedPlace, std::less<>> compressed;
};

/// A whole model as the part of its only rank. Throws Error{kBadInput} for what does not fit
/// together.
RankPart whole_model(const std::filesystem::path& folder);

}  // namespace llmq::runtime
