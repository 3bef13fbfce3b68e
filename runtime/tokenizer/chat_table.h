#pragma once

#include <span>
#include <string_view>

#include "runtime/tokenizer/chat.h"

namespace llmq::runtime {

/// A known template: its rules and the words it is recognized by.
struct ChatRow {
  ChatRules rules;
  /// Literals that must all be there (they make the turns of a plain conversation).
  std::span<const std::string_view> needs_literals;
  /// Phrases of the code (JinjaWords::code) that must all be there.
  std::span<const std::string_view> needs_code;
  /// Names that may be there beyond those that every template uses.
  std::span<const std::string_view> more_names;
  /// Literals that may be there beyond the needed ones and those that every template uses.
  std::span<const std::string_view> more_literals;
  /// Whether "<|im_start|>system\n" X "<|im_end|>\n" may be there, with X the default system
  /// message.
  bool has_default_system = false;
};

/// All rows; the first that fits wins.
std::span<const ChatRow> chat_table();

/// Literals and names that any row's template may contain.
std::span<const std::string_view> common_chat_literals();
std::span<const std::string_view> common_chat_names();

}  // namespace llmq::runtime
