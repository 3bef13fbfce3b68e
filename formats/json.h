#pragma once

#include <cstddef>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace llmq::formats {

/// JSON whose objects keep the order of their keys, so that files can be rewritten without noise.
using Json = nlohmann::ordered_json;

/// What a JSON text from outside may be at most.
struct JsonLimits {
  size_t max_bytes = size_t{256} << 20;
  size_t max_depth = 64;
};

/// Parses strict JSON (no comments, no trailing bytes, valid UTF-8). `origin` names the text in
/// errors. Throws Error{kBadInput} with line and reason when the text is too large, nested too
/// deeply, holds the same key twice in one object, or is not JSON. Thread-safe.
Json parse_json(std::string_view text, std::string_view origin, const JsonLimits& limits = {});

/// parse_json of a file's content. Throws Error{kIo} when it cannot be read (a missing file is
/// Error{kBadInput}: the folder is not what it should be).
Json read_json_file(const std::filesystem::path& path, const JsonLimits& limits = {});

/// Whole content of a file of at most `max_bytes`. Errors as read_json_file.
std::string read_text_file(const std::filesystem::path& path, size_t max_bytes = size_t{1} << 30);

/// Appends a key to an object without looking whether it is there, so that objects with many keys
/// are built in linear time. The caller knows that the key is new.
void append_key(Json& object, std::string key, Json value);

}  // namespace llmq::formats
