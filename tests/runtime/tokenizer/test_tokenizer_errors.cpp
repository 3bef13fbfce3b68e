#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "tests/runtime/tokenizer/tokenizer_test_util.h"

namespace llmq::runtime {
namespace {

using formats::Json;
using testing::HasSubstr;

std::string error_of_patch(const char* patch) {
  return error_or_none([&] { small_tokenizer(Json::parse(patch)); });
}

/// A folder of files that goes away.
class Folder {
 public:
  Folder() {
    std::string name = (std::filesystem::temp_directory_path() / "llmq-tok-XXXXXX").string();
    if (mkdtemp(name.data()) == nullptr) throw std::runtime_error("mkdtemp failed");
    path_ = name;
  }
  ~Folder() { std::filesystem::remove_all(path_); }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;

  void write(const std::string& name, const std::string& text) const {
    std::ofstream(path_ / name, std::ios::binary) << text;
  }
  [[nodiscard]] const std::filesystem::path& path() const { return path_; }
  [[nodiscard]] std::string error() const {
    return error_or_none([&] { Tokenizer::load(path_); });
  }

 private:
  std::filesystem::path path_;
};

/// vocab.json and merges.txt of the small byte-level tokenizer, as Qwen2 files.
struct ClassicFiles {
  Json vocab;
  std::string merges = "#version: 0.2\n";

  ClassicFiles() {
    const Json file = read_golden("small_byte_level.json");
    vocab = file["model"]["vocab"];
    for (const Json& merge : file["model"]["merges"]) merges += merge.get<std::string>() + "\n";
  }
  void write(const Folder& folder) const {
    folder.write("vocab.json", vocab.dump());
    folder.write("merges.txt", merges);
  }
};

constexpr const char* kQwenConfig = R"({"tokenizer_class":"Qwen2Tokenizer","eos_token":"<|im_end|>",
  "add_bos_token":false,"added_tokens_decoder":{
  "456":{"content":"<|im_start|>","special":true},"600":{"content":"<|im_end|>","special":true}}})";

TEST(TokenizerFile, NamesWhatItDoesNotSupport) {
  EXPECT_THAT(error_of_patch(R"({"normalizer":{"type":"BertNormalizer"}})"),
              HasSubstr("normalizer: the type \"BertNormalizer\" is not supported"));
  EXPECT_THAT(
      error_of_patch(R"({"normalizer":{"type":"Replace","pattern":{"Regex":"a"},"content":""}})"),
      HasSubstr("Replace"));
  EXPECT_THAT(error_of_patch(R"({"pre_tokenizer":{"type":"Whitespace","pretokenizers":null}})"),
              HasSubstr("pre_tokenizer: the type \"Whitespace\""));
  EXPECT_THAT(error_of_patch(R"({"pre_tokenizer":{"type":"Split","pretokenizers":null,
                                "pattern":{"String":"x"},"behavior":"MergedWithNext"}})"),
              HasSubstr("behavior \"MergedWithNext\""));
  EXPECT_THAT(error_of_patch(R"({"decoder":{"type":"WordPiece"}})"),
              HasSubstr("decoder: the type"));
  EXPECT_THAT(error_of_patch(R"({"post_processor":{"type":"BertProcessing"}})"),
              HasSubstr("post_processor: the type"));
  EXPECT_THAT(error_of_patch(R"({"model":{"type":"Unigram"}})"), HasSubstr("only BPE"));
  EXPECT_THAT(error_of_patch(R"({"model":{"end_of_word_suffix":"</w>"}})"),
              HasSubstr("end_of_word_suffix"));
  EXPECT_THAT(error_of_patch(R"({"model":{"dropout":0.1}})"), HasSubstr("dropout"));
}

