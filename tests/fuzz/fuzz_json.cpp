// parse_json on arbitrary bytes: it returns a document or throws Error{kBadInput}, and what it
// accepted survives being written and read again.

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "formats/error.h"
#include "formats/json.h"

// NOLINTNEXTLINE(readability-identifier-naming): the name is libFuzzer's.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using llmq::formats::parse_json;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const llmq::formats::JsonLimits limits{.max_bytes = size_t{1} << 20, .max_depth = 32};
  llmq::formats::Json document;
  try {
    document = parse_json(text, "fuzz input", limits);
  } catch (const llmq::formats::Error& error) {
    if (error.code() != llmq::formats::ErrorCode::kBadInput) {
      std::abort();
    }
    return 0;
  }
  if (parse_json(document.dump(), "fuzz output", limits) != document) {
    std::abort();
  }
  return 0;
}
