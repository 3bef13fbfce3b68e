#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace llmq::runtime {

/// The classes that the pre-tokenizer patterns tell apart: \p{L}, \p{N}, \s (the White_Space
/// property) and everything else.
enum class CharClass : uint8_t { kLetter, kNumber, kSpace, kOther };

/// Class of a code point by its Unicode general category (utf8proc's tables). Thread-safe.
CharClass char_class(char32_t code_point);

/// True for what \w matches: letters, marks, decimal digits, letter numbers, connector punctuation
/// and the two joiners.
bool is_word_char(char32_t code_point);

/// One character of valid UTF-8.
struct DecodedChar {
  char32_t code_point = 0;
  uint32_t n_bytes = 0;  ///< 1 to 4
};

/// Decodes the character that starts at byte `pos` < text.size(). The text must be valid UTF-8 and
/// `pos` the start of a character; otherwise the result is unspecified, but memory safe.
inline DecodedChar decode_char(std::string_view text, size_t pos) {
  const auto byte = [&](size_t i) -> char32_t {
    return i < text.size() ? static_cast<unsigned char>(text[i]) : 0x80U;
  };
  const char32_t lead = byte(pos);
  if (lead < 0x80) return {lead, 1};
  if (lead < 0xE0) return {((lead & 0x1FU) << 6) | (byte(pos + 1) & 0x3FU), 2};
  if (lead < 0xF0) {
    return {((lead & 0x0FU) << 12) | ((byte(pos + 1) & 0x3FU) << 6) | (byte(pos + 2) & 0x3FU), 3};
  }
  return {((lead & 0x07U) << 18) | ((byte(pos + 1) & 0x3FU) << 12) |
              ((byte(pos + 2) & 0x3FU) << 6) | (byte(pos + 3) & 0x3FU),
          4};
}

/// Byte position of the character before `pos` (0 < pos <= text.size()) of valid UTF-8.
inline size_t previous_char(std::string_view text, size_t pos) {
  do {
    --pos;
  } while (pos > 0 && (static_cast<unsigned char>(text[pos]) & 0xC0U) == 0x80U);
  return pos;
}

/// True when a character starts at `pos`, or the text ends there.
inline bool is_char_boundary(std::string_view text, size_t pos) {
  return pos >= text.size() || (static_cast<unsigned char>(text[pos]) & 0xC0U) != 0x80U;
}

/// Appends a code point (a Unicode scalar value) as UTF-8.
void append_utf8(char32_t code_point, std::string& out);

/// Makes valid UTF-8 of bytes that arrive in pieces cut anywhere. Each maximal prefix of a
/// character that cannot be completed becomes one U+FFFD, as the Unicode standard recommends and as
/// Rust's String::from_utf8_lossy and Python's errors="replace" do. Not thread-safe.
class Utf8Repair {
 public:
  /// Appends to `out` every character that is decided; up to 3 bytes wait for the next call.
  void feed(std::string_view bytes, std::string& out);

  /// The input has ended: an incomplete character becomes U+FFFD. The object can be used again.
  void finish(std::string& out);

 private:
  void feed_pending(std::string_view& bytes, std::string& out);

  std::array<char, 4> pending_{};
  size_t n_pending_ = 0;
};

/// Utf8Repair of a whole text.
std::string repair_utf8(std::string_view bytes);

/// The 256 printable characters that stand for bytes in byte-level vocabularies (GPT-2's table),
/// each as UTF-8.
const std::array<std::string, 256>& byte_level_alphabet();

/// The bytes that a token of a byte-level vocabulary stands for; nothing when the token holds a
/// character outside the alphabet. The token must be valid UTF-8.
std::optional<std::string> byte_level_to_bytes(std::string_view token);

}  // namespace llmq::runtime
