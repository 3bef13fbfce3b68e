#include <gtest/gtest.h>

#include <fstream>
#include <sstream>

#include "tests/runtime/tokenizer/tokenizer_test_util.h"

namespace llmq::runtime {
namespace {

using formats::Json;

/// Texts and ids of another implementation's vocabulary tests.
struct Vectors {
  std::vector<std::string> texts;
  std::vector<std::vector<int32_t>> ids;

  explicit Vectors(const std::filesystem::path& stem) {
    constexpr std::string_view kSeparator = "\n__ggml_vocab_test__\n";
    const std::string all = formats::read_text_file(stem.string() + ".inp");
    for (size_t pos = 0; pos <= all.size();) {
      const size_t end = std::min(all.find(kSeparator, pos), all.size());
      texts.push_back(all.substr(pos, end - pos));
      pos = end + kSeparator.size();
    }
    std::ifstream lines(stem.string() + ".out");
    for (std::string line; std::getline(lines, line);) {
      std::istringstream numbers(line);
      ids.emplace_back(std::istream_iterator<int32_t>(numbers), std::istream_iterator<int32_t>());
    }
    texts.resize(ids.size());  // the last text is empty
  }
};

class GoldenRealTokenizer : public testing::Test {
 protected:
  void SetUp() override {
    if (!exists(data_folder() / "tokenizers")) GTEST_SKIP() << "no data in " << data_folder();
  }

  static void expect_vectors(const Tokenizer& tokenizer) {
    const Vectors vectors(data_folder() / "tokenizers" / "vectors" / "ggml-vocab-qwen2.gguf");
    ASSERT_GE(vectors.texts.size(), 46U);
    for (size_t i = 0; i < vectors.texts.size(); ++i) {
      EXPECT_EQ(tokenizer.encode(vectors.texts[i], {}), vectors.ids[i]) << vectors.texts[i];
      EXPECT_EQ(tokenizer.decode(vectors.ids[i]), vectors.texts[i]);
    }
  }
};

TEST_F(GoldenRealTokenizer, QwenVectorsFromVocabAndMerges) {
  expect_vectors(Tokenizer::load(data_folder() / "tokenizers" / "qwen2.5"));
}

TEST_F(GoldenRealTokenizer, QwenVectorsFromAnAssembledTokenizerFile) {
  const auto folder = std::filesystem::temp_directory_path() / "llmq-assembled-tokenizer";
  std::filesystem::create_directories(folder);
  const auto script =
      std::filesystem::path(LLMQ_TEST_SOURCE_DIR) / "tools" / "assemble_tokenizer_json.py";
  for (const char* options :
       {"--normalizer nfc --merges strings", "--normalizer none --merges pairs"}) {
    const std::string command = "python3 '" + script.string() + "' '" +
                                (data_folder() / "tokenizers" / "qwen2.5").string() + "' '" +
                                (folder / "tokenizer.json").string() + "' " + options;
    if (std::system(command.c_str()) != 0) GTEST_SKIP() << "no python3 to assemble the file";
    expect_vectors(Tokenizer::load(folder));
  }
  std::filesystem::remove_all(folder);
}

TEST_F(GoldenRealTokenizer, Qwen25KnowsItsSpecialTokens) {
  const Tokenizer tokenizer = Tokenizer::load(data_folder() / "tokenizers" / "qwen2.5");
  EXPECT_EQ(tokenizer.vocab_size(), 151665);
  EXPECT_EQ(tokenizer.eos_ids(), std::vector<int32_t>{151645});
  EXPECT_EQ(tokenizer.bos_id(), std::nullopt);
  EXPECT_FALSE(tokenizer.adds_bos());
  EXPECT_EQ(tokenizer.token_to_id("\xC4\xA0the"), 279);
  EXPECT_EQ(tokenizer.id_to_token(151644), "<|im_start|>");
  EXPECT_TRUE(tokenizer.is_special(151644));
  EXPECT_FALSE(tokenizer.is_special(151657)) << "<tool_call> is added, not special";
}

TEST_F(GoldenRealTokenizer, StoriesIdsAndTextsOfAnIndependentModelRun) {
  for (const char* name : {"stories260k", "stories260k-qwen2"}) {
    const Tokenizer tokenizer = Tokenizer::load(data_folder() / "models" / name);
    EXPECT_TRUE(tokenizer.adds_bos());
    EXPECT_EQ(tokenizer.vocab_size(), 512);
    const Json goldens =
        formats::read_json_file(data_folder() / "models" / "stories260k-golden.json");
    for (const Json& golden : goldens["greedy"]) {
      EXPECT_EQ(tokenizer.encode(golden["prompt"].get<std::string>(), {.add_bos = true}),
                golden["prompt_ids"].get<std::vector<int32_t>>());
      EXPECT_EQ(tokenizer.decode(golden["ids"].get<std::vector<int32_t>>()),
                golden["text"].get<std::string>());
    }
  }
}

TEST_F(GoldenRealTokenizer, ALongTextComesBackAndStreamsAlike) {
  const std::string text =
      formats::read_text_file(data_folder() / "texts" / "pride_and_prejudice.txt");
  for (const char* name : {"tokenizers/qwen2.5", "models/stories260k"}) {
    const Tokenizer tokenizer = Tokenizer::load(data_folder() / name);
    const auto ids = tokenizer.encode(text, {});
    EXPECT_EQ(tokenizer.decode(ids), repair_utf8(text));
    EXPECT_EQ(stream_ids(tokenizer, text, {}, [] { return size_t{4097}; }), ids);
  }
}

}  // namespace
}  // namespace llmq::runtime