TEST(TokenizerFile, RefusesDamagedParts) {
  EXPECT_THAT(error_of_patch(R"({"model":null})"), HasSubstr("\"model\" is missing"));
  EXPECT_THAT(error_of_patch(R"({"model":{"vocab":null}})"), HasSubstr("\"vocab\""));
  EXPECT_THAT(error_of_patch(R"({"model":{"merges":null}})"), HasSubstr("\"merges\" is missing"));
  EXPECT_THAT(error_of_patch(R"({"model":{"merges":[]}})"), HasSubstr("made by none of them"));
  EXPECT_THAT(error_of_patch(R"({"model":{"merges":["one"]}})"), HasSubstr("merge 1"));
  EXPECT_THAT(error_of_patch(R"({"model":{"merges":["a b c"]}})"), HasSubstr("merge 1"));
  EXPECT_THAT(error_of_patch(R"({"model":{"merges":["a QQQ"]}})"), HasSubstr("needs the token"));
  EXPECT_THAT(error_of_patch(R"({"model":{"vocab":{"a":-1}}})"), HasSubstr("token id"));
  EXPECT_THAT(error_of_patch(R"({"model":{"vocab":{"a":1e99}}})"), HasSubstr("token id"));
  EXPECT_THAT(error_of_patch(R"({"model":{"vocab":{"a":2000000000}}})"), HasSubstr("token id"));
  EXPECT_THAT(error_of_patch(R"({"model":{"vocab":{"new":3}}})"),
              HasSubstr("belongs to two tokens"));
  EXPECT_THAT(error_of_patch(R"({"added_tokens":[{"id":5,"content":"a"}]})"),
              HasSubstr("has two ids"));
  EXPECT_THAT(error_of_patch(R"({"added_tokens":[{"id":500}]})"), HasSubstr("\"content\""));
  EXPECT_THAT(error_of_patch(R"({"added_tokens":[{"content":"x"}]})"), HasSubstr("token id"));
  EXPECT_THAT(error_or_none([] { Tokenizer::from_json("[]"); }),
              HasSubstr("must be a JSON object"));
  EXPECT_THAT(error_or_none([] { Tokenizer::from_json("{"); }), HasSubstr("not valid JSON"));
}

TEST(TokenizerFile, AllowsAddedTokensBeyondTheVocabulary) {
  const Tokenizer tokenizer = small_tokenizer(
      Json::parse(R"({"added_tokens":[{"id":9000,"content":"<far>","special":true}]})"));
  EXPECT_EQ(tokenizer.vocab_size(), 9001);
  EXPECT_EQ(tokenizer.encode("<far>", {}), std::vector<int32_t>{9000});
  EXPECT_EQ(tokenizer.id_to_token(8999), std::nullopt) << "a hole";
  EXPECT_EQ(tokenizer.decode(std::vector<int32_t>{'a', 8999, 'b'}), "ab");
}

