#include "runtime/tokenizer/tokenizer_model.h"

#include <fmt/format.h>

#include <utility>

#include "formats/error.h"
#include "runtime/tokenizer/json_fields.h"

namespace llmq::runtime {
namespace {

Vocabulary build_vocabulary(const TokenizerSpec& spec) {
  Vocabulary vocabulary;
  for (const auto& [token, id] : spec.bpe.vocabulary) vocabulary.add(token, id);
  for (const AddedToken& token : spec.added_tokens) vocabulary.add(token);
  return vocabulary;
}

AddedTokenMatcher build_matcher(const TokenizerSpec& spec, bool normalized) {
  std::vector<AddedToken> tokens;
  std::vector<std::string> patterns;
  for (const AddedToken& token : spec.added_tokens) {
    if (token.normalized != normalized) continue;
    tokens.push_back(token);
    patterns.push_back(normalized ? spec.normalizer.apply(token.content) : token.content);
  }
  return {std::move(tokens), patterns};
}

DecoderSpec decoder_spec(const TokenizerSpec& spec) {
  DecoderSpec decoder = spec.decoder;
  for (const AddedToken& token : spec.added_tokens) {
    if (token.normalized) decoder.contents[token.id] = spec.normalizer.apply(token.content);
  }
  return decoder;
}

void check_merges(const TokenizerSpec& spec, const Bpe& bpe, const Vocabulary& vocabulary) {
  size_t n_missing = 0;
  int32_t first = 0;
  for (const int32_t id : bpe.unreachable_ids()) {
    if (!vocabulary.is_added(id) && n_missing++ == 0) first = id;
  }
  if (n_missing == 0) return;
  throw formats::bad_input(
      fmt::format("there are {} merges, but {} of the {} tokens of the vocabulary are made by none "
                  "of them (the "
                  "first is {}, id {}); the list of merges is incomplete, copy the file again",
                  spec.bpe.merges.size(), n_missing, spec.bpe.vocabulary.size(),
                  in_quotes(vocabulary.content(first)), first));
}

}  // namespace

TokenizerModel::TokenizerModel(TokenizerSpec spec)
    : vocabulary(build_vocabulary(spec)),
      normalizer(spec.normalizer),
      raw_tokens(build_matcher(spec, false)),
      normalized_tokens(build_matcher(spec, true)),
      pre_tokenizer(std::move(spec.pre_tokenizer)),
      bpe(spec.bpe),
      decoder(decoder_spec(spec), vocabulary),
      prefix_ids(std::move(spec.prefix_ids)),
      suffix_ids(std::move(spec.suffix_ids)),
      adds_bos(spec.adds_bos),
      adds_eos(spec.adds_eos),
      bos_id(spec.bos_id),
      eos_ids(std::move(spec.eos_ids)) {
  if (spec.needs_all_merges) check_merges(spec, bpe, vocabulary);
  if (pre_tokenizer.splitters.empty() && bpe.cuts_by_merge_pairs()) {
    pre_tokenizer.splitters.push_back(new_merge_pair_splitter(bpe.merge_pairs()));
  }
}

}  // namespace llmq::runtime
