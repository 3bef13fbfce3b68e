#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "formats/error.h"
#include "formats/json.h"
#include "runtime/tokenizer/encoder_stages.h"
#include "runtime/tokenizer/tokenizer.h"
#include "runtime/tokenizer/unicode.h"

namespace llmq::runtime {

inline std::filesystem::path golden_folder() {
  return std::filesystem::path(LLMQ_TEST_SOURCE_DIR) / "runtime" / "tokenizer" / "goldens";
}

inline formats::Json read_golden(const std::string& name) {
  return formats::read_json_file(golden_folder() / name);
}

/// The folder of outside data; it may be absent.
inline std::filesystem::path data_folder() {
  if (const char* folder = std::getenv("LLMQ_TEST_DATA")) return folder;
  return std::filesystem::path(LLMQ_TEST_SOURCE_DIR) / ".." / ".." / "shared" / "data";
}

/// A small byte-level tokenizer with a JSON merge patch applied.
inline Tokenizer small_tokenizer(const formats::Json& patch = formats::Json::object(),
                                 const std::string& base = "small_byte_level.json") {
  formats::Json file = read_golden(base);
  file.merge_patch(patch);
  return Tokenizer::from_json(file.dump());
}

/// Ids through a StreamEncoder that gets the text in pieces of the sizes that `next_size` gives.
inline std::vector<int32_t> stream_ids(const Tokenizer& tokenizer, std::string_view text,
                                       const EncodeOptions& options,
                                       const std::function<size_t()>& next_size) {
  std::vector<int32_t> ids;
  StreamEncoder encoder(tokenizer, options, [&](std::span<const int32_t> batch) {
    ids.insert(ids.end(), batch.begin(), batch.end());
  });
  while (!text.empty()) {
    const size_t n = std::min(text.size(), next_size());
    encoder.feed(text.substr(0, n));
    text.remove_prefix(n);
  }
  encoder.finish();
  return ids;
}

/// Ids when so few bytes at a time pass the encoder's stages that every text is cut often.
inline std::vector<int32_t> chunked_ids(const Tokenizer& tokenizer, std::string_view text,
                                        const EncodeOptions& options, size_t chunk_bytes) {
  std::vector<int32_t> ids;
  const std::shared_ptr<const TokenizerModel> model(&tokenizer.model(), [](const auto*) {});
  EncoderStages stages(
      model, options, 64,
      [&](std::span<const int32_t> batch) { ids.insert(ids.end(), batch.begin(), batch.end()); },
      chunk_bytes);
  stages.feed(text);
  stages.finish();
  return ids;
}

/// What an action throws, with its code checked; "no error" where it throws nothing.
inline std::string error_or_none(const std::function<void()>& action,
                                 formats::ErrorCode code = formats::ErrorCode::kBadInput) {
  try {
    action();
  } catch (const formats::Error& error) {
    EXPECT_EQ(error.code(), code) << error.what();
    return error.what();
  }
  return "no error";
}

/// Texts of mixed scripts, white space, digits, contractions, marks and control tokens.
class TextMaker {
 public:
  explicit TextMaker(unsigned seed) : random_(seed) {}

  std::string text(int n_parts) {
    static const std::vector<std::string> parts = {"the",
                                                   " model",
                                                   "Don't",
                                                   "'s",
                                                   "'LL",
                                                   "'\xC5\xBF",
                                                   "don",
                                                   " ",
                                                   "  ",
                                                   "\n",
                                                   "\r\n",
                                                   "\t",
                                                   "\xC2\xA0",
                                                   "\xE3\x80\x80",
                                                   "12345",
                                                   " 7",
                                                   "\xC2\xBD",
                                                   "...",
                                                   " ?!",
                                                   "\n\n",
                                                   " \n",
                                                   "e\xCC\x81",
                                                   "\xC3\xA9",
                                                   "\xE4\xB8\xAD\xE6\x96\x87",
                                                   "\xF0\x9F\x9A\x80",
                                                   "\xE2\x80\x99",
                                                   "\xE2\x96\x81",
                                                   "<|im_start|>",
                                                   "<|im_end|>",
                                                   "<|im_",
                                                   "_x",
                                                   "\xE0\xB8\x81\xE0\xB8\xB3",
                                                   "\xD0\xBF\xD1\x80"};
    std::string result;
    for (int i = 0; i < n_parts; ++i) {
      if (below(4) == 0) {
        append_utf8(code_point(), result);
      } else {
        result += parts[below(parts.size())];
      }
    }
    return result;
  }

  std::string bytes(size_t n) {
    std::string result;
    for (size_t i = 0; i < n; ++i) result.push_back(static_cast<char>(below(256)));
    return result;
  }

  size_t below(size_t n) { return random_() % n; }

 private:
  /// From blocks that have been stable for many versions of Unicode.
  char32_t code_point() {
    static constexpr std::array<std::pair<char32_t, char32_t>, 9> kBlocks = {{{0x20, 0x7E},
                                                                              {0xA0, 0x17F},
                                                                              {0x300, 0x33F},
                                                                              {0x391, 0x3A1},
                                                                              {0x410, 0x44F},
                                                                              {0x2010, 0x2027},
                                                                              {0x3041, 0x3096},
                                                                              {0x4E00, 0x9FA5},
                                                                              {0xAC00, 0xD7A3}}};
    const auto [first, last] = kBlocks[below(kBlocks.size())];
    return first + static_cast<char32_t>(below(last - first + 1));
  }

  std::mt19937 random_;
};

}  // namespace llmq::runtime
