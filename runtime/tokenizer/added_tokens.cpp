#include "runtime/tokenizer/added_tokens.h"

#include <algorithm>
#include <utility>

#include "runtime/tokenizer/unicode.h"

namespace llmq::runtime {
namespace {

constexpr size_t kLongestChar = 4;

bool is_space_at(std::string_view text, size_t pos) {
  return char_class(decode_char(text, pos).code_point) == CharClass::kSpace;
}

/// Start of the run of white space that ends at `end`, not before `limit`.
size_t space_before(std::string_view text, size_t end, size_t limit) {
  while (end > limit) {
    const size_t pos = previous_char(text, end);
    if (pos < limit || !is_space_at(text, pos)) break;
    end = pos;
  }
  return end;
}

/// End of the run of white space that begins at `begin`.
size_t space_after(std::string_view text, size_t begin) {
  while (begin < text.size() && is_space_at(text, begin)) {
    begin += decode_char(text, begin).n_bytes;
  }
  return begin;
}

}  // namespace

AddedTokenMatcher::AddedTokenMatcher(std::vector<AddedToken> tokens,
                                     const std::vector<std::string>& patterns)
    : tokens_(std::move(tokens)) {
  for (size_t i = 0; i < patterns.size(); ++i) {
    if (!patterns[i].empty()) patterns_.push_back({patterns[i], i});
  }
  std::stable_sort(patterns_.begin(), patterns_.end(),
                   [](const Pattern& a, const Pattern& b) { return a.text < b.text; });
  patterns_.erase(std::unique(patterns_.begin(), patterns_.end(),
                              [](const Pattern& a, const Pattern& b) { return a.text == b.text; }),
                  patterns_.end());
  for (const Pattern& pattern : patterns_) {
    first_bytes_[static_cast<unsigned char>(pattern.text[0])] = true;
    longest_ = std::max(longest_, pattern.text.size());
    any_lstrip_ = any_lstrip_ || tokens_[pattern.token].lstrip;
  }
}

size_t AddedTokenMatcher::next_candidate(std::string_view text, size_t pos) const {
  while (pos < text.size() && !first_bytes_[static_cast<unsigned char>(text[pos])]) ++pos;
  return pos;
}

AddedTokenMatcher::Match AddedTokenMatcher::longest_at(std::string_view text, size_t pos) const {
  Match best;
  auto first = patterns_.begin();
  auto last = patterns_.end();
  for (size_t depth = 0; first != last && pos + depth < text.size(); ++depth) {
    const auto byte = static_cast<unsigned char>(text[pos + depth]);
    const auto byte_of = [depth](const Pattern& pattern) {
      return depth < pattern.text.size() ? static_cast<unsigned char>(pattern.text[depth]) : -1;
    };
    first = std::partition_point(first, last, [&](const Pattern& p) { return byte_of(p) < byte; });
    last = std::partition_point(first, last, [&](const Pattern& p) { return byte_of(p) <= byte; });
    if (first != last && first->text.size() == depth + 1) {
      best = {&tokens_[first->token], depth + 1};
    }
  }
  return best;
}

void AddedTokenSplitter::feed(std::string_view text) {
  if (matcher_.empty()) {
    if (text.empty()) return;
    in_segment_ = true;
    sink_.text(text);
    return;
  }
  text_.append(text);
  scan(false);
  forget_the_past();
}

void AddedTokenSplitter::finish() {
  scan(true);
  emit_text(text_.size());
  close_segment();
  text_.clear();
  start_ = 0;
  scan_ = 0;
}

void AddedTokenSplitter::scan(bool is_last) {
  // A match is decided when the longest token and one character after it are visible.
  const size_t n_visible = matcher_.longest() + kLongestChar;
  for (;;) {
    scan_ = matcher_.next_candidate(text_, scan_);
    if (scan_ == text_.size() || (!is_last && text_.size() - scan_ < n_visible)) break;
    const auto match = matcher_.longest_at(text_, scan_);
    if (match.token == nullptr) {
      ++scan_;
    } else if (!take_match(match, is_last)) {
      break;
    }
  }
  if (is_last) return;
  size_t end = std::max(scan_, start_);
  if (matcher_.any_lstrip()) end = space_before(text_, end, start_);
  emit_text(end);
}

/// Passes on the text before a match and its token; false when more text must be seen first.
bool AddedTokenSplitter::take_match(const AddedTokenMatcher::Match& match, bool is_last) {
  const AddedToken& token = *match.token;
  const size_t end = scan_ + match.n_bytes;
  if ((token.special && !parse_special_) || (token.single_word && !stands_alone(scan_, end))) {
    scan_ = end;
    return true;
  }
  size_t stop = end;
  if (token.rstrip) {
    stop = space_after(text_, end);
    if (stop == text_.size() && !is_last) return false;
  }
  emit_text(token.lstrip ? space_before(text_, scan_, start_) : scan_);
  close_segment();
  sink_.token(token.id);
  start_ = stop;  // may fall back where a token begins in white space that was swallowed
  scan_ = end;
  return true;
}

bool AddedTokenSplitter::stands_alone(size_t begin, size_t end) const {
  const auto is_word_at = [&](size_t pos) {
    return is_word_char(decode_char(text_, pos).code_point);
  };
  if (begin > 0 && is_word_at(previous_char(text_, begin))) return false;
  return end == text_.size() || !is_word_at(end);
}

void AddedTokenSplitter::emit_text(size_t end) {
  if (end <= start_) return;
  sink_.text(std::string_view(text_).substr(start_, end - start_));
  in_segment_ = true;
  start_ = end;
}

void AddedTokenSplitter::close_segment() {
  if (std::exchange(in_segment_, false)) sink_.end_segment();
}

/// Drops what was passed on, except for one character that single_word may look back at.
void AddedTokenSplitter::forget_the_past() {
  const size_t first_needed = std::min(start_, scan_);
  if (first_needed <= kLongestChar) return;
  size_t n_drop = first_needed - kLongestChar;
  while (n_drop > 0 && !is_char_boundary(text_, n_drop)) --n_drop;
  text_.erase(0, n_drop);
  start_ -= n_drop;
  scan_ -= n_drop;
}

}  // namespace llmq::runtime
