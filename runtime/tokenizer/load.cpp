#include <algorithm>
#include <utility>

#include "formats/error.h"
#include "runtime/tokenizer/json_fields.h"
#include "runtime/tokenizer/loaders.h"
#include "runtime/tokenizer/tokenizer.h"

namespace llmq::runtime {
namespace {

using formats::bad_input;
using formats::Json;
using std::filesystem::exists;
using std::filesystem::path;

constexpr size_t kMaxTiktokenBytes = size_t{1} << 26;  // Qwen's own has 2.5 MB

std::optional<int32_t> find_token(const TokenizerSpec& spec, const std::string& content) {
  for (const AddedToken& token : spec.added_tokens) {
    if (token.content == content) return token.id;
  }
  for (const auto& [token, id] : spec.bpe.vocabulary) {
    if (token == content) return id;
  }
  return std::nullopt;
}

void add_once(std::vector<int32_t>& ids, int32_t id) {
  if (std::find(ids.begin(), ids.end(), id) == ids.end()) ids.push_back(id);
}

std::string read_model_type(const path& folder) {
  if (!exists(folder / "config.json")) return "";
  const Json config = formats::read_json_file(folder / "config.json");
  return optional_string(config, "model_type", "config.json").value_or("");
}

TokenizerSpec read_spec(const path& folder, const TokenizerConfig& config) {
  if (exists(folder / "tokenizer.json")) {
    return spec_from_tokenizer_json(formats::read_json_file(folder / "tokenizer.json"), config);
  }
  if (!exists(folder / "vocab.json")) {
    if (exists(folder / "qwen.tiktoken")) {
      return spec_from_tiktoken(
          formats::read_text_file(folder / "qwen.tiktoken", kMaxTiktokenBytes), config);
    }
    if (exists(folder / "tokenizer.model")) {
      throw bad_input(
          "only tokenizer.model is there, which is not supported; add the model's tokenizer.json");
    }
    throw bad_input(
        "no tokenizer: neither tokenizer.json nor vocab.json with merges.txt nor qwen.tiktoken");
  }
  if (!exists(folder / "merges.txt")) {
    throw bad_input("vocab.json is there, but merges.txt is missing; copy it from the model");
  }
  Json added;
  if (exists(folder / "added_tokens.json")) {
    added = formats::read_json_file(folder / "added_tokens.json");
  }
  return spec_from_vocab_and_merges(formats::read_json_file(folder / "vocab.json"),
                                    formats::read_text_file(folder / "merges.txt", size_t{1} << 28),
                                    added, config, read_model_type(folder));
}

}  // namespace

void apply_config(const TokenizerConfig& config, TokenizerSpec& spec) {
  if (config.bos_token) spec.bos_id = find_token(spec, *config.bos_token);
  if (!spec.bos_id && !spec.prefix_ids.empty()) spec.bos_id = spec.prefix_ids.front();
  if (spec.prefix_ids.empty() && spec.bos_id) spec.prefix_ids = {*spec.bos_id};
  if (config.add_bos_token) spec.adds_bos = *config.add_bos_token && !spec.prefix_ids.empty();
  if (config.eos_token) {
    if (const auto id = find_token(spec, *config.eos_token)) {
      spec.eos_ids = {*id};
      if (spec.suffix_ids.empty()) spec.suffix_ids = {*id};
    }
  }
  if (config.add_eos_token) spec.adds_eos = *config.add_eos_token && !spec.suffix_ids.empty();
}

Tokenizer Tokenizer::load(const path& model_folder) {
  try {
    const TokenizerConfig config = TokenizerConfig::load(model_folder);
    TokenizerSpec spec = read_spec(model_folder, config);
    if (const auto file = model_folder / "generation_config.json"; exists(file)) {
      for (const int32_t id : parse_eos_ids(formats::read_json_file(file))) {
        add_once(spec.eos_ids, id);
      }
    }
    return Tokenizer(std::make_shared<TokenizerModel>(std::move(spec)));
  } catch (const formats::Error& error) {
    throw error.with_context("tokenizer in " + model_folder.string());
  }
}

Tokenizer Tokenizer::from_json(std::string_view tokenizer_json, std::string_view tokenizer_config) {
  TokenizerConfig config;
  if (!tokenizer_config.empty()) {
    config = TokenizerConfig::parse(formats::parse_json(tokenizer_config, "tokenizer_config.json"));
  }
  return Tokenizer(std::make_shared<TokenizerModel>(
      spec_from_tokenizer_json(formats::parse_json(tokenizer_json, "tokenizer.json"), config)));
}

}  // namespace llmq::runtime
