#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "formats/json.h"
#include "runtime/tokenizer/pre_tokenizer.h"
#include "runtime/tokenizer/vocabulary.h"

namespace llmq::runtime {

/// How token contents become text, as read from a file.
struct DecoderSpec {
  bool byte_level = false;     ///< contents are written in the byte-level alphabet
  bool byte_fallback = false;  ///< <0x00> to <0xFF> are bytes
  struct Replacement {
    std::string pattern, content;
  };
  std::vector<Replacement> replacements;  ///< inside each token, in order
  size_t n_strip = 0;                     ///< at most so many `strip` at the start are dropped
  char strip = ' ';
  std::optional<Metaspace> metaspace;  ///< replaced by spaces; dropped in the first token
  /// Tokens whose text is not their content: what normalized added tokens stand for in the text.
  std::unordered_map<int32_t, std::string> contents;

  /// From the value of the key "decoder": ByteLevel, Metaspace, or a Sequence of Replace,
  /// ByteFallback, Fuse, Strip in this order (each optional). Null: byte-level where the
  /// pre-tokenizer is, else contents are joined as they are. Throws Error{kBadInput} that names
  /// what is not supported.
  static DecoderSpec parse(const formats::Json& node, bool byte_level_default);
};

/// Bytes of each token, ready to be joined. Immutable and thread-safe.
class Decoder {
 public:
  Decoder() = default;
  Decoder(const DecoderSpec& spec, const Vocabulary& vocabulary);

  /// Bytes that token `id` adds to the text; `is_first`: no token was decoded before it. `id` must
  /// be in the vocabulary's range; a hole gives nothing.
  [[nodiscard]] std::string_view bytes_of(int32_t id, bool is_first) const;

  [[nodiscard]] size_t n_strip() const { return n_strip_; }
  [[nodiscard]] char strip() const { return strip_; }

 private:
  std::string arena_;
  std::vector<size_t> begins_;      // in arena_, one more than there are ids
  std::vector<std::string> first_;  // metaspace only: as first token
  size_t n_strip_ = 0;
  char strip_ = ' ';
};

}  // namespace llmq::runtime
