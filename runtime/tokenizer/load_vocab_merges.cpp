#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <set>

#include "formats/error.h"
#include "runtime/tokenizer/json_fields.h"
#include "runtime/tokenizer/loaders.h"

namespace llmq::runtime {
namespace {

using formats::bad_input;
using formats::Json;

/// What the classes of the transformers library do with vocab.json and merges.txt.
struct ClassicFamily {
  std::string_view tokenizer_class;
  std::string_view model_type;  // of config.json; "" for other spellings of the class
  std::string_view pattern;
  bool nfc;
};
constexpr std::array kFamilies = {
    ClassicFamily{"Qwen2Tokenizer", "qwen2", kQwen2Pattern, true},
    ClassicFamily{"Qwen2TokenizerFast", "qwen2_moe", kQwen2Pattern, true},
    ClassicFamily{"Qwen2Tokenizer", "qwen3", kQwen2Pattern, true},
    ClassicFamily{"Qwen2Tokenizer", "qwen3_moe", kQwen2Pattern, true},
    ClassicFamily{"GPT2Tokenizer", "gpt2", kGpt2Pattern, false},
    ClassicFamily{"GPT2TokenizerFast", "", kGpt2Pattern, false},
};

const ClassicFamily& find_family(const TokenizerConfig& config, std::string_view model_type) {
  for (const ClassicFamily& family : kFamilies) {
    const bool by_class = config.tokenizer_class == family.tokenizer_class;
    const bool by_type =
        config.tokenizer_class.empty() && !model_type.empty() && model_type == family.model_type;
    if (by_class || by_type) return family;
  }
  throw bad_input(fmt::format(
      "vocab.json and merges.txt do not say how texts are cut into words, and the tokenizer class "
      "{} "
      "is not known (Qwen2Tokenizer and GPT2Tokenizer are); add the model's tokenizer.json",
      in_quotes(config.tokenizer_class)));
}

void parse_merges(std::string_view text, BpeSpec& bpe) {
  size_t n_line = 0;
  while (!text.empty()) {
    const size_t end = std::min(text.find('\n'), text.size());
    std::string_view line = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    ++n_line;
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (line.empty() || line.starts_with("#version")) continue;
    const size_t space = line.find(' ');
    if (space == line.npos || space == 0 || space + 1 >= line.size() ||
        line.find(' ', space + 1) != line.npos) {
      throw bad_input(fmt::format("merges.txt, line {}: {} is not two tokens with a space between",
                                  n_line, in_quotes(line)));
    }
    bpe.merges.emplace_back(line.substr(0, space), line.substr(space + 1));
  }
}

class AddedTokens {
 public:
  AddedTokens(const TokenizerConfig& config, TokenizerSpec& spec) : config_(config), spec_(spec) {
    for (const AddedToken& token : config.added_tokens) add(token);
  }

  /// added_tokens.json: an object of contents and ids.
  void add_file(const Json& file) {
    if (file.is_null()) return;
    if (!file.is_object())
      throw bad_input("added_tokens.json: must be an object of tokens and ids");
    for (const auto& [content, id] : file.items()) {
      if (!contents_.contains(content)) {
        add(plain_token(content, parse_token_id(id, "added_tokens.json")));
      }
    }
  }

  /// Tokens named for a special purpose that are in the vocabulary only.
  void add_named_ones() {
    for (const auto& [token, id] : spec_.bpe.vocabulary) {
      const auto& names = config_.special_tokens;
      if (contents_.contains(token) ||
          std::find(names.begin(), names.end(), token) == names.end()) {
        continue;
      }
      add(plain_token(token, id));
    }
  }

 private:
  void add(const AddedToken& token) {
    contents_.insert(token.content);
    spec_.added_tokens.push_back(token);
  }

  [[nodiscard]] AddedToken plain_token(const std::string& content, int32_t id) const {
    AddedToken token;
    token.id = id;
    token.content = content;
    const auto& names = config_.special_tokens;
    token.special = std::find(names.begin(), names.end(), content) != names.end();
    token.normalized = !token.special;
    return token;
  }

  const TokenizerConfig& config_;
  TokenizerSpec& spec_;
  std::set<std::string> contents_;
};

}  // namespace

TokenizerSpec spec_from_vocab_and_merges(const Json& vocab, std::string_view merges,
                                         const Json& added_tokens, const TokenizerConfig& config,
                                         std::string_view model_type) {
  const ClassicFamily& family = find_family(config, model_type);
  TokenizerSpec spec;
  if (!vocab.is_object() || vocab.empty()) {
    throw bad_input("vocab.json: must be an object of tokens and ids");
  }
  for (const auto& [token, id] : vocab.items()) {
    spec.bpe.vocabulary.emplace_back(token, parse_token_id(id, "vocab.json"));
  }
  spec.bpe.byte_level = true;
  parse_merges(merges, spec.bpe);
  AddedTokens added(config, spec);
  added.add_file(added_tokens);
  added.add_named_ones();
  spec.needs_all_merges = true;
  if (family.nfc) spec.normalizer = Normalizer::nfc();
  spec.pre_tokenizer.splitters.push_back(new_known_splitter(family.pattern));
  spec.pre_tokenizer.byte_level = true;
  spec.pre_tokenizer.add_prefix_space = config.add_prefix_space;
  spec.decoder.byte_level = true;
  apply_config(config, spec);
  return spec;
}

}  // namespace llmq::runtime
