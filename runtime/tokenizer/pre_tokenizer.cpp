#include "runtime/tokenizer/pre_tokenizer.h"

#include <fmt/format.h>

#include "formats/error.h"
#include "runtime/tokenizer/json_fields.h"
#include "runtime/tokenizer/unicode.h"

namespace llmq::runtime {
namespace {

using formats::bad_input;
using formats::Json;

constexpr std::string_view kWhere = "tokenizer.json, pre_tokenizer";
constexpr int kMaxDepth = 8;
constexpr size_t kMaxSplitters = 32;

class Parser {
 public:
  PreTokenizer parse(const Json& node) {
    add(node, 0);
    return std::move(result_);
  }

 private:
  void add(const Json& node, int depth) {
    if (node.is_null()) return;
    const std::string type = required_string(node, "type", kWhere);
    if (result_.byte_level || result_.metaspace || result_.splitters.size() > kMaxSplitters) {
      throw bad_input(
          fmt::format("{}: {} follows a step that must be the last one", kWhere, in_quotes(type)));
    }
    if (type == "Sequence") {
      add_sequence(node, depth);
    } else if (type == "Split") {
      add_split(node);
    } else if (type == "Digits") {
      const bool individual = bool_or(node, "individual_digits", false, kWhere);
      add_splitter(
          new_regex_splitter(individual ? R"(\p{N})" : R"(\p{N}+)", GapRule::kKeep, false));
    } else if (type == "ByteLevel") {
      add_byte_level(node);
    } else if (type == "Metaspace") {
      add_metaspace(node);
    } else {
      throw bad_input(
          fmt::format("{}: the type {} is not supported; supported are Split, Digits, "
                      "ByteLevel, Metaspace and Sequence",
                      kWhere, in_quotes(type)));
    }
  }

  void add_splitter(std::unique_ptr<Splitter> splitter) {
    result_.splitters.push_back(std::move(splitter));
  }

  void add_sequence(const Json& node, int depth) {
    const Json* parts = find_field(node, "pretokenizers");
    if (parts == nullptr || !parts->is_array() || depth == kMaxDepth) {
      throw bad_input(
          fmt::format("{}: a Sequence needs a list \"pretokenizers\", nested at most {} "
                      "times",
                      kWhere, kMaxDepth));
    }
    for (const Json& part : *parts) add(part, depth + 1);
  }

  void add_split(const Json& node) {
    const Json* pattern = find_field(node, "pattern");
    const auto regex =
        pattern == nullptr ? std::nullopt : optional_string(*pattern, "Regex", kWhere);
    const auto text =
        pattern == nullptr ? std::nullopt : optional_string(*pattern, "String", kWhere);
    if (regex.has_value() == text.has_value() || (text && text->empty())) {
      throw bad_input(fmt::format(
          "{}: a Split needs a pattern, either {{\"Regex\": ...}} or {{\"String\": ...}}", kWhere));
    }
    const GapRule rule = parse_rule(node);
    if (regex && rule != GapRule::kDropMatches) {
      if (auto known = new_known_splitter(*regex)) return add_splitter(std::move(known));
    }
    add_splitter(new_regex_splitter(regex ? *regex : *text, rule, text.has_value()));
  }

  static GapRule parse_rule(const Json& node) {
    const std::string behavior = required_string(node, "behavior", kWhere);
    const bool invert = bool_or(node, "invert", false, kWhere);
    if (behavior == "Isolated") return GapRule::kKeep;
    if (behavior == "Removed") return invert ? GapRule::kDrop : GapRule::kDropMatches;
    throw bad_input(fmt::format(
        "{}: the Split behavior {} is not supported; supported are Isolated and Removed", kWhere,
        in_quotes(behavior)));
  }

  void add_byte_level(const Json& node) {
    // The Hugging Face library takes all three keys as true by default.
    result_.add_prefix_space = bool_or(node, "add_prefix_space", true, kWhere);
    if (result_.add_prefix_space && !result_.splitters.empty()) {
      throw bad_input(fmt::format(
          "{}: ByteLevel with add_prefix_space after another step is not supported", kWhere));
    }
    if (bool_or(node, "use_regex", true, kWhere)) add_splitter(new_known_splitter(kGpt2Pattern));
    result_.byte_level = true;
  }

  void add_metaspace(const Json& node) {
    if (!result_.splitters.empty()) {
      throw bad_input(fmt::format("{}: Metaspace after another step is not supported", kWhere));
    }
    result_.metaspace = parse_metaspace(node, kWhere);
    if (bool_or(node, "split", true, kWhere)) {
      add_splitter(
          new_prefix_char_splitter(decode_char(result_.metaspace->replacement, 0).code_point));
    }
  }

  PreTokenizer result_;
};

}  // namespace

PreTokenizer PreTokenizer::parse(const Json& node) {
  return Parser().parse(node);
}

Metaspace parse_metaspace(const Json& node, std::string_view where) {
  Metaspace metaspace;
  metaspace.replacement =
      optional_string(node, "replacement", where).value_or(metaspace.replacement);
  if (metaspace.replacement.empty() ||
      decode_char(metaspace.replacement, 0).n_bytes != metaspace.replacement.size()) {
    throw bad_input(fmt::format("{}: the replacement of Metaspace must be one character", where));
  }
  if (const auto scheme = optional_string(node, "prepend_scheme", where)) {
    if (*scheme == "always") {
      metaspace.prepend = Metaspace::Prepend::kAlways;
    } else if (*scheme == "first") {
      metaspace.prepend = Metaspace::Prepend::kFirst;
    } else if (*scheme == "never") {
      metaspace.prepend = Metaspace::Prepend::kNever;
    } else {
      throw bad_input(fmt::format("{}: the prepend_scheme {} is none of always, first, never",
                                  where, in_quotes(*scheme)));
    }
  } else if (!bool_or(node, "add_prefix_space", true, where)) {
    metaspace.prepend = Metaspace::Prepend::kNever;
  }
  return metaspace;
}

}  // namespace llmq::runtime
