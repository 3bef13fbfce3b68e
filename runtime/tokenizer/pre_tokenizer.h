#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "formats/json.h"
#include "runtime/tokenizer/splitter.h"

namespace llmq::runtime {

/// The metaspace rule: spaces become a visible character, and one is put before the text.
struct Metaspace {
  enum class Prepend { kAlways, kFirst, kNever };
  std::string replacement = "\xE2\x96\x81";  ///< one character, U+2581 by default
  Prepend prepend = Prepend::kAlways;        ///< kFirst: only where the whole text begins
};

/// What happens between the normalizer and the merges. Immutable and thread-safe.
struct PreTokenizer {
  /// Applied in order, each to the pieces of the one before; empty: no cut.
  std::vector<std::unique_ptr<const Splitter>> splitters;
  /// The words are bytes of a byte-level vocabulary.
  bool byte_level = false;
  /// A space is put before each segment that does not begin with one (byte-level only).
  bool add_prefix_space = false;
  std::optional<Metaspace> metaspace;

  /// From the value of the key "pre_tokenizer" (null allowed): ByteLevel, Metaspace, Digits, Split
  /// by string or pattern (behaviours Isolated and Removed), Sequences of them. Throws
  /// Error{kBadInput} that names what is not supported.
  static PreTokenizer parse(const formats::Json& node);
};

/// A Metaspace pre-tokenizer or decoder. Throws Error{kBadInput}.
Metaspace parse_metaspace(const formats::Json& node, std::string_view where);

}  // namespace llmq::runtime
