#include "convert/pipeline/side_files.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <string>
#include <vector>

#include "tests/tools/test_files.h"

namespace llmq::convert {
namespace {

namespace fs = std::filesystem;
using test::write_file;
using testing::ElementsAre;
using testing::ElementsAreArray;
using testing::IsEmpty;

class SideFiles : public testing::Test {
 protected:
  test::TemporaryFolder folder_;
};

TEST_F(SideFiles, TokenizerChatCodeAndLicenceComeAlongSorted) {
  const std::vector<std::string> names = {"LICENSE",
                                          "NOTICE",
                                          "README.md",
                                          "added_tokens.json",
                                          "chat_template.jinja",
                                          "configuration_qwen.py",
                                          "generation_config.json",
                                          "merges.txt",
                                          "preprocessor_config.json",
                                          "qwen.tiktoken",
                                          "special_tokens_map.json",
                                          "tokenizer.json",
                                          "tokenizer.model",
                                          "tokenizer_config.json",
                                          "vocab.json"};
  for (const std::string& name : names) write_file(folder_ / name, "x");
  EXPECT_THAT(side_files(folder_.path()), ElementsAreArray(names));
}

TEST_F(SideFiles, WeightsIndexesAndWhatIsWrittenAnewStayBehind) {
  for (const char* name :
       {"config.json", "model.safetensors", "pytorch_model.bin", "model.safetensors.index.json",
        "pytorch_model.bin.index.json", "model.safetensors.index.fp16.json",
        "quant_model_description.json", "quant_model_description_w8a8.json", "quantize_config.json",
        "quant_config.json", "hf_quant_config.json", "llmq_report.json", "model.gguf",
        ".gitattributes"}) {
    write_file(folder_ / name, "x");
  }
  EXPECT_THAT(side_files(folder_.path()), IsEmpty());
}

TEST_F(SideFiles, FoldersStayBehindAndLinksToFilesComeAlong) {
  fs::create_directory(folder_ / "folder.json");
  write_file(folder_ / "blob", "x");
  fs::create_symlink("blob", folder_ / "vocab.json");
  EXPECT_THAT(side_files(folder_.path()), ElementsAre("vocab.json"));
}

TEST_F(SideFiles, LinksThatLeadNowhereStayBehind) {
  fs::create_symlink("nowhere", folder_ / "merges.txt");
  fs::create_symlink("loop.json", folder_ / "loop.json");
  EXPECT_THAT(side_files(folder_.path()), IsEmpty());
}

TEST_F(SideFiles, FilesAboveTheLimitStayBehind) {
  write_file(folder_ / "at.json", "");
  write_file(folder_ / "above.json", "");
  fs::resize_file(folder_ / "at.json", uint64_t{256} << 20);
  fs::resize_file(folder_ / "above.json", (uint64_t{256} << 20) + 1);
  EXPECT_THAT(side_files(folder_.path()), ElementsAre("at.json"));
}

}  // namespace
}  // namespace llmq::convert
