// A calibration file of arbitrary bytes, read as each of its three kinds: what is accepted has
// texts without zero bytes, and reading fewer samples gives the beginning of them.

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "convert/calibration/samples.h"
#include "formats/error.h"

namespace {

void require(bool condition) {
  if (!condition) {
    std::abort();
  }
}

void read_as(const char* file, std::string_view bytes) {
  llmq::convert::CalibrationTexts all;
  try {
    all = llmq::convert::parse_calibration(bytes, file);
  } catch (const llmq::formats::Error& error) {
    require(error.code() == llmq::formats::ErrorCode::kBadInput);
    return;
  }
  require(!all.texts.empty());
  for (const std::string& text : all.texts) {
    require(!text.empty() && text.find('\0') == std::string::npos);
  }
  const auto first = llmq::convert::parse_calibration(bytes, file, 1);
  require(first.texts.size() == 1 && first.texts.front() == all.texts.front());
}

}  // namespace

// NOLINTNEXTLINE(readability-identifier-naming): the name is libFuzzer's.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  for (const char* file : {"a.jsonl", "a.json", "a.txt"}) read_as(file, bytes);
  return 0;
}
