#include "runtime/tokenizer/unicode.h"

#include <utf8proc.h>

#include <algorithm>
#include <cstring>
#include <unordered_map>

namespace llmq::runtime {
namespace {

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";

/// What the bytes at the start of a text are.
struct ScannedChar {
  enum class Kind : uint8_t { kValid, kInvalid, kIncomplete } kind;
  size_t n_bytes;  ///< of the character, or of the maximal prefix that one U+FFFD replaces
};

/// Table 3-7 of the Unicode standard: the second byte's range depends on the first.
ScannedChar scan_char(std::string_view bytes) {
  using Kind = ScannedChar::Kind;
  const auto at = [&](size_t i) { return static_cast<unsigned char>(bytes[i]); };
  const unsigned lead = at(0);
  if (lead < 0x80) return {Kind::kValid, 1};
  if (lead < 0xC2 || lead > 0xF4) return {Kind::kInvalid, 1};
  const size_t n_bytes = lead < 0xE0 ? 2 : (lead < 0xF0 ? 3 : 4);
  unsigned low = 0x80;
  unsigned high = 0xBF;
  if (lead == 0xE0) low = 0xA0;
  if (lead == 0xED) high = 0x9F;
  if (lead == 0xF0) low = 0x90;
  if (lead == 0xF4) high = 0x8F;
  for (size_t i = 1; i < n_bytes; ++i) {
    if (i == bytes.size()) return {Kind::kIncomplete, i};
    if (at(i) < low || at(i) > high) return {Kind::kInvalid, i};
    low = 0x80;
    high = 0xBF;
  }
  return {Kind::kValid, n_bytes};
}

/// Number of leading bytes below 0x80.
size_t ascii_prefix(std::string_view bytes) {
  size_t n = 0;
  for (uint64_t word = 0; n + 8 <= bytes.size(); n += 8) {
    std::memcpy(&word, bytes.data() + n, 8);
    if ((word & 0x8080808080808080U) != 0) break;
  }
  while (n < bytes.size() && static_cast<unsigned char>(bytes[n]) < 0x80) ++n;
  return n;
}

CharClass class_of_category(utf8proc_category_t category) {
  switch (category) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
      return CharClass::kLetter;
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_NO:
      return CharClass::kNumber;
    case UTF8PROC_CATEGORY_ZS:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
      return CharClass::kSpace;
    default:
      return CharClass::kOther;
  }
}

}  // namespace

CharClass char_class(char32_t code_point) {
  if (code_point < 0x80) {
    const auto lower = code_point | 0x20U;
    if (lower >= 'a' && lower <= 'z') return CharClass::kLetter;
    if (code_point >= '0' && code_point <= '9') return CharClass::kNumber;
    if (code_point == ' ' || (code_point >= 9 && code_point <= 13)) return CharClass::kSpace;
    return CharClass::kOther;
  }
  if (code_point == 0x85) return CharClass::kSpace;
  return class_of_category(utf8proc_category(static_cast<utf8proc_int32_t>(code_point)));
}

bool is_word_char(char32_t code_point) {
  const auto category = utf8proc_category(static_cast<utf8proc_int32_t>(code_point));
  switch (category) {
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_PC:
      return true;
    default:
      return code_point == 0x200C || code_point == 0x200D ||
             class_of_category(category) == CharClass::kLetter;
  }
}

void append_utf8(char32_t code_point, std::string& out) {
  const auto put = [&](char32_t value) { out.push_back(static_cast<char>(value)); };
  if (code_point < 0x80) {
    put(code_point);
  } else if (code_point < 0x800) {
    put(0xC0U | (code_point >> 6));
    put(0x80U | (code_point & 0x3FU));
  } else if (code_point < 0x10000) {
    put(0xE0U | (code_point >> 12));
    put(0x80U | ((code_point >> 6) & 0x3FU));
    put(0x80U | (code_point & 0x3FU));
  } else {
    put(0xF0U | (code_point >> 18));
    put(0x80U | ((code_point >> 12) & 0x3FU));
    put(0x80U | ((code_point >> 6) & 0x3FU));
    put(0x80U | (code_point & 0x3FU));
  }
}

void Utf8Repair::feed_pending(std::string_view& bytes, std::string& out) {
  while (n_pending_ > 0 && !bytes.empty()) {
    pending_[n_pending_] = bytes.front();
    const auto scanned = scan_char({pending_.data(), n_pending_ + 1});
    switch (scanned.kind) {
      case ScannedChar::Kind::kIncomplete:
        ++n_pending_;
        bytes.remove_prefix(1);
        break;
      case ScannedChar::Kind::kValid:
        out.append(pending_.data(), scanned.n_bytes);
        bytes.remove_prefix(1);
        n_pending_ = 0;
        break;
      case ScannedChar::Kind::kInvalid:  // the new byte starts afresh
        out.append(kReplacement);
        n_pending_ = 0;
        break;
    }
  }
}

void Utf8Repair::feed(std::string_view bytes, std::string& out) {
  feed_pending(bytes, out);
  size_t good = 0;  // bytes found valid and not copied yet
  while (good < bytes.size()) {
    good += ascii_prefix(bytes.substr(good));
    if (good == bytes.size()) break;
    const auto scanned = scan_char(bytes.substr(good));
    if (scanned.kind == ScannedChar::Kind::kValid) {
      good += scanned.n_bytes;
      continue;
    }
    out.append(bytes.substr(0, good));
    if (scanned.kind == ScannedChar::Kind::kIncomplete) {
      n_pending_ = bytes.size() - good;
      std::copy_n(bytes.data() + good, n_pending_, pending_.begin());
      return;
    }
    out.append(kReplacement);
    bytes.remove_prefix(good + scanned.n_bytes);
    good = 0;
  }
  out.append(bytes);
}

void Utf8Repair::finish(std::string& out) {
  if (n_pending_ > 0) out.append(kReplacement);
  n_pending_ = 0;
}

std::string repair_utf8(std::string_view bytes) {
  std::string out;
  out.reserve(bytes.size());
  Utf8Repair repair;
  repair.feed(bytes, out);
  repair.finish(out);
  return out;
}

const std::array<std::string, 256>& byte_level_alphabet() {
  static const auto alphabet_table = [] {
    std::array<std::string, 256> alphabet;
    char32_t next_substitute = 256;
    for (char32_t byte = 0; byte < 256; ++byte) {
      const bool printable = (byte >= '!' && byte <= '~') || (byte >= 0xA1 && byte != 0xAD);
      append_utf8(printable ? byte : next_substitute++, alphabet[byte]);
    }
    return alphabet;
  }();
  return alphabet_table;
}

std::optional<std::string> byte_level_to_bytes(std::string_view token) {
  static const auto bytes_of = [] {
    std::unordered_map<char32_t, char> bytes;
    for (size_t byte = 0; byte < 256; ++byte) {
      bytes[decode_char(byte_level_alphabet()[byte], 0).code_point] = static_cast<char>(byte);
    }
    return bytes;
  }();
  std::string out;
  out.reserve(token.size());
  for (size_t pos = 0; pos < token.size();) {
    const DecodedChar decoded = decode_char(token, pos);
    const auto found = bytes_of.find(decoded.code_point);
    if (found == bytes_of.end()) return std::nullopt;
    out.push_back(found->second);
    pos += decoded.n_bytes;
  }
  return out;
}

}  // namespace llmq::runtime
