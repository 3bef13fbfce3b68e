#include <fmt/format.h>

#include <algorithm>

#include "formats/error.h"
#include "runtime/tokenizer/chat.h"
#include "runtime/tokenizer/json_fields.h"
#include "runtime/tokenizer/unicode.h"

namespace llmq::runtime {
namespace {

using Messages = std::span<const ChatMessage>;

constexpr std::string_view kThinkBegin = "<think>";
constexpr std::string_view kThinkEnd = "</think>";

std::string_view strip_newlines_left(std::string_view text) {
  return text.substr(std::min(text.find_first_not_of('\n'), text.size()));
}

std::string_view strip_newlines_right(std::string_view text) {
  const size_t last = text.find_last_not_of('\n');
  return text.substr(0, last == text.npos ? 0 : last + 1);
}

/// What Python's str.strip() takes away at both ends.
std::string_view trim(std::string_view text) {
  const auto is_space = [](char32_t c) {
    return char_class(c) == CharClass::kSpace || (c >= 0x1C && c <= 0x1F);
  };
  while (!text.empty()) {
    const DecodedChar c = decode_char(text, 0);
    if (!is_space(c.code_point)) break;
    text.remove_prefix(std::min<size_t>(c.n_bytes, text.size()));
  }
  while (!text.empty()) {
    const size_t last = previous_char(text, text.size());
    if (!is_space(decode_char(text, last).code_point)) break;
    text = text.substr(0, last);
  }
  return text;
}

struct Thought {
  std::string_view reasoning;
  std::string_view answer;
};

/// Takes an assistant's message apart as Qwen3's template does.
Thought split_thought(std::string_view content) {
  const size_t first_end = content.find(kThinkEnd);
  if (first_end == content.npos) return {"", content};
  std::string_view reasoning = strip_newlines_right(content.substr(0, first_end));
  if (const size_t begin = reasoning.rfind(kThinkBegin); begin != reasoning.npos) {
    reasoning.remove_prefix(begin + kThinkBegin.size());
  }
  const size_t last_end = content.rfind(kThinkEnd);
  return {strip_newlines_left(reasoning),
          strip_newlines_left(content.substr(last_end + kThinkEnd.size()))};
}

/// Index of the last message of a user that is no result of a tool; the last message's without one.
size_t find_last_query(Messages messages) {
  for (size_t i = messages.size(); i-- > 0;) {
    const std::string_view content = messages[i].content;
    const bool is_tool_result =
        content.starts_with("<tool_response>") && content.ends_with("</tool_response>");
    if (messages[i].role == "user" && !is_tool_result) return i;
  }
  return messages.size() - 1;
}

class ChatMlWriter {
 public:
  ChatMlWriter(const ChatRules& rules, Messages messages)
      : rules_(rules), messages_(messages), last_query_(find_last_query(messages)) {}

  std::string write(const std::string& default_system, const ChatTemplate::RenderOptions& options) {
    if (messages_[0].role != "system" && !default_system.empty()) turn("system", default_system);
    for (size_t i = 0; i < messages_.size(); ++i) {
      const ChatMessage& message = messages_[i];
      if (message.role == "tool") {
        tool_turn(i);
      } else if (message.role == "assistant" && rules_.rewrites_thinking) {
        thinking_turn(i);
      } else {
        turn(message.role, message.content);
      }
    }
    if (options.add_generation_prompt) {
      text_ += "<|im_start|>assistant\n";
      if (rules_.rewrites_thinking && !options.enable_thinking) text_ += "<think>\n\n</think>\n\n";
    }
    return std::move(text_);
  }

 private:
  void turn(std::string_view role, std::string_view content) {
    text_ += fmt::format("<|im_start|>{}\n{}<|im_end|>\n", role, content);
  }

  void tool_turn(size_t i) {
    if (i == 0 || messages_[i - 1].role != "tool") text_ += "<|im_start|>user";
    text_ += fmt::format("\n<tool_response>\n{}\n</tool_response>", messages_[i].content);
    if (i + 1 == messages_.size() || messages_[i + 1].role != "tool") text_ += "<|im_end|>\n";
  }

  void thinking_turn(size_t i) {
    const auto [reasoning, answer] = split_thought(messages_[i].content);
    const bool is_last = i + 1 == messages_.size();
    if (i > last_query_ && (is_last || !reasoning.empty())) {
      const auto stripped = strip_newlines_right(strip_newlines_left(reasoning));
      turn("assistant",
           fmt::format("<think>\n{}\n</think>\n\n{}", stripped, strip_newlines_left(answer)));
    } else {
      turn("assistant", answer);
    }
  }

  const ChatRules& rules_;
  Messages messages_;
  size_t last_query_;
  std::string text_;
};

std::string write_llama3(const ChatRules& rules, Messages messages, const std::string& date,
                         bool add_generation_prompt) {
  std::string text = "<|begin_of_text|>";
  const auto turn = [&](std::string_view role, std::string_view before, std::string_view content) {
    text += fmt::format("<|start_header_id|>{}<|end_header_id|>\n\n{}{}<|eot_id|>", role, before,
                        rules.trims_content ? trim(content) : content);
  };
  if (rules.dates_system) {
    const bool has_system = messages[0].role == "system";
    turn("system", fmt::format("Cutting Knowledge Date: December 2023\nToday Date: {}\n\n", date),
         has_system ? std::string_view(messages[0].content) : std::string_view());
    if (has_system) messages = messages.subspan(1);
  }
  for (const ChatMessage& message : messages) turn(message.role, "", message.content);
  if (add_generation_prompt || rules.always_prompts) {
    text += "<|start_header_id|>assistant<|end_header_id|>\n\n";
  }
  return text;
}

}  // namespace

std::string ChatTemplate::render(std::span<const ChatMessage> messages,
                                 const RenderOptions& options) const {
  if (rules_.format == ChatFormat::kNone) {
    throw formats::usage_error(
        "the model has no chat template; write the prompt yourself and pass it with --input_texts");
  }
  if (messages.empty()) throw formats::usage_error("a conversation needs at least one message");
  for (const ChatMessage& message : messages) {
    const bool known = message.role == "system" || message.role == "user" ||
                       message.role == "assistant" ||
                       (message.role == "tool" && rules_.has_tool_role);
    if (!known) {
      throw formats::usage_error(
          fmt::format("the chat format {} has no role {}", rules_.name, in_quotes(message.role)));
    }
  }
  if (rules_.format == ChatFormat::kLlama3) {
    return write_llama3(rules_, messages, date_, options.add_generation_prompt);
  }
  return ChatMlWriter(rules_, messages).write(default_system_, options);
}

}  // namespace llmq::runtime
