#include <fmt/format.h>

#include "formats/error.h"
#include "runtime/tokenizer/json_fields.h"
#include "runtime/tokenizer/loaders.h"

namespace llmq::runtime {
namespace {

using formats::bad_input;
using formats::Json;

constexpr std::string_view kModel = "tokenizer.json, model";
constexpr std::string_view kPost = "tokenizer.json, post_processor";
const Json kNull;

const Json& field_or_null(const Json& object, std::string_view key) {
  const Json* value = find_field(object, key);
  return value == nullptr ? kNull : *value;
}

void parse_vocabulary(const Json& model, BpeSpec& bpe) {
  const Json& vocabulary = field_or_null(model, "vocab");
  if (!vocabulary.is_object() || vocabulary.empty()) {
    throw bad_input(fmt::format("{}: \"vocab\" must be an object of tokens and ids", kModel));
  }
  bpe.vocabulary.reserve(vocabulary.size());
  for (const auto& [token, id] : vocabulary.items()) {
    bpe.vocabulary.emplace_back(token, parse_token_id(id, kModel));
  }
}

/// A merge is "left right" or ["left", "right"].
std::pair<std::string, std::string> parse_merge(const Json& merge, size_t rank) {
  if (merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string()) {
    return {merge[0].get<std::string>(), merge[1].get<std::string>()};
  }
  if (merge.is_string()) {
    const auto& text = merge.get_ref<const std::string&>();
    const size_t space = text.find(' ');
    if (space != std::string::npos && text.find(' ', space + 1) == std::string::npos) {
      return {text.substr(0, space), text.substr(space + 1)};
    }
  }
  throw bad_input(fmt::format("{}: merge {} is neither \"left right\" nor [\"left\", \"right\"]",
                              kModel, rank + 1));
}

void parse_merges(const Json& model, BpeSpec& bpe) {
  const Json& merges = field_or_null(model, "merges");
  if (!merges.is_array()) {
    throw bad_input(fmt::format(
        "{}: the list \"merges\" is missing; without it texts cannot be encoded", kModel));
  }
  bpe.merges.reserve(merges.size());
  for (const Json& merge : merges) bpe.merges.push_back(parse_merge(merge, bpe.merges.size()));
}

void refuse_unsupported(const Json& model) {
  if (const auto type = optional_string(model, "type", kModel); type.value_or("BPE") != "BPE") {
    throw bad_input(
        fmt::format("{}: the type {} is not supported, only BPE", kModel, in_quotes(*type)));
  }
  for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    if (optional_string(model, key, kModel).value_or("").empty()) continue;
    throw bad_input(fmt::format("{}: \"{}\" is not supported", kModel, key));
  }
  const Json& dropout = field_or_null(model, "dropout");
  if (!dropout.is_null() && !(dropout.is_number() && dropout.get<double>() == 0.0)) {
    throw bad_input(fmt::format("{}: \"dropout\" is not supported; set it to null", kModel));
  }
}

BpeSpec parse_model(const Json& model) {
  if (!model.is_object()) throw bad_input("tokenizer.json: the object \"model\" is missing");
  refuse_unsupported(model);
  BpeSpec bpe;
  parse_vocabulary(model, bpe);
  parse_merges(model, bpe);
  bpe.unk_token = optional_string(model, "unk_token", kModel);
  bpe.fuse_unk = bool_or(model, "fuse_unk", false, kModel);
  bpe.byte_fallback = bool_or(model, "byte_fallback", false, kModel);
  bpe.ignore_merges = bool_or(model, "ignore_merges", false, kModel);
  return bpe;
}

void parse_added_tokens(const Json& list, TokenizerSpec& spec) {
  if (list.is_null()) return;
  if (!list.is_array()) throw bad_input("tokenizer.json: \"added_tokens\" must be a list");
  for (const Json& node : list) {
    const int32_t id = parse_token_id(field_or_null(node, "id"), "tokenizer.json, added_tokens");
    spec.added_tokens.push_back(parse_added_token(node, id, "tokenizer.json, added_tokens"));
  }
}

/// Reads which special tokens a template puts before and after the text.
class TemplateParser {
 public:
  explicit TemplateParser(TokenizerSpec& spec) : spec_(spec) {}

  void parse(const Json& node, bool in_sequence) {
    if (node.is_null()) return;
    const std::string type = required_string(node, "type", kPost);
    if (type == "ByteLevel") return;  // moves offsets, never ids
    if (type == "Sequence" && !in_sequence) {
      for (const Json& part : field_or_null(node, "processors")) parse(part, true);
    } else if (type == "TemplateProcessing") {
      parse_template(node);
    } else {
      throw bad_input(
          fmt::format("{}: the type {} is not supported; supported are ByteLevel, "
                      "TemplateProcessing and a Sequence of them",
                      kPost, in_quotes(type)));
    }
  }

 private:
  void parse_template(const Json& node) {
    bool after_text = false;
    for (const Json& part : field_or_null(node, "single")) {
      if (find_field(part, "Sequence") != nullptr) {
        if (after_text) throw bad_input(fmt::format("{}: the text stands twice in it", kPost));
        after_text = true;
        continue;
      }
      const std::string name = required_string(field_or_null(part, "SpecialToken"), "id", kPost);
      auto& ids = after_text ? spec_.suffix_ids : spec_.prefix_ids;
      for (const Json& id : ids_of(node, name)) ids.push_back(parse_token_id(id, kPost));
    }
    if (!after_text) throw bad_input(fmt::format("{}: the template lacks the text", kPost));
    spec_.adds_bos = !spec_.prefix_ids.empty();
    spec_.adds_eos = !spec_.suffix_ids.empty();
  }

  static const Json& ids_of(const Json& node, const std::string& name) {
    const Json& token = field_or_null(field_or_null(node, "special_tokens"), name);
    const Json& ids = field_or_null(token, "ids");
    if (ids.is_array() && !ids.empty()) return ids;
    throw bad_input(fmt::format("{}: the template's token {} has no ids", kPost, in_quotes(name)));
  }

  TokenizerSpec& spec_;
};

}  // namespace

TokenizerSpec spec_from_tokenizer_json(const Json& file, const TokenizerConfig& config) {
  if (!file.is_object()) throw bad_input("tokenizer.json: must be a JSON object");
  TokenizerSpec spec;
  spec.bpe = parse_model(field_or_null(file, "model"));
  parse_added_tokens(field_or_null(file, "added_tokens"), spec);
  spec.normalizer = Normalizer::parse(field_or_null(file, "normalizer"));
  spec.pre_tokenizer = PreTokenizer::parse(field_or_null(file, "pre_tokenizer"));
  spec.bpe.byte_level = spec.pre_tokenizer.byte_level;
  spec.decoder = DecoderSpec::parse(field_or_null(file, "decoder"), spec.bpe.byte_level);
  // Here a token without a merge can be meant: conversions from other formats have some.
  spec.needs_all_merges = spec.bpe.merges.empty();
  TemplateParser(spec).parse(field_or_null(file, "post_processor"), false);
  apply_config(config, spec);
  return spec;
}

}  // namespace llmq::runtime
