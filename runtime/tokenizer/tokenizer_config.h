#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "formats/json.h"
#include "runtime/tokenizer/added_tokens.h"

namespace llmq::runtime {

/// What tokenizer_config.json (and special_tokens_map.json for what it lacks) says.
struct TokenizerConfig {
  std::string tokenizer_class;  ///< "" where it is not named
  std::optional<bool> add_bos_token;
  std::optional<bool> add_eos_token;
  bool add_prefix_space = false;
  std::optional<std::string> bos_token;
  std::optional<std::string> eos_token;
  std::optional<std::string> unk_token;
  std::vector<std::string> special_tokens;  ///< every token named for a special purpose, once
  std::vector<AddedToken> added_tokens;     ///< added_tokens_decoder, by id
  std::optional<std::string> chat_template;

  /// Throws Error{kBadInput} when a known key has a wrong type; unknown keys are ignored.
  static TokenizerConfig parse(const formats::Json& config);

  /// Reads the folder's tokenizer_config.json and special_tokens_map.json, each of which may be
  /// absent; chat_template.jinja where the configuration has no template.
  static TokenizerConfig load(const std::filesystem::path& model_folder);

  /// Takes from special_tokens_map.json what is not named yet.
  void merge_special_tokens(const formats::Json& map);
};

/// An added token as tokenizer.json and added_tokens_decoder write it. `where` names it in errors.
AddedToken parse_added_token(const formats::Json& node, int32_t id, std::string_view where);

/// eos_token_id of a generation_config.json: a number, a list, or absent. Throws Error{kBadInput}.
std::vector<int32_t> parse_eos_ids(const formats::Json& generation_config);

}  // namespace llmq::runtime
