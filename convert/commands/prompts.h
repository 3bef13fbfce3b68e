#pragma once

#include <optional>
#include <string>
#include <vector>

#include "runtime/tokenizer/tokenizer.h"

namespace llmq::convert {

/// What `llmq run` is asked to continue.
struct PromptOptions {
  std::vector<std::string> texts;  ///< texts, or names of files that hold one
  std::string dictionary;          ///< JSON list of {"prompt", "max_output_length"}
  std::string ids;                 ///< "1,2,3", a JSON list of ids, or a JSON list of such lists
  bool is_chat = false;            ///< put each text into the model's chat format as a user's turn
  bool is_embedding = false;       ///< end each text as the tokenizer ends texts for embedding
  int64_t max_input_length = 0;    ///< tokens; 0: as many as the model takes
  int64_t max_output_length = 128;
};

struct Prompt {
  std::vector<int32_t> ids;
  int64_t max_output_length = 0;
};

/// The prompts as token ids. A text that names a regular file stands for the file's content, and a
/// file whose name ends in .jsonl for one prompt a line (a string, or an object with "prompt").
/// Throws Error{kUsage} or Error{kBadInput} with a sentence for what cannot be understood, a prompt
/// longer than max_input_length, and a model that has no tokenizer although texts are given.
std::vector<Prompt> read_prompts(const PromptOptions& options, const std::string& model_folder,
                                 const std::optional<runtime::Tokenizer>& tokenizer);

}  // namespace llmq::convert
