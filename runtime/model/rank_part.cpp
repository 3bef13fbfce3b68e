#include "runtime/model/rank_part.h"

#include <utility>

#include "formats/dialect.h"

namespace llmq::runtime {

RankPart whole_model(const std::filesystem::path& folder) {
  formats::ModelConfig config = formats::read_model_config(folder);
  const auto path = formats::find_description(folder);
  auto description =
      path ? std::make_unique<formats::Description>(formats::read_description(*path)) : nullptr;
  formats::Checkpoint checkpoint = formats::Checkpoint::open(folder);
  config.bare_names = formats::has_bare_names(checkpoint);
  return {.config = config,
          .own_config = config,
          .padded_heads = {},
          .description = std::move(description),
          .checkpoint = std::move(checkpoint),
          .embedding = formats::EmbeddingCut::kVocabulary,
          .compressed = {}};
}

}  // namespace llmq::runtime
