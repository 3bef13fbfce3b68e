#include "runtime/evaluate/text_pieces.h"

#include <fmt/format.h>

#include <algorithm>
#include <vector>

#include "formats/error.h"
#include "runtime/tokenizer/unicode.h"

namespace llmq::runtime {
namespace {

/// Bytes given to an encoder at once: small against a text, large against a call.
constexpr size_t kSliceBytes = size_t{64} << 10;

/// Bytes of the white-space character that starts at `pos`; 0 when none does. The text may be
/// invalid, so a character counts only when its bytes are exactly its encoding.
size_t space_bytes_at(std::string_view text, size_t pos) {
  const DecodedChar decoded = decode_char(text, pos);
  if (char_class(decoded.code_point) != CharClass::kSpace) return 0;
  std::string encoded;
  append_utf8(decoded.code_point, encoded);
  return text.substr(pos).starts_with(encoded) ? encoded.size() : 0;
}

std::string_view strip(std::string_view text) {
  while (!text.empty()) {
    const size_t n_bytes = space_bytes_at(text, 0);
    if (n_bytes == 0) break;
    text.remove_prefix(n_bytes);
  }
  while (!text.empty()) {
    const size_t last = previous_char(text, text.size());
    const size_t n_bytes = space_bytes_at(text, last);
    if (n_bytes == 0 || last + n_bytes != text.size()) break;
    text.remove_suffix(n_bytes);
  }
  return text;
}

/// Hands a text to an encoder in slices, with LF for CRLF and CR.
class LineReader {
 public:
  explicit LineReader(std::string_view text) : text_(text) {}

  [[nodiscard]] bool at_end() const { return begin_ == text_.size(); }
  [[nodiscard]] size_t begin() const { return begin_; }

  void feed_next(StreamEncoder& encoder) {
    slice_.clear();
    for (const char c : text_.substr(begin_, kSliceBytes)) {
      if (c != '\n' || !after_cr_) slice_ += c == '\r' ? '\n' : c;
      after_cr_ = c == '\r';
    }
    begin_ += std::min(kSliceBytes, text_.size() - begin_);
    encoder.feed(slice_);
  }

