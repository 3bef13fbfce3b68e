#pragma once

#include <filesystem>
#include <ostream>
#include <string>
#include <vector>

namespace llmq::test {

/// One way in which a checkpoint folder can be wrong.
struct BrokenCheckpoint {
  std::string name;  ///< alphanumeric and '_': becomes part of the test's name
  /// Makes the folder, and breaks it.
  void (*make)(const std::filesystem::path& folder);
  /// What the sentence must name: file, tensor, key or value.
  std::vector<std::string> words;
  /// Whether the headers alone give it away, so that `llmq plan` must refuse it as well.
  bool seen_in_headers = true;
};

/// For assertion messages: its name.
void PrintTo(const BrokenCheckpoint& broken, std::ostream* stream);

/// Broken safetensors files, missing shards, wrong indices.
const std::vector<BrokenCheckpoint>& broken_files();

/// Tensors that are not what the configuration asks for, and weights that are no numbers.
const std::vector<BrokenCheckpoint>& broken_tensors();

/// Wrong config.json.
const std::vector<BrokenCheckpoint>& broken_configs();

}  // namespace llmq::test
