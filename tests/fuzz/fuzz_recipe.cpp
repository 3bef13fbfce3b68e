// A recipe document and a name pattern of arbitrary bytes: a recipe that was read is written and
// read again as the same document, and patterns match as their definition says, in bounded time.

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>
#include <vector>

#include "convert/recipes/recipe.h"
#include "formats/error.h"
#include "formats/json.h"

namespace {

void require(bool condition) {
  if (!condition) {
    std::abort();
  }
}

// matches[j]: the part read so far read so far matches the first j characters of the text.
bool part_matches(std::string_view part, std::string_view text) {
  std::vector<char> matches(text.size() + 1, 0);
  matches[0] = 1;
  for (const char c : part) {
    std::vector<char> next(text.size() + 1, 0);
    for (size_t j = 0; j <= text.size(); ++j) {
      const bool extends =
          j > 0 && (c == '*' ? next[j - 1] != 0 : matches[j - 1] != 0 && c == text[j - 1]);
      next[j] = static_cast<char>(extends || (c == '*' && matches[j] != 0));
    }
    matches = next;
  }
  return matches[text.size()] != 0;
}

// `a|b` matches what either side matches; an empty side matches the empty text.
bool matches_by_definition(std::string_view pattern, std::string_view text) {
  const size_t bar = pattern.find('|');
  if (part_matches(pattern.substr(0, bar), text)) return true;
  return bar != std::string_view::npos && matches_by_definition(pattern.substr(bar + 1), text);
}

}  // namespace

// NOLINTNEXTLINE(readability-identifier-naming): the name is libFuzzer's.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const std::string_view pattern = text.substr(0, text.find('\n'));
  if (pattern.size() < text.size() && size < 1000) {
    const std::string_view name = text.substr(pattern.size() + 1);
    require(llmq::convert::matches_pattern(pattern, name) == matches_by_definition(pattern, name));
  }
  llmq::formats::Json written;
  try {
    const auto document = llmq::formats::parse_json(text, "fuzz input");
    written = llmq::convert::recipe_json(llmq::convert::parse_recipe(document, "fuzz input"));
  } catch (const llmq::formats::Error& error) {
    require(error.code() == llmq::formats::ErrorCode::kBadInput);
    return 0;
  }
  const auto again = llmq::convert::parse_recipe(written, "fuzz output");
  require(llmq::convert::recipe_json(again) == written);
  return 0;
}
