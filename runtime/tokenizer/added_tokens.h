#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace llmq::runtime {

/// A token that is cut out of the text before anything else happens to it.
struct AddedToken {
  int32_t id = 0;
  std::string content;       ///< valid UTF-8, not empty
  bool special = false;      ///< control token: text of users must not turn into it
  bool normalized = false;   ///< searched in the normalized text, not in the raw one
  bool lstrip = false;       ///< swallows white space on its left
  bool rstrip = false;       ///< swallows white space on its right
  bool single_word = false;  ///< only where no word character touches it
};

/// Finds the longest of a set of added tokens at a position. Immutable and thread-safe.
class AddedTokenMatcher {
 public:
  AddedTokenMatcher() = default;

  /// `patterns[i]` is what is searched for `tokens[i]` (its content, normalized or not). Empty
  /// patterns are never found; of equal patterns the first wins.
  AddedTokenMatcher(std::vector<AddedToken> tokens, const std::vector<std::string>& patterns);

  struct Match {
    const AddedToken* token = nullptr;  ///< null: nothing begins here
    size_t n_bytes = 0;
  };

  [[nodiscard]] bool empty() const { return patterns_.empty(); }
  /// Bytes of the longest pattern.
  [[nodiscard]] size_t longest() const { return longest_; }
  /// Whether some token swallows white space on its left.
  [[nodiscard]] bool any_lstrip() const { return any_lstrip_; }
  /// First position in [pos, text.size()] whose byte begins some pattern (text.size(): none).
  [[nodiscard]] size_t next_candidate(std::string_view text, size_t pos) const;
  /// The longest token that begins at `pos`.
  [[nodiscard]] Match longest_at(std::string_view text, size_t pos) const;

 private:
  struct Pattern {
    std::string text;
    size_t token;  // index into tokens_
  };
  std::vector<AddedToken> tokens_;
  std::vector<Pattern> patterns_;  // sorted by text, unique
  std::array<bool, 256> first_bytes_{};
  size_t longest_ = 0;
  bool any_lstrip_ = false;
};

/// Where the parts of a text go. A segment is the text between two added tokens; it may come in
/// several pieces of whole characters.
class SegmentSink {
 public:
  virtual ~SegmentSink() = default;
  virtual void text(std::string_view piece) = 0;
  /// No more text before the next token or the end; called only after text().
  virtual void end_segment() = 0;
  virtual void token(int32_t id) = 0;
};

/// Cuts a text that arrives in pieces into segments and added tokens: leftmost first, then longest,
/// with the rules of the Hugging Face tokenizers for lstrip, rstrip and single_word. Holds back
/// what may become a token: the longest token's bytes, and white space where a token could swallow
/// it.
class AddedTokenSplitter {
 public:
  /// Both references must outlive the object. With `parse_special` false special tokens stay text.
  AddedTokenSplitter(const AddedTokenMatcher& matcher, bool parse_special, SegmentSink& sink)
      : matcher_(matcher), parse_special_(parse_special), sink_(sink) {}

  /// Whole characters of valid UTF-8.
  void feed(std::string_view text);
  /// The text has ended; the object is ready for another one.
  void finish();

 private:
  void scan(bool is_last);
  bool take_match(const AddedTokenMatcher::Match& match, bool is_last);
  [[nodiscard]] bool stands_alone(size_t begin, size_t end) const;
  void emit_text(size_t end);
  void close_segment();
  void forget_the_past();

  const AddedTokenMatcher& matcher_;
  bool parse_special_;
  SegmentSink& sink_;
  std::string text_;
  size_t start_ = 0;  // first byte that has not been passed on
  size_t scan_ = 0;  // first byte where a token may still begin; may lie before start_ after rstrip
  bool in_segment_ = false;
};

}  // namespace llmq::runtime
