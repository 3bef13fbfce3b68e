#include "quant/codec/w8a8sc_transcode.h"

#include <gtest/gtest.h>

#include <cstring>
#include <random>
#include <utility>
#include <vector>

#include "formats/error.h"

namespace llmq::quant {
namespace {

constexpr int64_t kRows = 700;
constexpr int64_t kCols = 1100;

std::vector<int8_t> sparse_codes() {
  std::mt19937 random(11);
  std::vector<int8_t> codes(static_cast<size_t>(kRows * kCols));
  for (int8_t& code : codes) {
    const auto bits = static_cast<unsigned>(random());
    code = bits % 50 == 0 ? static_cast<int8_t>(bits >> 8 & 0xff)
                          : static_cast<int8_t>(static_cast<int>(bits >> 8) % 15 - 7);
  }
  return codes;
}

CompressedView view_of(const CompressedCodes& stored) {
  return {stored.weight, stored.index, stored.info};
}

TEST(W8A8scTranscode, RowsOfACompressedMatrixArePackedAsTheCodesThemselves) {
  ThreadTeam one(1);
  const std::vector<int8_t> codes = sparse_codes();
  for (const W8A8scCodec codec : {W8A8scCodec::kRans, W8A8scCodec::kDeflate}) {
    const CompressedCodes stored = compress_codes({codes.data(), kRows, kCols, kCols}, codec, one);
    const CompressedReader reader(view_of(stored));
    for (const auto& [first, n_rows] : std::vector<std::pair<int64_t, int64_t>>{
             {0, kRows}, {128, 256}, {0, 1}, {100, 300}, {650, 50}, {129, 2}}) {
      const PackedW8A8sc expected =
          PackedW8A8sc::pack(codes.data() + first * kCols, n_rows, kCols, kCols, one);
      for (const int n_threads : {1, 3}) {
        ThreadTeam team(n_threads);
        const PackedW8A8sc packed = pack_compressed(reader, first, n_rows, team);
        ASSERT_EQ(packed.n(), n_rows);
        const auto size = static_cast<size_t>(expected.panel_offsets()[expected.n_panels()]);
        ASSERT_EQ(packed.panel_offsets()[packed.n_panels()], static_cast<int64_t>(size));
        EXPECT_EQ(std::memcmp(packed.bytes(), expected.bytes(), size), 0) << first;
      }
    }
  }
}

TEST(W8A8scTranscode, ADamagedTileIsNamedAndOtherRowsCanStillBeRead) {
  ThreadTeam team(3);
  const std::vector<int8_t> codes = sparse_codes();
  CompressedCodes stored =
      compress_codes({codes.data(), kRows, kCols, kCols}, W8A8scCodec::kRans, team);
  stored.weight.back() ^= std::byte{1};
  const CompressedReader reader(view_of(stored));
  EXPECT_EQ(pack_compressed(reader, 0, 640, team).n(), 640);
  try {
    pack_compressed(reader, 630, 70, team);
    FAIL() << "no error";
  } catch (const formats::Error& error) {
    EXPECT_EQ(error.code(), formats::ErrorCode::kBadInput);
    EXPECT_NE(std::string(error.what()).find("tile 29 "), std::string::npos) << error.what();
  }
}

TEST(W8A8scTranscode, RowsThatAreNotThereAreRefused) {
  ThreadTeam team(1);
  const std::vector<int8_t> codes = sparse_codes();
  const CompressedCodes stored =
      compress_codes({codes.data(), 20, 30, kCols}, W8A8scCodec::kRans, team);
  const CompressedReader reader(view_of(stored));
  EXPECT_EQ(pack_compressed(reader, 20, 0, team).n(), 0);
  EXPECT_THROW(pack_compressed(reader, -1, 2, team), formats::Error);
  EXPECT_THROW(pack_compressed(reader, 0, 21, team), formats::Error);
  EXPECT_THROW(pack_compressed(reader, 21, 0, team), formats::Error);
}

}  // namespace
}  // namespace llmq::quant
