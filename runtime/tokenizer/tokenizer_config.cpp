#include "runtime/tokenizer/tokenizer_config.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>

#include "formats/error.h"
#include "runtime/tokenizer/json_fields.h"

namespace llmq::runtime {
namespace {

using formats::bad_input;
using formats::Json;

constexpr std::string_view kWhere = "tokenizer_config.json";
constexpr size_t kMaxAddedTokenBytes = 4096;

/// A special token is written as a string or as an object with its content.
std::optional<std::string> token_content(const Json& object, std::string_view key) {
  const Json* value = find_field(object, key);
  if (value != nullptr && value->is_object()) return optional_string(*value, "content", kWhere);
  return optional_string(object, key, kWhere);
}

void add_once(std::vector<std::string>& list, const std::string& text) {
  if (!text.empty() && std::find(list.begin(), list.end(), text) == list.end())
    list.push_back(text);
}

int32_t id_of_key(const std::string& key) {
  int64_t id = -1;
  const auto [end, error] = std::from_chars(key.data(), key.data() + key.size(), id);
  if (error != std::errc() || end != key.data() + key.size()) id = -1;
  return parse_token_id(
      Json(id), std::string(kWhere) + ", key " + in_quotes(key) + " of added_tokens_decoder");
}

/// A template is a string, or a list of named ones of which "default" counts.
std::optional<std::string> find_template(const Json& config) {
  const Json* value = find_field(config, "chat_template");
  if (value == nullptr || !value->is_array()) {
    return optional_string(config, "chat_template", kWhere);
  }
  for (const Json& named : *value) {
    if (optional_string(named, "name", kWhere) == "default") {
      return required_string(named, "template", kWhere);
    }
  }
  return std::nullopt;
}

std::optional<bool> optional_bool(const Json& config, std::string_view key) {
  const Json* value = find_field(config, key);
  if (value == nullptr || value->is_null()) return std::nullopt;
  return bool_or(config, key, false, kWhere);
}

}  // namespace

AddedToken parse_added_token(const Json& node, int32_t id, std::string_view where) {
  AddedToken token;
  token.id = id;
  token.content = required_string(node, "content", where);
  if (token.content.empty() || token.content.size() > kMaxAddedTokenBytes) {
    throw bad_input(
        fmt::format("{}: the added token {} has a content of {} bytes; 1 to {} are "
                    "allowed",
                    where, id, token.content.size(), kMaxAddedTokenBytes));
  }
  token.special = bool_or(node, "special", false, where);
  token.normalized = bool_or(node, "normalized", !token.special, where);
  token.lstrip = bool_or(node, "lstrip", false, where);
  token.rstrip = bool_or(node, "rstrip", false, where);
  token.single_word = bool_or(node, "single_word", false, where);
  return token;
}

std::vector<int32_t> parse_eos_ids(const Json& generation_config) {
  constexpr std::string_view kOrigin = "generation_config.json, eos_token_id";
  const Json* value = find_field(generation_config, "eos_token_id");
  if (value == nullptr || value->is_null()) return {};
  if (!value->is_array()) return {parse_token_id(*value, kOrigin)};
  std::vector<int32_t> ids;
  for (const Json& id : *value) ids.push_back(parse_token_id(id, kOrigin));
  return ids;
}

void TokenizerConfig::merge_special_tokens(const Json& map) {
  const auto take = [&](std::optional<std::string>& token, std::string_view key) {
    if (auto content = token_content(map, key); content && !token) token = content;
  };
  take(bos_token, "bos_token");
  take(eos_token, "eos_token");
  take(unk_token, "unk_token");
  static constexpr std::array<std::string_view, 7> kNames = {
      "bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token", "mask_token"};
  for (const auto name : kNames) {
    if (const auto content = token_content(map, name)) add_once(special_tokens, *content);
  }
  const Json* more = find_field(map, "additional_special_tokens");
  if (more == nullptr || !more->is_array()) return;
  for (const Json& token : *more) {
    if (token.is_string()) add_once(special_tokens, token.get<std::string>());
    if (token.is_object()) add_once(special_tokens, required_string(token, "content", kWhere));
  }
}

TokenizerConfig TokenizerConfig::parse(const Json& config) {
  if (!config.is_object()) throw bad_input(fmt::format("{}: must be a JSON object", kWhere));
  TokenizerConfig result;
  result.tokenizer_class = optional_string(config, "tokenizer_class", kWhere).value_or("");
  result.add_bos_token = optional_bool(config, "add_bos_token");
  result.add_eos_token = optional_bool(config, "add_eos_token");
  result.add_prefix_space = bool_or(config, "add_prefix_space", false, kWhere);
  result.chat_template = find_template(config);
  result.merge_special_tokens(config);
  if (const Json* added = find_field(config, "added_tokens_decoder");
      added != nullptr && added->is_object()) {
    for (const auto& [key, node] : added->items()) {
      const int32_t id = id_of_key(key);
      result.added_tokens.push_back(
          parse_added_token(node, id, std::string(kWhere) + ", added_tokens_decoder"));
    }
  }
  return result;
}

TokenizerConfig TokenizerConfig::load(const std::filesystem::path& model_folder) {
  TokenizerConfig config;
  if (const auto path = model_folder / "tokenizer_config.json"; std::filesystem::exists(path)) {
    config = parse(formats::read_json_file(path));
  }
  if (const auto path = model_folder / "special_tokens_map.json"; std::filesystem::exists(path)) {
    config.merge_special_tokens(formats::read_json_file(path));
  }
  if (const auto path = model_folder / "chat_template.jinja";
      !config.chat_template && std::filesystem::exists(path)) {
    config.chat_template = formats::read_text_file(path, size_t{1} << 20);
  }
  return config;
}

}  // namespace llmq::runtime
