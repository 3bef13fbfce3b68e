#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "runtime/tokenizer/added_tokens.h"
#include "runtime/tokenizer/bpe.h"
#include "runtime/tokenizer/decoder.h"
#include "runtime/tokenizer/normalizer.h"
#include "runtime/tokenizer/pre_tokenizer.h"
#include "runtime/tokenizer/vocabulary.h"

namespace llmq::runtime {

/// What a tokenizer's files say, before the tables are built.
struct TokenizerSpec {
  BpeSpec bpe;
  /// Every token of more than one symbol that is no added token must come out of some merge, which
  /// finds truncated lists of merges by counting them against the vocabulary.
  bool needs_all_merges = false;
  std::vector<AddedToken> added_tokens;
  Normalizer normalizer;
  PreTokenizer pre_tokenizer;
  DecoderSpec decoder;
  std::vector<int32_t> prefix_ids;  ///< put before a text with add_bos
  std::vector<int32_t> suffix_ids;  ///< put after a text with add_eos
  bool adds_bos = false;
  bool adds_eos = false;
  std::optional<int32_t> bos_id;
  std::vector<int32_t> eos_ids;
};

/// The tables of a tokenizer. Immutable and thread-safe.
struct TokenizerModel {
  /// Throws Error{kBadInput} where the parts contradict each other.
  explicit TokenizerModel(TokenizerSpec spec);

  Vocabulary vocabulary;
  Normalizer normalizer;
  AddedTokenMatcher raw_tokens;         ///< searched in the text as it comes
  AddedTokenMatcher normalized_tokens;  ///< searched in normalized segments
  PreTokenizer pre_tokenizer;
  Bpe bpe;
  Decoder decoder;
  std::vector<int32_t> prefix_ids;
  std::vector<int32_t> suffix_ids;
  bool adds_bos = false;
  bool adds_eos = false;
  std::optional<int32_t> bos_id;
  std::vector<int32_t> eos_ids;
};

}  // namespace llmq::runtime
