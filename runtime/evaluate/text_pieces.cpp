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

/// The first `count` ids of a text (all where it has fewer).
std::vector<int32_t> first_ids(std::string_view text, const Tokenizer& tokenizer, size_t count) {
  std::vector<int32_t> ids;
  StreamEncoder encoder(
      tokenizer, {.parse_special = true, .add_bos = tokenizer.adds_bos()},
      [&](std::span<const int32_t> batch) { ids.insert(ids.end(), batch.begin(), batch.end()); });
  while (!text.empty() && ids.size() < count) {
    const std::string_view slice = text.substr(0, kSliceBytes);
    encoder.feed(slice);
    text.remove_prefix(slice.size());
  }
  if (ids.size() < count) encoder.finish();
  ids.resize(std::min(ids.size(), count));
  return ids;
}

void for_each_part(std::string_view text, const Tokenizer& tokenizer, const PieceOptions& options,
                   const PieceSink& sink) {
  size_t begin = 0;
  while (begin <= text.size()) {
    const size_t end = std::min(text.find(*options.separator, begin), text.size());
    const std::string_view part = strip(text.substr(begin, end - begin));
    if (!part.empty()) {
      const auto ids = first_ids(part, tokenizer, static_cast<size_t>(options.context));
      if (!sink(ids, end)) return;
    }
    begin = end + options.separator->size();
  }
}

void for_each_window(std::string_view text, const Tokenizer& tokenizer, size_t context,
                     const PieceSink& sink) {
  const std::vector<int32_t> prefix = text_prefix(tokenizer);
  std::vector<int32_t> window = prefix;
  size_t end_byte = 0;
  bool wants_more = true;
  StreamEncoder encoder(tokenizer, {.parse_special = true}, [&](std::span<const int32_t> batch) {
    for (const int32_t id : batch) {
      if (!wants_more) return;
      window.push_back(id);
      if (window.size() < context) continue;
      wants_more = sink(window, end_byte);
      window = prefix;
    }
  });
  while (end_byte < text.size() && wants_more) {
    const std::string_view slice = text.substr(end_byte, kSliceBytes);
    end_byte += slice.size();
    encoder.feed(slice);
  }
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
