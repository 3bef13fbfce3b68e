#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_set>
#include <vector>

namespace llmq::runtime {

/// Working memory of a splitter for one thread (match data of a regular expression, for example).
class SplitterState {
 public:
  virtual ~SplitterState() = default;
};

/// Cuts a text into pieces that are encoded independently of each other. Immutable and thread-safe;
/// what changes lies in the state.
class Splitter {
 public:
  struct Piece {
    size_t end = 0;    ///< the piece is [begin, end); end > begin
    bool keep = true;  ///< false: the piece is dropped from the text
  };

  virtual ~Splitter() = default;

  /// State for one thread; null where the splitter needs none.
  [[nodiscard]] virtual std::unique_ptr<SplitterState> new_state() const { return nullptr; }

  /// The piece that begins at `begin`, which is the start of the text or the end of the piece
  /// before. `text` is valid UTF-8, begin < text.size(). With `is_last` false more text may follow,
  /// and the result is nothing when that could change the piece. Text before `begin` is there for
  /// patterns that look behind: `look_behind()` characters of it, or all there is.
  [[nodiscard]] virtual std::optional<Piece> next(std::string_view text, size_t begin, bool is_last,
                                                  SplitterState* state) const = 0;

  /// Characters before `begin` that next() may look at.
  [[nodiscard]] virtual size_t look_behind() const { return 0; }
};

/// The patterns whose splitters are written by hand, as they stand in tokenizer.json files.
inline constexpr std::string_view kGpt2Pattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
inline constexpr std::string_view kQwen2Pattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
inline constexpr std::string_view kGpt4Pattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

/// Splitter for one of the three patterns above (GPT-2; Qwen2; GPT-4 and Llama-3), several times
/// faster than the regular expression; null for any other pattern. They leave no gaps between
/// matches, so the two behaviours of new_regex_splitter are the same for them.
std::unique_ptr<Splitter> new_known_splitter(std::string_view pattern);

/// What becomes of the text between the matches of a pattern.
enum class GapRule {
  kKeep,         ///< matches and gaps are pieces (tokenizer.json: Isolated)
  kDrop,         ///< only matches are pieces (Removed with invert: true)
  kDropMatches,  ///< only gaps are pieces (Removed)
};

/// Splitter for any regular expression in PCRE2 syntax, with Unicode properties. Empty matches are
/// never taken. The pattern comes from a file: its length, nesting and compiled size are bounded,
/// and each match has a limit on its steps and memory. `literal` takes the pattern as a plain
/// string. Throws Error{kBadInput} when the pattern does not compile; next() throws
/// Error{kBadInput} when a match exceeds its limits.
std::unique_ptr<Splitter> new_regex_splitter(std::string_view pattern, GapRule rule, bool literal);

/// Splitter before each occurrence of a character (the metaspace), which begins the new piece.
std::unique_ptr<Splitter> new_prefix_char_splitter(char32_t character);

/// Pairs of neighbouring symbols (characters, or bytes of a byte-level vocabulary) that lie inside
/// some token that a merge makes. Where a pair is not among them no merge can ever reach across, so
/// that the text may be cut there without changing its ids.
class MergePairs {
 public:
  /// `bytes`: symbols are bytes, else characters.
  explicit MergePairs(bool bytes) : bytes_(bytes) {}

  /// Adds the pairs inside a token that a merge makes.
  void add_token(std::string_view token);
  /// Declares a character that is a token by itself; cuts are made only between such characters.
  void add_known_char(char32_t character) { known_.insert(character); }

  /// True when no merge reaches across byte position `pos`, the start of a character.
  [[nodiscard]] bool can_cut(std::string_view text, size_t pos) const;

 private:
  bool bytes_;
  std::unordered_set<uint64_t> pairs_;
  std::unordered_set<char32_t> known_;
};

/// Splitter at every place where MergePairs allows it; for models without a pre-tokenizer, whose
/// one "word" is otherwise the whole text.
std::unique_ptr<Splitter> new_merge_pair_splitter(MergePairs pairs);

}  // namespace llmq::runtime
