#include "runtime/tokenizer/nfc.h"

#include <utf8proc.h>

#include <algorithm>
#include <array>

#include "formats/error.h"
#include "runtime/tokenizer/unicode.h"

namespace llmq::runtime {
namespace {

using CodePoints = std::vector<utf8proc_int32_t>;

int combining_class(utf8proc_int32_t code_point) {
  return utf8proc_get_property(code_point)->combining_class;
}

void append_decomposition(char32_t code_point, CodePoints& out) {
  std::array<utf8proc_int32_t, 32> parts{};
  int boundary_class = 0;
  const auto n = utf8proc_decompose_char(static_cast<utf8proc_int32_t>(code_point), parts.data(),
                                         static_cast<utf8proc_ssize_t>(parts.size()),
                                         UTF8PROC_DECOMPOSE, &boundary_class);
  if (n < 0 || n > static_cast<utf8proc_ssize_t>(parts.size())) {
    throw formats::Error(formats::ErrorCode::kInternal, "NFC: a character did not decompose");
  }
  out.insert(out.end(), parts.begin(), parts.begin() + n);
}

/// Canonical ordering. utf8proc's own is quadratic in a run of marks, which a hostile text can make
/// as long as it likes.
void sort_marks(CodePoints& text) {
  for (size_t begin = 0; begin < text.size();) {
    if (combining_class(text[begin]) == 0) {
      ++begin;
      continue;
    }
    size_t end = begin + 1;
    while (end < text.size() && combining_class(text[end]) != 0) ++end;
    std::stable_sort(text.begin() + static_cast<std::ptrdiff_t>(begin),
                     text.begin() + static_cast<std::ptrdiff_t>(end), [](auto left, auto right) {
                       return combining_class(left) < combining_class(right);
                     });
    begin = end;
  }
}

void append_nfc(std::string_view text, std::string& out) {
  CodePoints code_points;
  code_points.reserve(text.size());
  for (size_t pos = 0; pos < text.size();) {
    const DecodedChar decoded = decode_char(text, pos);
    append_decomposition(decoded.code_point, code_points);
    pos += decoded.n_bytes;
  }
  sort_marks(code_points);
  const auto n = utf8proc_normalize_utf32(
      code_points.data(), static_cast<utf8proc_ssize_t>(code_points.size()),
      static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE));
  if (n < 0) throw formats::Error(formats::ErrorCode::kInternal, "NFC: composition failed");
  for (utf8proc_ssize_t i = 0; i < n; ++i) {
    append_utf8(static_cast<char32_t>(code_points[static_cast<size_t>(i)]), out);
  }
}

/// All bytes below 0xCC: every character is below U+0300 and so in form C already.
bool is_plain(std::string_view text) {
  return std::all_of(text.begin(), text.end(),
                     [](char c) { return static_cast<unsigned char>(c) < 0xCC; });
}

class NfcStep : public NormalizerStep {
 public:
  void feed(std::string_view text, std::string& out) override {
    const size_t n_seen = held_.size();
    held_.append(text);
    for (size_t pos = held_.size(); pos > n_seen;) {
      pos = previous_char(held_, pos);
      if (pos == 0 || !is_nfc_boundary(decode_char(held_, pos).code_point)) continue;
      normalize(std::string_view(held_).substr(0, pos), out);
      held_.erase(0, pos);
      return;
    }
  }

  void finish(std::string& out) override {
    normalize(held_, out);
    held_.clear();
  }

 private:
  /// Copies stretches of boundary characters and normalizes only what lies between them, from the
  /// boundary character before it (which may take a mark) on.
  static void normalize(std::string_view text, std::string& out) {
    if (is_plain(text)) {
      out.append(text);
      return;
    }
    size_t copied = 0;
    size_t last = 0;  // start of the last boundary character
    for (size_t pos = 0; pos < text.size();) {
      const DecodedChar decoded = decode_char(text, pos);
      if (is_nfc_boundary(decoded.code_point)) {
        last = pos;
        pos += decoded.n_bytes;
        continue;
      }
      size_t end = pos;
      while (end < text.size()) {
        const DecodedChar next = decode_char(text, end);
        if (is_nfc_boundary(next.code_point)) break;
        end += next.n_bytes;
      }
      const size_t begin = std::max(copied, last);
      out.append(text.substr(copied, begin - copied));
      append_nfc(text.substr(begin, end - begin), out);
      copied = end;
      pos = end;
    }
    out.append(text.substr(copied));
  }

  std::string held_;
};

}  // namespace

bool is_nfc_boundary(char32_t code_point) {
  struct Range {
    char32_t first, last;
  };
  static constexpr std::array kRanges = {
      Range{0x0000, 0x02FF}, Range{0x0400, 0x0482}, Range{0x048A, 0x0530},  Range{0x2002, 0x20CF},
      Range{0x3000, 0x3029}, Range{0x3030, 0x3098}, Range{0x309B, 0x312F},  Range{0x3400, 0x9FFF},
      Range{0xAC00, 0xD7A3}, Range{0xFF00, 0xFFEF}, Range{0x1F300, 0x1FAFF}};
  if (code_point <= kRanges[0].last) return true;
  return std::any_of(kRanges.begin() + 1, kRanges.end(), [&](const Range& range) {
    return code_point >= range.first && code_point <= range.last;
  });
}

std::unique_ptr<NormalizerStep> new_nfc_step() {
  return std::make_unique<NfcStep>();
}

}  // namespace llmq::runtime
