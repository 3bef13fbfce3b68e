#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "formats/json.h"

namespace llmq::runtime {

/// The member `key` of an object, or null where it is absent. Linear in the number of members.
const formats::Json* find_field(const formats::Json& object, std::string_view key);

/// String member; nothing when it is absent or null. Throws Error{kBadInput} naming the key when it
/// is something else. `where` names the object in the sentence.
std::optional<std::string> optional_string(const formats::Json& object, std::string_view key,
                                           std::string_view where);

/// As optional_string, but absent is an error too.
std::string required_string(const formats::Json& object, std::string_view key,
                            std::string_view where);

/// Boolean member, or `fallback` when it is absent or null. Throws Error{kBadInput} otherwise.
bool bool_or(const formats::Json& object, std::string_view key, bool fallback,
             std::string_view where);

/// The largest token id that is accepted: far above every vocabulary, low enough for tables by id.
inline constexpr int32_t kMaxTokenId = (1 << 24) - 1;

/// A token id in 0..kMaxTokenId. Throws Error{kBadInput} otherwise; `where` says whose id it is.
int32_t parse_token_id(const formats::Json& value, std::string_view where);

/// A text from a file shortened and quoted for a message: at most 60 bytes, cut between characters.
std::string in_quotes(std::string_view text);

}  // namespace llmq::runtime
