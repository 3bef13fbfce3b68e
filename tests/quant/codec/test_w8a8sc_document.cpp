// docs/w8a8sc.md against the codec: the bytes of its worked example, and its own decoder, in
// Python, on what the encoder writes.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <random>
#include <sstream>
#include <string>
#include <vector>

#include "quant/codec/w8a8sc.h"
#include "tests/quant/codec/code_matrix.h"
#include "tests/tools/test_files.h"

namespace llmq::quant {
namespace {

const std::string kRoot = std::string(LLMQ_TEST_SOURCE_DIR) + "/..";

// The bytes of a block that begins with "```hex LABEL": offset, bytes, perhaps a bar and a remark.
std::vector<std::byte> hex_block(const std::string& label) {
  std::istringstream document(test::read_file(kRoot + "/docs/w8a8sc.md"));
  std::vector<std::byte> bytes;
  std::string line;
  while (std::getline(document, line) && line != "```hex " + label) {
  }
  while (std::getline(document, line) && line != "```") {
    std::istringstream words(line.substr(0, line.find('|')));
    std::string word;
    words >> word;
    EXPECT_EQ(std::stoul(word, nullptr, 16), bytes.size());
    while (words >> word) bytes.push_back(static_cast<std::byte>(std::stoul(word, nullptr, 16)));
  }
  return bytes;
}

CodeMatrix example_matrix() {
  CodeMatrix matrix(4, 32);
  for (int64_t i = 0; i < 4 * 32; ++i) {
    matrix.codes[static_cast<size_t>(i)] = static_cast<int8_t>((i / 32 + i % 32) % 5 - 2);
  }
  return matrix;
}

TEST(GoldenW8A8scDocument, TheWorkedExampleIsWhatTheEncoderWrites) {
  ThreadTeam team(1);
  const CodeMatrix matrix = example_matrix();
  const CompressedCodes compressed = compress_codes(matrix.view(), W8A8scCodec::kRans, team);
  EXPECT_EQ(compressed.weight, hex_block("weight rans"));
  EXPECT_EQ(compressed.index, hex_block("index rans"));
}

TEST(GoldenW8A8scDocument, BothExamplesDecodeToTheirMatrix) {
  ThreadTeam team(1);
  for (const std::string codec : {"rans", "deflate"}) {
    const CompressedCodes compressed{
        hex_block("weight " + codec), hex_block("index " + codec), {8, 8, 32, 4, 1}};
    EXPECT_EQ(decoded(compressed, team), example_matrix()) << codec;
  }
}

template <typename Range>
std::string bytes_of(const Range& range) {
  return {reinterpret_cast<const char*>(std::data(range)),
          std::size(range) * sizeof(*std::data(range))};
}

TEST(GoldenW8A8scDocument, ItsDecoderReadsWhatTheEncoderWrites) {
  if (!std::filesystem::exists("/usr/bin/python3")) GTEST_SKIP() << "there is no /usr/bin/python3";
  std::mt19937 random(3);
  std::normal_distribution<float> normal(0.0F, 2.0F);
  std::uniform_int_distribution<int> any(-128, 127);
  int64_t place = 0;
  const std::vector<CodeMatrix> matrices{
      gaussian_matrix(150, 600, sigma(3.0)), filled_matrix(40, 300, [&] { return any(random); }),
      filled_matrix(7, 1000, [] { return -128; }),
      // Escapes, and a raw tile beside coded ones.
      filled_matrix(140, 800, [&]() -> int {
        const bool noisy = place % 800 < 256 && place / 800 < 128;
        const bool rare = place++ % 997 == 0;
        return noisy || rare ? any(random) : static_cast<int>(std::lrint(normal(random)));
      })};
  const test::TemporaryFolder folder;
  ThreadTeam team(1);
  for (size_t i = 0; i < matrices.size(); ++i) {
    for (const W8A8scCodec codec : {W8A8scCodec::kRans, W8A8scCodec::kDeflate}) {
      const CompressedCodes compressed = compress_codes(matrices[i].view(), codec, team);
      const std::string name = std::string(codec_name(codec)) + std::to_string(i);
      test::write_file(folder / (name + ".weight"), bytes_of(compressed.weight));
      test::write_file(folder / (name + ".index"), bytes_of(compressed.index));
      test::write_file(folder / (name + ".info"), bytes_of(compressed.info));
      test::write_file(folder / (name + ".codes"), bytes_of(matrices[i].codes));
    }
  }
  const std::string command = "/usr/bin/python3 '" + kRoot +
                              "/tests/tools/run_w8a8sc_document.py' '" + kRoot +
                              "/docs/w8a8sc.md' '" + folder.path().string() + "' > '" +
                              (folder / "output").string() + "' 2>&1";
  EXPECT_EQ(std::system(command.c_str()), 0) << test::read_file(folder / "output");
  EXPECT_EQ(test::read_file(folder / "output"), "8 matrices decoded\n");
}

}  // namespace
}  // namespace llmq::quant
