#include "runtime/tokenizer/json_fields.h"

#include <fmt/format.h>

#include "formats/error.h"
#include "runtime/tokenizer/unicode.h"

namespace llmq::runtime {

using formats::bad_input;
using formats::Json;

const Json* find_field(const Json& object, std::string_view key) {
  if (!object.is_object()) return nullptr;
  const auto found = object.find(std::string(key));
  return found == object.end() ? nullptr : &*found;
}

std::optional<std::string> optional_string(const Json& object, std::string_view key,
                                           std::string_view where) {
  const Json* value = find_field(object, key);
  if (value == nullptr || value->is_null()) return std::nullopt;
  if (!value->is_string()) throw bad_input(fmt::format("{}: \"{}\" must be a string", where, key));
  return value->get<std::string>();
}

std::string required_string(const Json& object, std::string_view key, std::string_view where) {
  auto value = optional_string(object, key, where);
  if (!value) throw bad_input(fmt::format("{}: the string \"{}\" is missing", where, key));
  return *std::move(value);
}

bool bool_or(const Json& object, std::string_view key, bool fallback, std::string_view where) {
  const Json* value = find_field(object, key);
  if (value == nullptr || value->is_null()) return fallback;
  if (!value->is_boolean()) {
    throw bad_input(fmt::format("{}: \"{}\" must be true or false", where, key));
  }
  return value->get<bool>();
}

int32_t parse_token_id(const Json& value, std::string_view where) {
  if (value.is_number_unsigned() || value.is_number_integer()) {
    const auto id = value.is_number_unsigned() && value.get<uint64_t>() > uint64_t{kMaxTokenId}
                        ? int64_t{-1}
                        : value.get<int64_t>();
    if (id >= 0 && id <= kMaxTokenId) return static_cast<int32_t>(id);
  }
  throw bad_input(fmt::format("{}: the token id {} is not an integer from 0 to {}", where,
                              in_quotes(value.dump(-1, ' ', true)), kMaxTokenId));
}

std::string in_quotes(std::string_view text) {
  constexpr size_t kLongest = 60;
  if (text.size() <= kLongest) return fmt::format("\"{}\"", text);
  size_t end = kLongest;
  while (end > 0 && !is_char_boundary(text, end)) --end;
  return fmt::format("\"{}…\"", text.substr(0, end));
}

}  // namespace llmq::runtime
