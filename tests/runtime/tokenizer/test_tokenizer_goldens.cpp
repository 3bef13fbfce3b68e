#include <gtest/gtest.h>

#include <thread>

#include "tests/runtime/tokenizer/tokenizer_test_util.h"

namespace llmq::runtime {
namespace {

using formats::Json;

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";

/// Ids and texts of the Hugging Face library for variants of two small tokenizers.
class GoldenTokenizer : public testing::TestWithParam<size_t> {
 protected:
  GoldenTokenizer()
      : variant_(read_golden("tokenizers.json")[GetParam()]),
        tokenizer_(small_tokenizer(variant_["patch"], variant_["base"].get<std::string>())) {}

  Json variant_;
  Tokenizer tokenizer_;
};

TEST_P(GoldenTokenizer, EncodesAndDecodesAsTheHuggingFaceLibrary) {
  SCOPED_TRACE(variant_["name"].dump());
  for (const Json& golden : variant_["cases"]) {
    const auto text = golden["text"].get<std::string>();
    const auto ids = golden["ids"].get<std::vector<int32_t>>();
    EXPECT_EQ(tokenizer_.encode(text, {}), ids) << golden["text"];
    // The library takes the characters of an added token for bytes where all of them are in the
    // byte alphabet and so breaks tokens such as "d\u00e9j\u00e0"; here the text comes back.
    const auto all = golden["all"].get<std::string>();
    const bool is_broken =
        all.find(kReplacement) != std::string::npos && text.find(kReplacement) == std::string::npos;
    if (is_broken) {
      EXPECT_EQ(tokenizer_.encode(tokenizer_.decode(ids, false), {}), ids) << golden["text"];
      continue;
    }
    EXPECT_EQ(tokenizer_.decode(ids, false), all) << golden["text"];
    EXPECT_EQ(tokenizer_.decode(ids, true), golden["plain"].get<std::string>()) << golden["text"];
  }
}

TEST_P(GoldenTokenizer, CutsNoTextWhereItWouldChangeTheIds) {
  SCOPED_TRACE(variant_["name"].dump());
  TextMaker maker(36);
  for (const Json& golden : variant_["cases"]) {
    const auto text = golden["text"].get<std::string>();
    const auto ids = golden["ids"].get<std::vector<int32_t>>();
    for (const size_t n : {1U, 2U, 3U, 7U, 20U}) {
      EXPECT_EQ(chunked_ids(tokenizer_, text, {}, n), ids) << golden["text"] << " by " << n;
    }
  }
  for (int i = 0; i < 100; ++i) {
    const std::string text = maker.text(40) + maker.bytes(3) + maker.text(5);
    for (const bool parse_special : {true, false}) {
      const EncodeOptions options{.parse_special = parse_special};
      const auto ids = tokenizer_.encode(text, options);
      EXPECT_EQ(chunked_ids(tokenizer_, text, options, 1), ids) << text;
      EXPECT_EQ(chunked_ids(tokenizer_, text, options, 1 + maker.below(30)), ids) << text;
    }
  }
}

TEST_P(GoldenTokenizer, StreamsTheSameIdsWhateverThePieces) {
  SCOPED_TRACE(variant_["name"].dump());
  std::string text;
  for (const Json& golden : variant_["cases"]) text += golden["text"].get<std::string>();
  TextMaker maker(31);
  // The encoder gathers pieces up to some 100 KiB, so that the text must be longer to be cut.
  while (text.size() < 300'000) text += maker.text(50);
  const auto expected = tokenizer_.encode(text, {});
  EXPECT_EQ(stream_ids(tokenizer_, text, {}, [] { return size_t{1} << 20; }), expected);
  EXPECT_EQ(stream_ids(tokenizer_, text, {}, [&] { return 1 + maker.below(100'000); }), expected);
  EXPECT_EQ(stream_ids(tokenizer_, text, {}, [] { return size_t{1}; }), expected);
}

TEST_P(GoldenTokenizer, StreamsTheSameTextIdByIdInWholeCharacters) {
  TextMaker maker(32);
  for (int i = 0; i < 30; ++i) {
    std::vector<int32_t> ids;
    for (int n = 0; n < 40; ++n) {
      ids.push_back(
          static_cast<int32_t>(maker.below(static_cast<size_t>(tokenizer_.vocab_size()))));
    }
    StreamDecoder decoder(tokenizer_, false);
    std::string text;
    for (const int32_t id : ids) {
      const std::string piece = decoder.feed(id);
      EXPECT_EQ(repair_utf8(piece), piece) << "a partial character was given out";
      text += piece;
    }
    text += decoder.finish();
    EXPECT_EQ(text, tokenizer_.decode(ids, false));
  }
}

INSTANTIATE_TEST_SUITE_P(GoldenVariants, GoldenTokenizer,
                         testing::Range<size_t>(0, read_golden("tokenizers.json").size()));

/// A long text in one go passes the same buffers, so that the cut itself needs a check against
/// a tokenizer that never cuts: here each line alone, where the pattern cuts at the end of a line.
TEST(TokenizerStream, CutsOfLongTextsAgreeWithItsParts) {
  const Tokenizer tokenizer = small_tokenizer();
  TextMaker maker(33);
  std::vector<int32_t> expected;
  std::string text;
  while (text.size() < 300'000) {
    // Ends with a word, begins with a newline: no match of the pattern spans the two.
    const std::string line = "\nx" + maker.text(30) + "end";
    const auto ids = tokenizer.encode(line, {});
    expected.insert(expected.end(), ids.begin(), ids.end());
    text += line;
  }
  EXPECT_EQ(tokenizer.encode(text, {}), expected);
}

TEST(Tokenizer, IsSharedByThreads) {
  const Tokenizer tokenizer = small_tokenizer();
  const std::string text = TextMaker(34).text(3000);
  const auto expected = tokenizer.encode(text, {});
  std::vector<std::thread> threads;
  std::vector<std::vector<int32_t>> results(4);
  for (auto& result : results) {
    threads.emplace_back([&] { result = tokenizer.encode(text, {}); });
  }
  for (auto& thread : threads) thread.join();
  for (const auto& result : results) EXPECT_EQ(result, expected);
}

TEST(Tokenizer, GivesBackEveryValidTextAndRepairsTheRest) {
  const Tokenizer tokenizer = small_tokenizer();
  TextMaker maker(35);
  for (int i = 0; i < 300; ++i) {
    const std::string text = maker.text(30);
    EXPECT_EQ(tokenizer.decode(tokenizer.encode(text, {}), false), text);
    const std::string bytes = maker.bytes(60);
    EXPECT_EQ(tokenizer.decode(tokenizer.encode(bytes, {}), false), repair_utf8(bytes));
  }
}

TEST(Tokenizer, LeavesSpecialTokensTextWhereTheyAreNotParsed) {
  const Tokenizer tokenizer = small_tokenizer();
  const std::string text = "<|im_start|>user";
  const auto parsed = tokenizer.encode(text, {});
  const auto plain = tokenizer.encode(text, {.parse_special = false});
  EXPECT_EQ(parsed.front(), tokenizer.token_to_id("<|im_start|>"));
  EXPECT_TRUE(tokenizer.is_special(parsed.front()));
  for (const int32_t id : plain) EXPECT_FALSE(tokenizer.is_special(id));
  EXPECT_EQ(tokenizer.decode(plain), text);
  EXPECT_EQ(tokenizer.decode(parsed), "user");
}

TEST(Tokenizer, AnEmptyTextHasNoIdsButItsFrame) {
  const Tokenizer tokenizer = small_tokenizer(Json::object(), "small_metaspace.json");
  EXPECT_TRUE(tokenizer.encode("", {}).empty());
  EXPECT_EQ(tokenizer.encode("", {.add_bos = true}), std::vector<int32_t>{1});
  EXPECT_EQ(tokenizer.decode({}), "");
  EXPECT_TRUE(tokenizer.adds_bos());
  EXPECT_FALSE(tokenizer.adds_eos());
  EXPECT_EQ(tokenizer.bos_id(), 1);
}

TEST(Tokenizer, PutsTheTemplatesTokensAroundATextWhereAskedFor) {
  Json patch = Json::parse(R"({"post_processor":{"type":"Sequence","processors":[
    {"type":"ByteLevel","trim_offsets":true},
    {"type":"TemplateProcessing","single":[{"Sequence":{"id":"A","type_id":0}},
      {"SpecialToken":{"id":"E","type_id":0}}],"special_tokens":{"E":{"id":"E","ids":[458]}}}]}})");
  const Tokenizer tokenizer = small_tokenizer(patch);
  EXPECT_FALSE(tokenizer.adds_bos());
  EXPECT_TRUE(tokenizer.adds_eos());
  EXPECT_EQ(tokenizer.encode("!", {.add_bos = true, .add_eos = true}),
            (std::vector<int32_t>{'!', 458}));
}

}  // namespace
}  // namespace llmq::runtime
