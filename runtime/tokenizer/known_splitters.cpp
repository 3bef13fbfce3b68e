#include <limits>

#include "runtime/tokenizer/splitter.h"
#include "runtime/tokenizer/unicode.h"

namespace llmq::runtime {
namespace {

/// Looks at the characters of a text and remembers whether it ever looked past the visible end
/// while more text may come: then nothing it concluded is certain.
class Lookahead {
 public:
  Lookahead(std::string_view text, bool is_last) : text_(text), is_last_(is_last) {}

  struct Char {
    char32_t code_point;
    uint32_t n_bytes;  // 0 at the end of the text
    CharClass kind;
  };

  Char at(size_t pos) {
    if (pos >= text_.size()) {
      starved_ = starved_ || !is_last_;
      return {0, 0, CharClass::kOther};
    }
    const DecodedChar decoded = decode_char(text_, pos);
    return {decoded.code_point, decoded.n_bytes, char_class(decoded.code_point)};
  }

  /// End of the run of at most `most` characters of a class that begins at `pos`.
  size_t skip(size_t pos, CharClass kind, size_t most = std::numeric_limits<size_t>::max()) {
    for (size_t n = 0; n < most; ++n) {
      const Char c = at(pos);
      if (c.n_bytes == 0 || c.kind != kind) break;
      pos += c.n_bytes;
    }
    return pos;
  }

  [[nodiscard]] bool starved() const { return starved_; }

 private:
  std::string_view text_;
  bool is_last_;
  bool starved_ = false;
};

bool is_newline(char32_t c) {
  return c == '\r' || c == '\n';
}

/// Lower case as far as the contractions need it; U+017F (long s) folds to s.
char32_t fold(char32_t c, bool ignore_case) {
  if (!ignore_case) return c;
  if (c >= 'A' && c <= 'Z') return c + 32;
  return c == 0x17F ? U's' : c;
}

/// End of 's 't 'm 'd 're 've 'll at an apostrophe, or `pos` where there is none.
size_t skip_contraction(Lookahead& text, size_t pos, bool ignore_case) {
  const auto first = text.at(pos + 1);
  const size_t after_first = pos + 1 + first.n_bytes;
  switch (fold(first.code_point, ignore_case)) {
    case 's':
    case 't':
    case 'm':
    case 'd':
      return after_first;
    case 'r':
    case 'v':
      return fold(text.at(after_first).code_point, ignore_case) == 'e' ? after_first + 1 : pos;
    case 'l':
      return fold(text.at(after_first).code_point, ignore_case) == 'l' ? after_first + 1 : pos;
    default:
      return pos;
  }
}

/// `\s+(?!\S)|\s+`: white space up to the last character before a word, which belongs to the word,
/// unless it is alone. `last` is the start of the run's last character.
size_t cut_space(size_t begin, size_t end, size_t last, size_t text_end) {
  return end == text_end || last == begin ? end : last;
}

class Gpt2Splitter : public Splitter {
 public:
  std::optional<Piece> next(std::string_view text, size_t begin, bool is_last,
                            SplitterState* /*state*/) const override {
    Lookahead look(text, is_last);
    const size_t end = end_of(look, text, begin);
    if (look.starved()) return std::nullopt;
    return Piece{end, true};
  }

 private:
  static size_t end_of(Lookahead& look, std::string_view text, size_t begin) {
    const auto first = look.at(begin);
    if (first.code_point == '\'') {
      const size_t end = skip_contraction(look, begin, false);
      if (end > begin) return end;
    }
    const size_t start = first.code_point == ' ' ? begin + 1 : begin;
    const auto kind = look.at(start);
    if (kind.n_bytes > 0 && kind.kind != CharClass::kSpace) return look.skip(start, kind.kind);
    const size_t end = look.skip(begin, CharClass::kSpace);
    return cut_space(begin, end, previous_char(text, end), text.size());
  }
};

/// GPT-4's pattern and Qwen2's, which differ in how many digits make a piece.
class Gpt4Splitter : public Splitter {
 public:
  explicit Gpt4Splitter(size_t max_digits) : max_digits_(max_digits) {}

  std::optional<Piece> next(std::string_view text, size_t begin, bool is_last,
                            SplitterState* /*state*/) const override {
    Lookahead look(text, is_last);
    const size_t end = end_of(look, text, begin);
    if (look.starved()) return std::nullopt;
    return Piece{end, true};
  }

