#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "convert/commands/prompts.h"
#include "convert/report/console.h"
#include "formats/json.h"
#include "runtime/model/model.h"

namespace llmq::convert {

/// What `llmq run --embed` says.
struct EmbedResult {
  /// {"embedding", "dimensions", "prompt_ids"} of one text; of several {"results": list of those,
  /// "similarity": matrix of cosines}.
  formats::Json document;
  /// Dimensions and first values of each, and the cosines as a table.
  std::string text;
};

/// Throws Error{kBadInput} where the folder has a 1_Pooling/config.json (of sentence-transformers)
/// that asks for another vector than that of the last token.
void check_pooling(const std::filesystem::path& folder);

/// Embeds the prompts (runtime::embed), showing progress. Throws as runtime::embed, and
/// Error{kInterrupted} when the user interrupts.
EmbedResult embed_prompts(runtime::Model& model, const std::vector<Prompt>& prompts,
                          int64_t max_batch_size, Console& console);

}  // namespace llmq::convert
