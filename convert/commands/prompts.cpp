#include "convert/commands/prompts.h"

#include <fmt/format.h>

#include <filesystem>
#include <limits>
#include <sstream>
#include <string_view>

#include "formats/error.h"
#include "formats/json.h"
#include "runtime/tokenizer/chat.h"

namespace llmq::convert {
namespace {

using formats::bad_input;
using formats::Json;
using formats::usage_error;

struct TextPrompt {
  std::string text;
  int64_t max_output_length = 0;
};

TextPrompt parse_object(const Json& item, const std::string& origin, int64_t default_length) {
  if (item.is_string()) return {item.get<std::string>(), default_length};
  if (!item.is_object() || !item.contains("prompt") || !item["prompt"].is_string()) {
    throw bad_input(origin + ": is neither a string nor an object with a \"prompt\"");
  }
  TextPrompt prompt{item["prompt"].get<std::string>(), default_length};
  if (const auto it = item.find("max_output_length"); it != item.end()) {
    const bool fits = it->is_number_integer() && it->get<int64_t>() >= 0;
    if (!fits)
      throw bad_input(origin + ": \"max_output_length\" is not a whole number of 0 or more");
    prompt.max_output_length = it->get<int64_t>();
  }
  return prompt;
}

void append_lines(const std::filesystem::path& path, int64_t default_length,
                  std::vector<TextPrompt>& prompts) {
  std::istringstream lines(formats::read_text_file(path));
  std::string line;
  for (size_t number = 1; std::getline(lines, line); ++number) {
    if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
    const std::string origin = fmt::format("{}: line {}", path.string(), number);
    prompts.push_back(parse_object(formats::parse_json(line, origin), origin, default_length));
  }
}

std::vector<TextPrompt> text_prompts(const PromptOptions& options) {
  std::vector<TextPrompt> prompts;
  for (const std::string& text : options.texts) {
    std::error_code error;
    const bool may_be_path =
        !text.empty() && text.size() < 4096 && text.find('\n') == std::string::npos;
    if (may_be_path && std::filesystem::is_regular_file(text, error)) {
      if (text.ends_with(".jsonl")) {
        append_lines(text, options.max_output_length, prompts);
      } else {
        prompts.push_back({formats::read_text_file(text), options.max_output_length});
      }
    } else {
      prompts.push_back({text, options.max_output_length});
    }
  }
  if (options.dictionary.empty()) return prompts;
  const Json list = formats::parse_json(options.dictionary, "--input_dict");
  if (!list.is_array()) throw usage_error("--input_dict: is not a JSON list");
  for (size_t i = 0; i < list.size(); ++i) {
    prompts.push_back(parse_object(list[i], fmt::format("--input_dict: entry {}", i + 1),
                                   options.max_output_length));
  }
  return prompts;
}

std::vector<int32_t> parse_id_list(const Json& list) {
  std::vector<int32_t> ids;
  for (const Json& id : list) {
    const bool fits = id.is_number_integer() && id.get<int64_t>() >= 0 &&
                      id.get<int64_t>() <= std::numeric_limits<int32_t>::max();
    if (!fits) throw usage_error("--input_ids: " + id.dump() + " is not a token id");
    ids.push_back(id.get<int32_t>());
  }
  return ids;
}

std::vector<Prompt> id_prompts(const PromptOptions& options) {
  if (options.ids.empty()) return {};
  const bool is_json = options.ids.find_first_not_of(' ') != std::string::npos &&
                       options.ids[options.ids.find_first_not_of(' ')] == '[';
  const Json list =
      formats::parse_json(is_json ? options.ids : "[" + options.ids + "]", "--input_ids");
  std::vector<Prompt> prompts;
  const bool is_nested = !list.empty() && list.front().is_array();
  if (!is_nested) return {{parse_id_list(list), options.max_output_length}};
  for (const Json& inner : list) {
    if (!inner.is_array()) throw usage_error("--input_ids: mixes ids and lists of ids");
    prompts.push_back({parse_id_list(inner), options.max_output_length});
  }
  return prompts;
}

}  // namespace

std::vector<Prompt> read_prompts(const PromptOptions& options, const std::string& model_folder,
                                 const std::optional<runtime::Tokenizer>& tokenizer) {
  std::vector<Prompt> prompts = id_prompts(options);
  const std::vector<TextPrompt> texts = text_prompts(options);
  if (!texts.empty() && !tokenizer) {
    throw bad_input(model_folder + ": has no tokenizer, so it reads no text; give --input_ids");
  }
  std::optional<runtime::ChatTemplate> chat;
  if (options.is_chat && !texts.empty()) chat = runtime::ChatTemplate::load(model_folder);
  for (const TextPrompt& text : texts) {
    runtime::EncodeOptions encode;
    encode.add_bos = !chat && tokenizer->adds_bos();
    encode.add_eos = options.is_embedding && tokenizer->adds_eos();
    const std::vector<runtime::ChatMessage> messages{{"user", text.text}};
    prompts.push_back({tokenizer->encode(chat ? chat->render(messages, {}) : text.text, encode),
                       text.max_output_length});
  }
  if (prompts.empty())
    throw usage_error("nothing to run: give --input_texts, --input_dict or --input_ids");
  for (size_t i = 0; i < prompts.size(); ++i) {
    const auto length = static_cast<int64_t>(prompts[i].ids.size());
    if (options.max_input_length <= 0 || length <= options.max_input_length) continue;
    throw bad_input(fmt::format(
        "prompt {} has {} tokens, more than --max_input_length {}; shorten it or raise the limit",
        i + 1, length, options.max_input_length));
  }
  return prompts;
}

}  // namespace llmq::convert
