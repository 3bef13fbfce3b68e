#include "runtime/tokenizer/decoder.h"

#include <fmt/format.h>

#include "formats/error.h"
#include "runtime/tokenizer/json_fields.h"
#include "runtime/tokenizer/unicode.h"

namespace llmq::runtime {
namespace {

using formats::bad_input;
using formats::Json;

constexpr std::string_view kWhere = "tokenizer.json, decoder";

std::string replace_all(std::string text, std::string_view pattern, std::string_view content) {
  for (size_t pos = text.find(pattern); pos != std::string::npos;
       pos = text.find(pattern, pos + content.size())) {
    text.replace(pos, pattern.size(), content);
  }
  return text;
}

/// The value of a token like <0x0A>, in either case of the digits.
std::optional<char> fallback_byte(std::string_view token) {
  if (token.size() != 6 || !token.starts_with("<0x") || token[5] != '>') return std::nullopt;
  unsigned value = 0;
  for (const char c : token.substr(3, 2)) {
    const auto digit =
        static_cast<unsigned>(std::string_view("0123456789ABCDEF0123456789abcdef").find(c));
    if (digit > 31) return std::nullopt;
    value = value * 16 + (digit & 15U);
  }
  return static_cast<char>(value);
}

class Parser {
 public:
  DecoderSpec parse(const Json& node) {
    add(node, true);
    return std::move(spec_);
  }

 private:
  void add(const Json& node, bool outermost) {
    const std::string type = required_string(node, "type", kWhere);
    if (type == "Sequence" && outermost) {
      const Json* parts = find_field(node, "decoders");
      if (parts == nullptr || !parts->is_array()) {
        throw bad_input(fmt::format("{}: a Sequence needs a list \"decoders\"", kWhere));
      }
      for (const Json& part : *parts) add(part, false);
    } else if (type == "ByteLevel") {
      advance(kAlone, type);
      spec_.byte_level = true;
    } else if (type == "Metaspace") {
      advance(kAlone, type);
      spec_.metaspace = parse_metaspace(node, kWhere);
    } else if (type == "Replace") {
      advance(kReplace, type);
      add_replacement(node);
    } else if (type == "ByteFallback") {
      advance(kByteFallback, type);
      spec_.byte_fallback = true;
    } else if (type == "Fuse") {
      advance(kFuse, type);
    } else if (type == "Strip") {
      if (stage_ != kFuse) {
        throw bad_input(fmt::format("{}: Strip is supported only right after Fuse", kWhere));
      }
      advance(kStrip, type);
      add_strip(node);
    } else {
      throw bad_input(
          fmt::format("{}: the type {} is not supported; supported are ByteLevel, "
                      "Metaspace and a Sequence of Replace, ByteFallback, Fuse, Strip",
                      kWhere, in_quotes(type)));
    }
  }

  // The order in which the steps may stand; only Replace may be repeated.
  enum Stage { kStart, kReplace, kByteFallback, kFuse, kStrip, kAlone };

  void advance(Stage stage, const std::string& type) {
    const bool repeated = stage == stage_ && stage != kReplace;
    if (stage < stage_ || repeated || (stage == kAlone && stage_ != kStart)) {
      throw bad_input(fmt::format(
          "{}: {} at this place of the Sequence is not supported; the order is Replace, "
          "ByteFallback, Fuse, Strip, or ByteLevel or Metaspace alone",
          kWhere, type));
    }
    stage_ = stage;
  }

  void add_replacement(const Json& node) {
    const Json* pattern = find_field(node, "pattern");
    const auto text =
        pattern == nullptr ? std::nullopt : optional_string(*pattern, "String", kWhere);
    if (!text || text->empty()) {
      throw bad_input(fmt::format(
          "{}: Replace is supported only with a non-empty pattern {{\"String\": ...}}", kWhere));
    }
    spec_.replacements.push_back({*text, required_string(node, "content", kWhere)});
  }

  void add_strip(const Json& node) {
    const std::string content = required_string(node, "content", kWhere);
    const Json* start = find_field(node, "start");
    const Json* stop = find_field(node, "stop");
    const auto is_count = [](const Json* n) { return n != nullptr && n->is_number_unsigned(); };
    if (content.size() != 1 || !is_count(start) || !is_count(stop) || stop->get<uint64_t>() != 0) {
      throw bad_input(fmt::format(
          "{}: Strip is supported only for one ASCII character at the start (stop 0)", kWhere));
    }
    spec_.strip = content[0];
    spec_.n_strip = start->get<size_t>();
  }

  DecoderSpec spec_;
  Stage stage_ = kStart;
};

std::string text_of(const DecoderSpec& spec, std::string_view content, bool is_added) {
  if (spec.byte_level) {
    // An added token is written as it is, also where its characters happen to be in the alphabet.
    auto bytes = is_added ? std::nullopt : byte_level_to_bytes(content);
    return bytes ? *std::move(bytes) : std::string(content);
  }
  if (spec.metaspace) return replace_all(std::string(content), spec.metaspace->replacement, " ");
  std::string text(content);
  for (const auto& [pattern, replacement] : spec.replacements) {
    text = replace_all(std::move(text), pattern, replacement);
  }
  if (const auto byte = spec.byte_fallback ? fallback_byte(text) : std::nullopt) return {*byte};
  return text;
}

}  // namespace

DecoderSpec DecoderSpec::parse(const Json& node, bool byte_level_default) {
  if (!node.is_null()) return Parser().parse(node);
  DecoderSpec spec;
  spec.byte_level = byte_level_default;
  return spec;
}

Decoder::Decoder(const DecoderSpec& spec, const Vocabulary& vocabulary)
    : n_strip_(spec.n_strip), strip_(spec.strip) {
  const bool drops_in_first =
      spec.metaspace && spec.metaspace->prepend != Metaspace::Prepend::kNever;
  begins_.reserve(static_cast<size_t>(vocabulary.size()) + 1);
  for (int32_t id = 0; id < vocabulary.size(); ++id) {
    begins_.push_back(arena_.size());
    const auto other = spec.contents.find(id);
    const std::string_view content =
        other == spec.contents.end() ? vocabulary.content(id) : other->second;
    arena_.append(text_of(spec, content, vocabulary.is_added(id)));
    if (drops_in_first) {
      first_.push_back(replace_all(std::string(content), spec.metaspace->replacement, ""));
    }
  }
  begins_.push_back(arena_.size());
}

std::string_view Decoder::bytes_of(int32_t id, bool is_first) const {
  const auto index = static_cast<size_t>(id);
  if (is_first && !first_.empty()) return first_[index];
  return std::string_view(arena_).substr(begins_[index], begins_[index + 1] - begins_[index]);
}

}  // namespace llmq::runtime
