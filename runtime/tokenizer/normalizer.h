#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "formats/json.h"

namespace llmq::runtime {

/// One step of a normalizer at work on one segment (the text between two added tokens). Text
/// arrives in pieces of whole characters of valid UTF-8; so does the output. Not thread-safe.
class NormalizerStep {
 public:
  virtual ~NormalizerStep() = default;
  /// Appends to `out` what later text cannot change any more.
  virtual void feed(std::string_view text, std::string& out) = 0;
  /// The segment has ended: appends the rest and is ready for the next segment.
  virtual void finish(std::string& out) = 0;
};

/// The normalizer of a tokenizer.json: NFC, Prepend, Replace of a string, and Sequences of them.
/// Immutable and thread-safe.
class Normalizer {
 public:
  /// Changes nothing.
  Normalizer() = default;

  /// From the value of the key "normalizer" (null allowed). Throws Error{kBadInput} that names a
  /// type outside the supported ones.
  static Normalizer parse(const formats::Json& node);

  /// The NFC normalizer alone.
  static Normalizer nfc();

  [[nodiscard]] bool is_identity() const { return steps_.empty(); }

  /// A whole segment (valid UTF-8) normalized.
  [[nodiscard]] std::string apply(std::string_view segment) const;

  /// Fresh steps, in order, for text that arrives in pieces.
  [[nodiscard]] std::vector<std::unique_ptr<NormalizerStep>> new_steps() const;

 private:
  struct StepSpec {
    enum class Kind { kNfc, kPrepend, kReplace } kind;
    std::string pattern;  ///< kReplace: what is replaced, not empty
    std::string content;  ///< kPrepend: what is put before; kReplace: the replacement
  };
  void parse_into(const formats::Json& node, int depth);

  std::vector<StepSpec> steps_;
};

/// True for characters that are unchanged by NFC whatever stands before them and that never combine
/// with what stands before them, so that NFC of a text may be taken in pieces cut before them. A
/// subset (Latin, Cyrillic, common punctuation, Han, kana, Hangul syllables), not all such
/// characters.
bool is_nfc_boundary(char32_t code_point);

}  // namespace llmq::runtime
