#include "runtime/tokenizer/jinja_words.h"

#include <algorithm>

#include "formats/error.h"

namespace llmq::runtime {
namespace {

constexpr std::string_view kSpace = " \t\r\n";

bool is_name_char(char c) {
  const auto lower = static_cast<unsigned char>(c) | 0x20;
  return (lower >= 'a' && lower <= 'z') || (c >= '0' && c <= '9') || c == '_';
}

/// Drops what the settings of the transformers library (trim_blocks, lstrip_blocks) and the signs
/// at the neighbouring tags take away from white space between two tags.
std::string_view surviving_space(std::string_view text, bool after_block, bool before_block) {
  bool at_line_start = false;
  if (after_block && text.starts_with('\n')) {
    text.remove_prefix(1);
    at_line_start = true;
  }
  if (before_block && (at_line_start || text.find('\n') != text.npos)) {
    const size_t last = text.find_last_not_of(" \t");
    text = text.substr(0, last == text.npos ? 0 : last + 1);
  }
  return text;
}

class Reader {
 public:
  explicit Reader(std::string_view text) : text_(text) {}

  JinjaWords read() {
    if (text_.ends_with('\n')) text_.remove_suffix(1);  // as Jinja does
    size_t begin = 0;                                   // of the text since the last tag
    while (pos_ < text_.size()) {
      const size_t tag = text_.find('{', pos_);
      const char kind = tag < text_.size() - 1 ? text_[tag + 1] : '\0';
      if (tag == text_.npos) break;
      pos_ = tag + 1;
      if (kind != '{' && kind != '%' && kind != '#') continue;
      const char sign = tag + 2 < text_.size() ? text_[tag + 2] : '\0';
      add_outside(text_.substr(begin, tag - begin), sign == '-', kind != '{');
      pos_ = tag + (sign == '-' || sign == '+' ? 3 : 2);
      if (kind == '#') {
        skip_comment();
      } else {
        read_tag(kind == '{' ? "}}" : "%}");
      }
      after_block_ = kind != '{';
      begin = pos_;
    }
    add_outside(text_.substr(begin), false, false);
    return std::move(words_);
  }

 private:
  [[noreturn]] static void fail() {
    throw formats::bad_input(
        "the chat template is not valid Jinja: a tag or a string is not closed");
  }

  void add_outside(std::string_view text, bool strips_before, bool before_block) {
    if (text.find_first_not_of(kSpace) == text.npos) {
      if (strips_before || strips_after_) return;
      text = surviving_space(text, after_block_, before_block);
    }
    words_.outside.append(text);
  }

  void skip_comment() {
    const size_t end = text_.find("#}", pos_);
    if (end == text_.npos) fail();
    strips_after_ = text_[end - 1] == '-';
    pos_ = end + 2;
  }

  void read_tag(std::string_view close) {
    while (!text_.substr(pos_).starts_with(close)) {
      if (pos_ >= text_.size()) fail();
      const char c = text_[pos_];
      if (c == '\'' || c == '"') {
        read_literal(c);
      } else if (is_name_char(c)) {
        read_name();
      } else {
        if (kSpace.find(c) == kSpace.npos) words_.code.push_back(c);
        ++pos_;
      }
    }
    strips_after_ = words_.code.ends_with('-');
    if (strips_after_) words_.code.pop_back();
    words_.code.append(close);
    pos_ += close.size();
  }

  void read_name() {
    const size_t begin = pos_;
    while (pos_ < text_.size() && is_name_char(text_[pos_])) ++pos_;
    const std::string_view name = text_.substr(begin, pos_ - begin);
    // Neighbouring words stay apart.
    if (!words_.code.empty() && is_name_char(words_.code.back())) words_.code.push_back(' ');
    words_.code.append(name);
    if (name[0] < '0' || name[0] > '9') words_.names.emplace_back(name);
  }

  void read_literal(char quote) {
    std::string literal;
    for (++pos_; pos_ < text_.size() && text_[pos_] != quote; ++pos_) {
      char c = text_[pos_];
      if (c == '\\' && pos_ + 1 < text_.size()) {
        c = text_[++pos_];
        if (c == 'n') c = '\n';
        if (c == 't') c = '\t';
        if (c == 'r') c = '\r';
      }
      literal.push_back(c);
    }
    if (pos_ >= text_.size()) fail();
    ++pos_;
    words_.code.append("'").append(literal).append("'");
    words_.literals.push_back(std::move(literal));
  }

  std::string_view text_;
  size_t pos_ = 0;
  bool strips_after_ = false;  // the last tag ended with a minus
  bool after_block_ = false;   // the last tag was a block or a comment
  JinjaWords words_;
};

}  // namespace

JinjaWords read_jinja(std::string_view text) {
  return Reader(text).read();
}

}  // namespace llmq::runtime
