// The first byte chooses what the rest is: a tokenizer.json or qwen.tiktoken, a text to encode, a
// chat template, or the ids to decode. A text must come back from its ids, and streaming must not
// change them.
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

#include "formats/error.h"
#include "formats/json.h"
#include "runtime/tokenizer/chat.h"
#include "runtime/tokenizer/encoder_stages.h"
#include "runtime/tokenizer/loaders.h"
#include "runtime/tokenizer/splitter.h"
#include "runtime/tokenizer/tokenizer.h"
#include "runtime/tokenizer/unicode.h"

namespace {

using llmq::formats::Error;
using llmq::formats::Json;
using llmq::runtime::Tokenizer;

/// All bytes, a few merges and two special tokens.
Json small_file(std::string_view pattern) {
  Json vocabulary = Json::object();
  for (size_t byte = 0; byte < 256; ++byte) {
    vocabulary[llmq::runtime::byte_level_alphabet()[byte]] = byte;
  }
  Json merges = Json::array();
  for (const auto& [left, right] :
       std::initializer_list<std::pair<const char*, const char*>>{{"a", "a"},
                                                                  {"aa", "aa"},
                                                                  {"t", "h"},
                                                                  {"th", "e"},
                                                                  {"\xC4\xA0", "the"},
                                                                  {"\xC4\xA0", "\xC4\xA0"}}) {
    merges.push_back(Json::array({left, right}));
    vocabulary[std::string(left) + right] = vocabulary.size();
  }
  const Json byte_level = {
      {"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", false}};
  const Json split = {
      {"type", "Split"}, {"pattern", {{"Regex", std::string(pattern)}}}, {"behavior", "Isolated"}};
  const Json special = {{"id", 300}, {"content", "<|x|>"}, {"special", true}};
  const Json added = {{"id", 301}, {"content", "<|xy|>"}, {"normalized", false}};
  Json file = Json::object();
  file["added_tokens"] = Json::array({special, added});
  file["pre_tokenizer"]["type"] = "Sequence";
  file["pre_tokenizer"]["pretokenizers"] = Json::array({split, byte_level});
  file["decoder"] = byte_level;
  file["model"]["type"] = "BPE";
  file["model"]["vocab"] = vocabulary;
  file["model"]["merges"] = merges;
  return file;
}

const std::vector<Tokenizer>& tokenizers() {
  static const auto tokenizer_list = [] {
    std::vector<Tokenizer> result;
    for (const auto pattern : {llmq::runtime::kGpt2Pattern, llmq::runtime::kQwen2Pattern,
                               llmq::runtime::kGpt4Pattern, std::string_view("\\p{L}+|\\s")}) {
      result.push_back(Tokenizer::from_json(small_file(pattern).dump()));
    }
    return result;
  }();
  return tokenizer_list;
}

void check(bool condition) {
  if (!condition) std::abort();
}

void check_text(const Tokenizer& tokenizer, std::string_view text) {
  const auto ids = tokenizer.encode(text, {});
  check(tokenizer.decode(ids, false) == llmq::runtime::repair_utf8(text));
  // So few bytes at a time that the text is cut wherever it may be.
  std::vector<int32_t> streamed;
  const std::shared_ptr<const llmq::runtime::TokenizerModel> model(&tokenizer.model(),
                                                                   [](const auto*) {});
  llmq::runtime::EncoderStages stages(
      model, {}, 16,
      [&](std::span<const int32_t> batch) {
        streamed.insert(streamed.end(), batch.begin(), batch.end());
      },
      1 + text.size() % 7);
  stages.feed(text);
  stages.finish();
  check(streamed == ids);
}

void check_file(std::string_view file) {
  const Tokenizer tokenizer = file.starts_with('{')
                                  ? Tokenizer::from_json(file)
                                  : Tokenizer(std::make_shared<llmq::runtime::TokenizerModel>(
                                        llmq::runtime::spec_from_tiktoken(file, {})));
  const auto ids = tokenizer.encode("The 12 cats' \xE4\xB8\xAD\n <|x|> don't  e\xCC\x81!", {});
  const std::string text = tokenizer.decode(ids, false);
  check(llmq::runtime::repair_utf8(text) == text);
}

void check_ids(const Tokenizer& tokenizer, std::string_view bytes) {
  llmq::runtime::StreamDecoder decoder(tokenizer, false);
  std::vector<int32_t> ids;
  std::string text;
  for (size_t i = 0; i + 1 < bytes.size(); i += 2) {
    const auto id =
        static_cast<unsigned char>(bytes[i]) * 256 + static_cast<unsigned char>(bytes[i + 1]);
    ids.push_back(id % tokenizer.vocab_size());
    const std::string piece = decoder.feed(ids.back());
    check(llmq::runtime::repair_utf8(piece) == piece);
    text += piece;
  }
  text += decoder.finish();
  check(text == tokenizer.decode(ids, false));
}

}  // namespace

// NOLINTNEXTLINE(readability-identifier-naming): the name is libFuzzer's.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const std::string_view rest(reinterpret_cast<const char*>(data) + 1, size - 1);
  const Tokenizer& tokenizer = tokenizers()[(data[0] >> 2) % tokenizers().size()];
  try {
    switch (data[0] % 4) {
      case 0:
        check_file(rest);
        break;
      case 1:
        check_text(tokenizer, rest);
        break;
      case 2:
        llmq::runtime::ChatTemplate::recognize(rest);
        break;
      default:
        check_ids(tokenizer, rest);
    }
  } catch (const Error&) {  // a refusal with a sentence is what a damaged file should get
  }
  return 0;
}