 private:
  // The alternatives of the pattern in their order; the first that matches wins.
  [[nodiscard]] size_t end_of(Lookahead& look, std::string_view text, size_t begin) const {
    const auto first = look.at(begin);
    if (first.kind == CharClass::kLetter) return look.skip(begin, CharClass::kLetter);
    if (first.kind == CharClass::kNumber) return look.skip(begin, CharClass::kNumber, max_digits_);
    if (first.code_point == '\'') {
      const size_t end = skip_contraction(look, begin, true);
      if (end > begin) return end;
    }
    const size_t second_pos = begin + first.n_bytes;
    if (!is_newline(first.code_point)) {
      const auto second = look.at(second_pos);
      if (second.n_bytes > 0 && second.kind == CharClass::kLetter) {
        return look.skip(second_pos, CharClass::kLetter);
      }
      const bool after_space = first.code_point == ' ' && second.kind == CharClass::kOther;
      if (first.kind == CharClass::kOther || (after_space && second.n_bytes > 0)) {
        return skip_newlines(look, look.skip(second_pos, CharClass::kOther));
      }
    }
    return end_of_space(look, text, begin);
  }

  static size_t skip_newlines(Lookahead& look, size_t pos) {
    while (is_newline(look.at(pos).code_point)) ++pos;
    return pos;
  }

  /// `\s*[\r\n]+|\s+(?!\S)|\s+`
  static size_t end_of_space(Lookahead& look, std::string_view text, size_t begin) {
    size_t end = begin;
    size_t last = begin;
    size_t after_newline = begin;
    for (auto c = look.at(end); c.n_bytes > 0 && c.kind == CharClass::kSpace; c = look.at(end)) {
      last = end;
      end += c.n_bytes;
      if (is_newline(c.code_point)) after_newline = end;
    }
    return after_newline > begin ? after_newline : cut_space(begin, end, last, text.size());
  }

  size_t max_digits_;
};

class PrefixCharSplitter : public Splitter {
 public:
  explicit PrefixCharSplitter(char32_t character) { append_utf8(character, character_); }

  std::optional<Piece> next(std::string_view text, size_t begin, bool is_last,
                            SplitterState* /*state*/) const override {
    // From the second byte on: the character at `begin` does not end the piece that it begins.
    const size_t end = text.find(character_, begin + 1);
    if (end != std::string_view::npos) return Piece{end, true};
    if (!is_last) return std::nullopt;
    return Piece{text.size(), true};
  }

 private:
  std::string character_;
};

class MergePairSplitter : public Splitter {
 public:
  explicit MergePairSplitter(MergePairs pairs) : pairs_(std::move(pairs)) {}

  std::optional<Piece> next(std::string_view text, size_t begin, bool is_last,
                            SplitterState* /*state*/) const override {
    size_t pos = begin + decode_char(text, begin).n_bytes;
    for (; pos < text.size(); pos += decode_char(text, pos).n_bytes) {
      if (pairs_.can_cut(text, pos)) return Piece{pos, true};
    }
    if (!is_last) return std::nullopt;
    return Piece{text.size(), true};
  }

 private:
  MergePairs pairs_;
};

uint64_t pair_key(char32_t left, char32_t right) {
  return (uint64_t{left} << 32) | right;
}

}  // namespace

std::unique_ptr<Splitter> new_known_splitter(std::string_view pattern) {
  if (pattern == kGpt2Pattern) return std::make_unique<Gpt2Splitter>();
  if (pattern == kQwen2Pattern) return std::make_unique<Gpt4Splitter>(1);
  if (pattern == kGpt4Pattern) return std::make_unique<Gpt4Splitter>(3);
  return nullptr;
}

std::unique_ptr<Splitter> new_prefix_char_splitter(char32_t character) {
  return std::make_unique<PrefixCharSplitter>(character);
}

std::unique_ptr<Splitter> new_merge_pair_splitter(MergePairs pairs) {
  return std::make_unique<MergePairSplitter>(std::move(pairs));
}

void MergePairs::add_token(std::string_view token) {
  char32_t left = 0;
  for (size_t pos = 0; pos < token.size();) {
    const DecodedChar c =
        bytes_ ? DecodedChar{static_cast<unsigned char>(token[pos]), 1} : decode_char(token, pos);
    if (pos > 0) pairs_.insert(pair_key(left, c.code_point));
    left = c.code_point;
    pos += c.n_bytes;
  }
}

bool MergePairs::can_cut(std::string_view text, size_t pos) const {
  if (bytes_) {
    return !pairs_.contains(
        pair_key(static_cast<unsigned char>(text[pos - 1]), static_cast<unsigned char>(text[pos])));
  }
  const char32_t left = decode_char(text, previous_char(text, pos)).code_point;
  const char32_t right = decode_char(text, pos).code_point;
  return !pairs_.contains(pair_key(left, right)) && known_.contains(left) && known_.contains(right);
}

}  // namespace llmq::runtime
