#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

#include "runtime/tokenizer/chat.h"
#include "tests/runtime/tokenizer/tokenizer_test_util.h"
#include "tests/tools/test_files.h"

namespace llmq::runtime {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

std::string to_base64(std::string_view bytes) {
  constexpr std::string_view kDigits =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string text;
  for (size_t i = 0; i < bytes.size(); i += 3) {
    const size_t n = std::min<size_t>(3, bytes.size() - i);
    uint32_t bits = 0;
    for (size_t j = 0; j < 3; ++j)
      bits = bits << 8U | (j < n ? static_cast<unsigned char>(bytes[i + j]) : 0U);
    for (size_t j = 0; j < 4; ++j)
      text.push_back(j <= n ? kDigits[bits >> (18 - 6 * j) & 63U] : '=');
  }
  return text;
}

/// Tokens by rank: all bytes, last first, and then words.
std::vector<std::string> ranked(const std::vector<std::string>& words) {
  std::vector<std::string> tokens;
  for (int byte = 255; byte >= 0; --byte) tokens.emplace_back(1, static_cast<char>(byte));
  tokens.insert(tokens.end(), words.begin(), words.end());
  return tokens;
}

std::string file_of(const std::vector<std::string>& tokens) {
  std::string file;
  for (size_t rank = 0; rank < tokens.size(); ++rank)
    file += to_base64(tokens[rank]) + " " + std::to_string(rank) + "\n";
  return file;
}

/// tiktoken's algorithm as its documentation tells it: a word that is a token is that token, else
/// the neighbours whose union has the lowest rank are joined, the leftmost first.
std::vector<int32_t> naive_word(const std::vector<std::string>& tokens, std::string_view word) {
  std::map<std::string, int32_t> rank_of;
  for (size_t i = 0; i < tokens.size(); ++i) rank_of[tokens[i]] = static_cast<int32_t>(i);
  if (const auto found = rank_of.find(std::string(word)); found != rank_of.end())
    return {found->second};
  std::vector<std::string> parts;
  for (const char byte : word) parts.emplace_back(1, byte);
  while (true) {
    size_t best = parts.size();
    int32_t best_rank = 0;
    for (size_t i = 0; i + 1 < parts.size(); ++i) {
      const auto found = rank_of.find(parts[i] + parts[i + 1]);
      if (found == rank_of.end() || (best < parts.size() && found->second >= best_rank)) continue;
      best = i;
      best_rank = found->second;
    }
    if (best == parts.size()) break;
    parts[best] += parts[best + 1];
    parts.erase(parts.begin() + static_cast<std::ptrdiff_t>(best) + 1);
  }
  std::vector<int32_t> ids;
  ids.reserve(parts.size());
  for (const std::string& part : parts) ids.push_back(rank_of.at(part));
  return ids;
}

class Tiktoken : public testing::Test {
 protected:
  [[nodiscard]] Tokenizer load(const std::string& file) const {
    test::write_file(folder_.path() / "qwen.tiktoken", file);
    return Tokenizer::load(folder_.path());
  }
  [[nodiscard]] std::string error_of(const std::string& file) const {
    return error_or_none([&] { static_cast<void>(load(file)); });
  }