 private:
  std::string_view text_;
  size_t begin_ = 0;
  bool after_cr_ = false;
  std::string slice_;
};

/// A separator's place in a text.
struct Found {
  size_t begin = 0;
  size_t end = 0;  // at least begin; both are the text's size where there is none
};

/// Bytes of `text` at `pos` that read as `separator` (which has no CR); 0 where they do not.
size_t match_lines(std::string_view text, size_t pos, std::string_view separator) {
  size_t at = pos;
  for (const char c : separator) {
    if (at == text.size()) return 0;
    const bool is_cr = c == '\n' && text[at] == '\r';
    if (!is_cr && text[at] != c) return 0;
    at += is_cr && text.substr(at + 1).starts_with('\n') ? 2 : 1;
  }
  return at - pos;
}

Found find_separator(std::string_view text, size_t begin, std::string_view separator) {
  if (separator.find('\n') == std::string_view::npos) {
    const size_t found = text.find(separator, begin);
    if (found == std::string_view::npos) return {text.size(), text.size()};
    return {found, found + separator.size()};
  }
  for (size_t pos = begin; pos < text.size(); ++pos) {
    const size_t n_bytes = match_lines(text, pos, separator);
    if (n_bytes > 0) return {pos, pos + n_bytes};
  }
  return {text.size(), text.size()};
}

std::string with_lf(std::string_view text) {
  std::string result;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\n' && i > 0 && text[i - 1] == '\r') continue;
    result += text[i] == '\r' ? '\n' : text[i];
  }
  return result;
}

/// The first `count` ids of a text (all where it has fewer).
std::vector<int32_t> first_ids(std::string_view text, const Tokenizer& tokenizer, size_t count) {
  std::vector<int32_t> ids;
  StreamEncoder encoder(
      tokenizer, {.parse_special = true, .add_bos = tokenizer.adds_bos()},
      [&](std::span<const int32_t> batch) { ids.insert(ids.end(), batch.begin(), batch.end()); });
  LineReader reader(text);
  while (!reader.at_end() && ids.size() < count) reader.feed_next(encoder);
  if (ids.size() < count) encoder.finish();
  ids.resize(std::min(ids.size(), count));
  return ids;
}

void for_each_part(std::string_view text, const Tokenizer& tokenizer, const PieceOptions& options,
                   const PieceSink& sink) {
  const std::string separator = with_lf(*options.separator);
  size_t begin = 0;
  while (begin < text.size()) {
    const Found found = find_separator(text, begin, separator);
    const std::string_view part = strip(text.substr(begin, found.begin - begin));
    if (!part.empty()) {
      const auto ids = first_ids(part, tokenizer, static_cast<size_t>(options.context));
      if (!sink(ids, found.begin)) return;
    }
    begin = found.end;
  }
}

void for_each_window(std::string_view text, const Tokenizer& tokenizer, size_t context,
                     const PieceSink& sink) {
  const std::vector<int32_t> prefix = text_prefix(tokenizer);
  std::vector<int32_t> window = prefix;
  LineReader reader(text);
  bool wants_more = true;
  StreamEncoder encoder(tokenizer, {.parse_special = true}, [&](std::span<const int32_t> batch) {
    for (const int32_t id : batch) {
      if (!wants_more) return;
      window.push_back(id);
      if (window.size() < context) continue;
      wants_more = sink(window, reader.begin());
      window = prefix;
    }
  });
  while (!reader.at_end() && wants_more) reader.feed_next(encoder);
  if (wants_more) encoder.finish();
  if (wants_more && window.size() > prefix.size()) sink(window, text.size());
}

}  // namespace

std::vector<int32_t> text_prefix(const Tokenizer& tokenizer) {
  return tokenizer.encode("", {.add_bos = tokenizer.adds_bos()});
}

void for_each_piece(std::string_view text, const Tokenizer& tokenizer, const PieceOptions& options,
                    const PieceSink& sink) {
  const size_t n_prefix = text_prefix(tokenizer).size();
  const auto least = static_cast<int64_t>(std::max<size_t>(n_prefix + 1, 2));
  if (options.context < least) {
    throw formats::usage_error(
        fmt::format("a context of {} tokens leaves nothing to score; give at least {}",
                    options.context, least));
  }
  if (!options.separator) {
    for_each_window(text, tokenizer, static_cast<size_t>(options.context), sink);
    return;
  }
  if (options.separator->empty()) {
    throw formats::usage_error("the string to split at is empty");
  }
  for_each_part(text, tokenizer, options, sink);
}

void check_same_tokenizer(const Tokenizer& model, const Tokenizer& reference,
                          std::string_view sample) {
  const int32_t n_ids = std::max(model.vocab_size(), reference.vocab_size());
  for (int32_t id = 0; id < n_ids; ++id) {
    const auto of_model = model.id_to_token(id);
    const auto of_reference = reference.id_to_token(id);
    if (of_model == of_reference) continue;
    throw formats::bad_input(fmt::format(
        "the tokenizers differ: id {} is {} in the model and {} in the reference; compare a model "
        "with the one that it was made from",
        id, of_model ? "\"" + *of_model + "\"" : "no token",
        of_reference ? "\"" + *of_reference + "\"" : "no token"));
  }
  if (text_prefix(model) != text_prefix(reference)) {
    throw formats::bad_input(
        "the tokenizers differ in the ids that begin a text (add_bos_token, or the template)");
  }
  if (model.encode(sample, {}) != reference.encode(sample, {})) {
    throw formats::bad_input("the tokenizers give different ids for the beginning of the text");
  }
}

}  // namespace llmq::runtime
