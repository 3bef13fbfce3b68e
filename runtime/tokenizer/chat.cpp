#include "runtime/tokenizer/chat.h"

#include <fmt/format.h>

#include <algorithm>

#include "formats/error.h"
#include "runtime/tokenizer/chat_table.h"
#include "runtime/tokenizer/jinja_words.h"
#include "runtime/tokenizer/json_fields.h"
#include "runtime/tokenizer/tokenizer_config.h"

namespace llmq::runtime {
namespace {

constexpr size_t kMaxTemplateBytes = size_t{1} << 20;
constexpr std::string_view kSystemBegin = "<|im_start|>system\n";
constexpr std::string_view kSystemEnd = "<|im_end|>\n";
constexpr std::string_view kDateCode = "set date_string='";
constexpr std::string_view kQwen1System = "You are a helpful assistant.";

bool contains(std::span<const std::string_view> words, std::string_view word) {
  return std::find(words.begin(), words.end(), word) != words.end();
}

bool is_qwen1(const std::filesystem::path& folder) {
  return exists(folder / "qwen.tiktoken") && !exists(folder / "tokenizer.json") &&
         !exists(folder / "vocab.json");
}

/// What a template fills into the rules of its row.
struct Parameters {
  std::string default_system;
  std::string date;
};

/// The literal that holds the default system message, if there is one.
std::string find_default_system(const JinjaWords& words) {
  for (const std::string& literal : words.literals) {
    const std::string_view text = literal;
    if (!text.starts_with(kSystemBegin) || !text.ends_with(kSystemEnd) ||
        text.size() <= kSystemBegin.size() + kSystemEnd.size()) {
      continue;
    }
    const auto message =
        text.substr(kSystemBegin.size(), text.size() - kSystemBegin.size() - kSystemEnd.size());
    if (message.find("<|") == message.npos) return std::string(message);
  }
  return "";
}

std::string find_date(const JinjaWords& words) {
  const size_t begin = words.code.find(kDateCode);
  if (begin == std::string::npos) return "";
  const size_t end = words.code.find('\'', begin + kDateCode.size());
  return words.code.substr(begin + kDateCode.size(), end - begin - kDateCode.size());
}

/// The first thing that keeps a template from being this row's, or nothing when it fits.
std::optional<std::string> find_obstacle(const JinjaWords& words, const ChatRow& row,
                                         const Parameters& parameters) {
  for (const auto code : row.needs_code) {
    if (words.code.find(code) == std::string::npos)
      return fmt::format("it lacks {}", in_quotes(code));
  }
  for (const auto literal : row.needs_literals) {
    if (std::find(words.literals.begin(), words.literals.end(), literal) == words.literals.end()) {
      return fmt::format("it lacks {}", in_quotes(literal));
    }
  }
  const std::string default_turn =
      fmt::format("{}{}{}", kSystemBegin, parameters.default_system, kSystemEnd);
  for (const std::string& literal : words.literals) {
    const bool known = contains(common_chat_literals(), literal) ||
                       contains(row.needs_literals, literal) ||
                       contains(row.more_literals, literal);
    const bool of_system = row.has_default_system && !parameters.default_system.empty() &&
                           (literal == parameters.default_system || literal == default_turn);
    const bool of_date = row.rules.dates_system && literal == parameters.date;
    if (!known && !of_system && !of_date) {
      return fmt::format("it has the text {}", in_quotes(literal));
    }
  }
  for (const std::string& name : words.names) {
    if (!contains(common_chat_names(), name) && !contains(row.more_names, name)) {
      return fmt::format("it uses {}", in_quotes(name));
    }
  }
  if (row.rules.dates_system && parameters.date.empty()) return "it has no date";
  return std::nullopt;
}

}  // namespace

ChatTemplate ChatTemplate::recognize(std::string_view template_text) {
  if (template_text.size() > kMaxTemplateBytes) {
    throw formats::bad_input(fmt::format("the chat template has {} bytes, more than the {} allowed",
                                         template_text.size(), kMaxTemplateBytes));
  }
  const JinjaWords words = read_jinja(template_text);
  const Parameters parameters{find_default_system(words), find_date(words)};
  std::string reason = words.outside.empty() ? "" : "it has text outside of its tags";
  for (const ChatRow& row : chat_table()) {
    if (!words.outside.empty()) break;
    const auto obstacle = find_obstacle(words, row, parameters);
    if (!obstacle) {
      ChatTemplate result;
      result.rules_ = row.rules;
      if (row.has_default_system) result.default_system_ = parameters.default_system;
      if (row.rules.dates_system) result.date_ = parameters.date;
      return result;
    }
    // Where everything needed is there, the obstacle tells more than what other rows lack.
    if (reason.empty() || !obstacle->starts_with("it lacks")) reason = *obstacle;
  }
  throw formats::bad_input(
      fmt::format("the model's chat template is none that llmq knows (ChatML as Qwen uses it, "
                  "Llama 3): {}; write "
                  "the prompt yourself and pass it with --input_texts",
                  reason));
}

ChatTemplate ChatTemplate::load(const std::filesystem::path& model_folder) {
  try {
    const TokenizerConfig config = TokenizerConfig::load(model_folder);
    if (config.chat_template) return recognize(*config.chat_template);
    return is_qwen1(model_folder) ? by_name("qwen2", std::string(kQwen1System)) : ChatTemplate();
  } catch (const formats::Error& error) {
    throw error.with_context("chat template in " + model_folder.string());
  }
}

ChatTemplate ChatTemplate::by_name(std::string_view name, std::string default_system) {
  for (const ChatRow& row : chat_table()) {
    if (row.rules.name != name) continue;
    ChatTemplate result;
    result.rules_ = row.rules;
    result.default_system_ = std::move(default_system);
    result.date_ = "26 Jul 2024";
    return result;
  }
  throw formats::usage_error(fmt::format("no chat format is called {}", in_quotes(name)));
}

}  // namespace llmq::runtime