  test::TemporaryFolder folder_;
};

TEST_F(Tiktoken, JoinsTheLowestRankFirst) {
  // "bc" comes before "ab": abc is a·bc. "abcd" is never made by joining, but is a word.
  const Tokenizer tokenizer = load(file_of(ranked({"bc", "ab", "abcd", "da"})));
  const auto id = [](char c) { return 255 - static_cast<int32_t>(c); };
  EXPECT_THAT(tokenizer.encode("abc", {}), ElementsAre(id('a'), 256));
  EXPECT_THAT(tokenizer.encode("abd", {}), ElementsAre(257, id('d')));
  EXPECT_THAT(tokenizer.encode("abcd", {}), ElementsAre(258));
  EXPECT_THAT(tokenizer.encode("abcda", {}), ElementsAre(id('a'), 256, 259));
}

TEST_F(Tiktoken, AgreesWithTheAlgorithmOnRandomRanksInAnyOrder) {
  TextMaker maker(7);
  const auto word = [&](size_t n) {
    std::string text;
    for (size_t i = 0; i < n; ++i) text.push_back(static_cast<char>('a' + maker.below(3)));
    return text;
  };
  for (int round = 0; round < 20; ++round) {
    std::vector<std::string> words;
    for (int i = 0; i < 40; ++i) {
      const std::string token = word(2 + maker.below(5));
      if (std::find(words.begin(), words.end(), token) == words.end()) words.push_back(token);
    }
    const std::vector<std::string> tokens = ranked(words);
    const Tokenizer tokenizer = load(file_of(tokens));
    for (int i = 0; i < 60; ++i) {
      const std::string text = word(1 + maker.below(i < 50 ? 16 : 100));
      ASSERT_EQ(tokenizer.encode(text, {}), naive_word(tokens, text)) << text;
    }
  }
}

TEST_F(Tiktoken, ControlTokensFollowTheRanksAndAreFoundInNormalizedText) {
  const Tokenizer tokenizer = load(file_of(ranked({"ab"})));
  EXPECT_EQ(tokenizer.vocab_size(), 257 + 3 + 205);
  EXPECT_EQ(tokenizer.token_to_id("<|endoftext|>"), 257);
  EXPECT_EQ(tokenizer.token_to_id("<|extra_204|>"), 257 + 207);
  EXPECT_THAT(tokenizer.eos_ids(), ElementsAre(257, 259));
  EXPECT_TRUE(tokenizer.is_special(258));
  EXPECT_FALSE(tokenizer.adds_bos());
  EXPECT_FALSE(tokenizer.adds_eos());
  EXPECT_THAT(tokenizer.encode("<|im_start|>ab", {}), ElementsAre(258, 256));
  EXPECT_GT(tokenizer.encode("<|im_start|>ab", {.parse_special = false}).size(), 2U);
  // NFC makes one character of '>' and a slash over it.
  EXPECT_EQ(tokenizer.encode("<|im_start|>\xCC\xB8", {}),
            tokenizer.encode("<|im_start|\xE2\x89\xAF", {}));
}

TEST_F(Tiktoken, TextsComeBackAndStreamAlike) {
  const Tokenizer tokenizer = load(file_of(ranked({"th", "the", " the", "\xE4\xB8"})));
  TextMaker maker(5);
  for (int i = 0; i < 100; ++i) {
    const std::string text = maker.text(20);
    const std::vector<int32_t> ids = tokenizer.encode(text, {});
    EXPECT_EQ(tokenizer.encode(tokenizer.decode(ids, false), {}), ids);
    EXPECT_EQ(chunked_ids(tokenizer, text, {}, 1 + maker.below(9)), ids) << text;
  }
}

TEST_F(Tiktoken, LinesMayStandInAnyOrderAndEndAsOnWindows) {
  const std::vector<std::string> tokens = ranked({"ab", "abc"});
  std::string file;
  for (size_t rank = tokens.size(); rank-- > 0;)
    file += to_base64(tokens[rank]) + " " + std::to_string(rank) + "\r\n";
  EXPECT_THAT(load(file + "\r\n").encode("abcab", {}), ElementsAre(257, 256));
}

TEST_F(Tiktoken, NamesWhatIsWrong) {
  const std::string good = file_of(ranked({"ab"}));
  EXPECT_THAT(error_of(""), HasSubstr("qwen.tiktoken: the file is empty"));
  EXPECT_THAT(error_of("\n\n"), HasSubstr("the file is empty"));
  EXPECT_THAT(error_of(good + "YWJj\n"), HasSubstr("line 258: \"YWJj\" is not a token in base64"));
  for (const char* token : {"YW*j", "YWJ", "YWJj=", "====", "Y===", "YW=j", "", "YW\xFFj"}) {
    EXPECT_THAT(error_of(good + token + " 257\n"), HasSubstr("does not begin with base64"))
        << token;
  }
  for (const char* rank : {"", "-1", "1.5", "257 ", "0x1", "99999999999999999999", "16777216"}) {
    EXPECT_THAT(error_of(good + "YWJj " + rank + "\n"), HasSubstr("does not end with a rank"))
        << rank;
  }
  EXPECT_THAT(error_of(good + "YWJj 258\n"), HasSubstr("rank 257 is missing"));
  EXPECT_THAT(error_of(good + "YWJj 256\n"), HasSubstr("rank 256 is there twice"));
  EXPECT_THAT(error_of(good + "YWI= 257\n"), HasSubstr("ranks 256 and 257 are the same token"));
  EXPECT_THAT(error_of(good + to_base64(std::string(257, 'a')) + " 257\n"),
              HasSubstr("is a token of 257 bytes; 256 are allowed"));
  EXPECT_EQ(error_of(good + to_base64(std::string(256, 'a')) + " 257\n"), "no error");
  EXPECT_THAT(error_of(good + std::string(1 << 20, 'A') + " 257\n"), HasSubstr("is too long"));
  std::vector<std::string> tokens = ranked({"ab"});
  tokens[255 - 0x1F] = "xyz";
  EXPECT_THAT(error_of(file_of(tokens)), HasSubstr("the byte 0x1F is no token"));
}

TEST_F(Tiktoken, OtherTokenizerFilesComeFirst) {
  test::write_file(folder_.path() / "tokenizer.json", read_golden("small_byte_level.json").dump());
  EXPECT_EQ(load("damaged").vocab_size(), 459);
}

TEST_F(Tiktoken, ChatsAreChatMlWithQwensSystemMessage) {
  static_cast<void>(load(file_of(ranked({}))));
  const std::vector<ChatMessage> question = {{"user", "Hi"}};
  EXPECT_EQ(ChatTemplate::load(folder_.path()).render(question, {}),
            "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
            "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n");
  test::write_file(folder_.path() / "tokenizer.json", "{}");
  EXPECT_EQ(ChatTemplate::load(folder_.path()).format(), ChatFormat::kNone);
}

class GoldenTiktoken : public testing::Test {
 protected:
  void SetUp() override {
    if (!exists(data_folder() / "tokenizers" / "qwen1"))
      GTEST_SKIP() << "no data in " << data_folder();
  }
};

TEST_F(GoldenTiktoken, Qwen1EncodesAsQwen2DoesFromItsMerges) {
  const Tokenizer qwen1 = Tokenizer::load(data_folder() / "tokenizers" / "qwen1");
  const Tokenizer qwen2 = Tokenizer::load(data_folder() / "tokenizers" / "qwen2.5");
  EXPECT_EQ(qwen1.vocab_size(), 151851);
  EXPECT_EQ(qwen1.token_to_id("<|im_end|>"), 151645);
  for (int32_t id = 0; id < 151643; ++id) ASSERT_EQ(qwen1.id_to_token(id), qwen2.id_to_token(id));
  TextMaker maker(3);
  for (int i = 0; i < 300; ++i) {
    const std::string text = maker.text(40);
    EXPECT_EQ(qwen1.encode(text, {.parse_special = false}),
              qwen2.encode(text, {.parse_special = false}))
        << text;
    const std::string bytes = maker.bytes(200);
    EXPECT_EQ(qwen1.encode(bytes, {}), qwen2.encode(bytes, {})) << bytes;
  }
  const std::string book =
      formats::read_text_file(data_folder() / "texts" / "pride_and_prejudice.txt");
  EXPECT_EQ(qwen1.encode(book, {}), qwen2.encode(book, {}));
}

}  // namespace
}  // namespace llmq::runtime
