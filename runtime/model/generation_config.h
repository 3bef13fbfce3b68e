#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <vector>

#include "formats/model_config.h"

namespace llmq::runtime {

/// Where texts of a model begin and end.
struct GenerationConfig {
  std::vector<int32_t> stop_ids;        ///< any of them ends a text; may be empty
  std::optional<int32_t> bos_token_id;  ///< what an empty prompt becomes
};

/// Reads generation_config.json of a model folder (eos_token_id: an id or a list; bos_token_id).
/// What it does not say, and everything where there is no such file, is taken from config.json.
/// Throws Error{kBadInput} naming the key that is not a token id of the vocabulary.
GenerationConfig read_generation_config(const std::filesystem::path& folder,
                                        const formats::ModelConfig& config);

}  // namespace llmq::runtime