TEST(Tokenizer, RefusesToDecodeAnIdOutOfRange) {
  const Tokenizer tokenizer = small_tokenizer();
  for (const int32_t id : {-1, tokenizer.vocab_size(), 2'000'000'000}) {
    EXPECT_THAT(error_or_none([&] { (void)tokenizer.decode(std::vector<int32_t>{id}); }),
                HasSubstr("outside of the tokenizer's"));
    EXPECT_EQ(tokenizer.id_to_token(id), std::nullopt);
    EXPECT_FALSE(tokenizer.is_special(id));
  }
}

TEST(TokenizerFolder, SaysWhatIsMissing) {
  const Folder folder;
  EXPECT_THAT(folder.error(), HasSubstr("neither tokenizer.json nor vocab.json"));
  folder.write("tokenizer.model", "\n\x0e");
  EXPECT_THAT(folder.error(), HasSubstr("only tokenizer.model is there"));
  folder.write("vocab.json", "{}");
  EXPECT_THAT(folder.error(), HasSubstr("merges.txt is missing"));
}

TEST(TokenizerFolder, ReadsVocabAndMergesLikeTheTokenizerFile) {
  const Folder folder;
  ClassicFiles().write(folder);
  folder.write("tokenizer_config.json", kQwenConfig);
  folder.write("generation_config.json", R"({"eos_token_id":[600,456]})");
  const Tokenizer classic = Tokenizer::load(folder.path());
  const Tokenizer file = small_tokenizer(Json::parse(
      R"({"pre_tokenizer":{"pretokenizers":[{"type":"Split","behavior":"Isolated","pattern":{"Regex":
          "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
          }},{"type":"ByteLevel","add_prefix_space":false,"use_regex":false}]},
          "normalizer":{"type":"NFC"},"added_tokens":[{"id":456,"content":"<|im_start|>","special":true},
          {"id":600,"content":"<|im_end|>","special":true}]})"));
  TextMaker maker(41);
  for (int i = 0; i < 100; ++i) {
    const std::string text = maker.text(30);
    EXPECT_EQ(classic.encode(text, {}), file.encode(text, {})) << text;
  }
  EXPECT_EQ(classic.eos_ids(), (std::vector<int32_t>{600, 456}));
  EXPECT_EQ(classic.vocab_size(), 601);
  EXPECT_FALSE(classic.adds_bos());
}

TEST(TokenizerFolder, PrefersTheTokenizerFile) {
  const Folder folder;
  folder.write("vocab.json", "damaged");
  folder.write("merges.txt", "damaged");
  folder.write("tokenizer.json", read_golden("small_byte_level.json").dump());
  EXPECT_EQ(Tokenizer::load(folder.path()).vocab_size(), 459);
}

TEST(TokenizerFolder, CountsMergesAgainstTheVocabulary) {
  for (const int lost_line : {1, 100, 200}) {
    const Folder folder;
    ClassicFiles files;
    size_t begin = 0;
    for (int line = 0; line < lost_line; ++line) begin = files.merges.find('\n', begin) + 1;
    files.merges.erase(begin, files.merges.find('\n', begin) + 1 - begin);
    files.write(folder);
    folder.write("tokenizer_config.json", kQwenConfig);
    EXPECT_THAT(folder.error(),
                testing::AllOf(HasSubstr("199 merges"), HasSubstr("1 of the 456 tokens")));
  }
}

TEST(TokenizerFolder, NamesTheLineOfABadMerge) {
  const Folder folder;
  ClassicFiles files;
  files.merges = "#version: 0.2\n\xC4\xA0 t\nbroken\n";
  files.write(folder);
  folder.write("tokenizer_config.json", kQwenConfig);
  EXPECT_THAT(folder.error(), HasSubstr("merges.txt, line 3"));
}

TEST(TokenizerFolder, RefusesAnUnknownTokenizerClass) {
  const Folder folder;
  ClassicFiles().write(folder);
  folder.write("tokenizer_config.json", R"({"tokenizer_class":"OtherTokenizer"})");
  EXPECT_THAT(folder.error(), HasSubstr("\"OtherTokenizer\" is not known"));
  folder.write("tokenizer_config.json", "{}");
  EXPECT_THAT(folder.error(), HasSubstr("is not known"));
  folder.write("config.json", R"({"model_type":"qwen2"})");
  EXPECT_EQ(folder.error(), "no error");
}

TEST(TokenizerFolder, RefusesAConfigurationOfWrongTypes) {
  const Folder folder;
  folder.write("tokenizer.json", read_golden("small_byte_level.json").dump());
  folder.write("tokenizer_config.json", R"({"add_bos_token":"yes"})");
  EXPECT_THAT(folder.error(), HasSubstr("\"add_bos_token\" must be true or false"));
  folder.write("tokenizer_config.json", R"({"added_tokens_decoder":{"x":{"content":"y"}}})");
  EXPECT_THAT(folder.error(), HasSubstr("added_tokens_decoder"));
}

}  // namespace
}  // namespace llmq::runtime
