#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "runtime/tokenizer/tokenizer.h"

namespace llmq::runtime {

/// How a text is cut into pieces that are scored on their own.
struct PieceOptions {
  /// Tokens of a piece at most, BOS included.
  int64_t context = 2048;
  /// Absent: the whole text is encoded as one and cut into disjoint windows of `context` tokens,
  /// each of which begins with BOS where the tokenizer adds one; the last may be shorter. Present:
  /// the text is split at this string, taken as it is (no escapes); white space (Unicode's
  /// White_Space) is stripped from both ends of a part; each part is encoded, with BOS where the
  /// tokenizer adds one, and cut at `context` tokens, the rest of it being left out. Parts that are
  /// empty are skipped.
  std::optional<std::string> separator;
};

/// Takes a piece's ids and how far in the text it reaches at most; returns false to end.
using PieceSink = std::function<bool(std::span<const int32_t> ids, size_t end_byte)>;

/// Cuts `text` (UTF-8; invalid bytes count as U+FFFD) into pieces and hands them to `sink` in
/// order. Line ends of the text and the separator are read as Python's text mode does: CRLF and CR
/// are LF, so that a text scores the same however it was saved. Special tokens in the text are
/// parsed, as the Hugging Face library does by default. Memory does not grow with the text. Throws
/// Error{kUsage} when `context` leaves no room for a token behind BOS or the separator is empty,
/// and what the tokenizer and the sink throw.
void for_each_piece(std::string_view text, const Tokenizer& tokenizer, const PieceOptions& options,
                    const PieceSink& sink);

/// Ids that begin every text: those of BOS where the tokenizer adds it, else none.
std::vector<int32_t> text_prefix(const Tokenizer& tokenizer);

/// Throws Error{kBadInput} that says how the tokenizers differ: in a token's id, in what begins a
/// text, or in the ids of `sample`.
void check_same_tokenizer(const Tokenizer& model, const Tokenizer& reference,
                          std::string_view sample);

}  // namespace llmq::runtime
