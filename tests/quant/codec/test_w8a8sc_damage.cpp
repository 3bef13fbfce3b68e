// Damaged and forged streams: flipped bits are found and named; streams whose checksums are right
// but whose content is not are refused without a step outside any array.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <zlib.h>

#include <cstring>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "formats/error.h"
#include "quant/codec/w8a8sc.h"
#include "tests/quant/codec/code_matrix.h"

namespace llmq::quant {
namespace {

using ::testing::AnyOf;
using ::testing::HasSubstr;

constexpr size_t kTileHeader = 8;
constexpr size_t kStates = 64;

// Three tiles of 16 × 256, 16 × 256 and 16 × 96 stored codes, none of them rare.
CodeMatrix small_matrix() {
  std::mt19937 random(8);
  std::normal_distribution<float> normal(0.0F, 2.0F);
  return filled_matrix(10, 600, [&] { return std::clamp(std::lrint(normal(random)), -4L, 4L); });
}

// Rare codes, so that the model has an escape.
CodeMatrix matrix_with_escapes() {
  std::mt19937 random(9);
  std::normal_distribution<float> normal(0.0F, 1.5F);
  int64_t place = 0;
  return filled_matrix(64, 2048, [&]() -> int {
    const int64_t i = place++;
    return i % 997 == 0 ? static_cast<int>(30 + i / 997 % 90)
                        : static_cast<int>(std::lrint(normal(random)));
  });
}

class Forgery {
 public:
  explicit Forgery(const CodeMatrix& matrix, W8A8scCodec codec = W8A8scCodec::kRans) {
    ThreadTeam team(1);
    good_ = compress_codes(matrix.view(), codec, team);
    bad_ = good_;
  }

  [[nodiscard]] size_t n_tiles() const { return good_.index.size() / 8; }
  [[nodiscard]] size_t offset(size_t tile) const { return number(tile, 0); }
  [[nodiscard]] size_t size(size_t tile) const { return number(tile, 4); }
  [[nodiscard]] size_t header_size() const { return offset(0); }
  CompressedCodes& bad() { return bad_; }
  std::byte& byte(size_t tile, size_t position) { return bad_.weight[offset(tile) + position]; }
  void reset() { bad_ = good_; }

  void set_u32(std::vector<std::byte>& bytes, size_t position, uint32_t value) {
    std::memcpy(&bytes[position], &value, 4);
  }
  void mend_header() {
    const auto* bytes = reinterpret_cast<const Bytef*>(bad_.weight.data());
    const auto size = static_cast<uInt>(header_size() - 4);
    set_u32(bad_.weight, size, static_cast<uint32_t>(crc32(0, bytes, size)));
  }
  void mend_tile(size_t tile) {
    const auto* bytes = reinterpret_cast<const Bytef*>(bad_.weight.data()) + offset(tile);
    set_u32(bad_.weight, offset(tile),
            static_cast<uint32_t>(crc32(tile, bytes + 4, static_cast<uInt>(size(tile) - 4))));
  }
  // Cuts bytes off the last tile, or adds zeros to it.
  void resize_last_tile(int64_t by) {
    const size_t last = n_tiles() - 1;
    bad_.weight.resize(static_cast<size_t>(static_cast<int64_t>(bad_.weight.size()) + by));
    const auto size_bytes = static_cast<uint32_t>(bad_.weight.size() - offset(last));
    set_u32(bad_.index, 8 * last + 4, size_bytes);
    const auto* bytes = reinterpret_cast<const Bytef*>(bad_.weight.data()) + offset(last);
    if (size_bytes >= 4) {
      set_u32(bad_.weight, offset(last),
              static_cast<uint32_t>(crc32(last, bytes + 4, size_bytes - 4)));
    }
  }

  // The message of decoding, by every instruction set alike and by verify as well.
  [[nodiscard]] std::string error() const {
    ThreadTeam team(2);
    std::string message = "nothing was thrown";
    for (const Isa isa : supported_isas()) {
      const std::string decode = error_of([&] { decoded(bad_, team, isa); });
      if (isa == Isa::kScalar) message = decode;
      EXPECT_EQ(decode, message) << isa_name(isa);
      const std::string verify =
          error_of([&] { CompressedReader(view_of(bad_)).verify(team, isa); });
      EXPECT_THAT(verify, testing::StartsWith(message));
    }
    return message;
  }

 private:
  [[nodiscard]] size_t number(size_t tile, size_t at) const {
    uint32_t value = 0;
    std::memcpy(&value, good_.index.data() + 8 * tile + at, 4);
    return value;
  }
  static std::string error_of(const std::function<void()>& call) {
    try {
      call();
    } catch (const formats::Error& error) {
      EXPECT_EQ(error.code(), formats::ErrorCode::kBadInput);
      return error.what();
    }
    return "nothing was thrown";
  }

  CompressedCodes good_;
  CompressedCodes bad_;
};

std::string error_of_reading(const CompressedCodes& compressed, ThreadTeam& team) {
  try {
    decoded(compressed, team);
  } catch (const formats::Error& error) {
    return error.what();
  }
  return "nothing was thrown";
}

TEST(W8A8scDamage, EveryFlippedBitOfWeightIsFoundAndItsTileNamed) {
  std::mt19937 random(1);
  ThreadTeam team(1);
  for (const W8A8scCodec codec : {W8A8scCodec::kRans, W8A8scCodec::kDeflate}) {
    Forgery forgery(small_matrix(), codec);
    size_t tile = 0;
    for (size_t i = 0; i < forgery.bad().weight.size(); ++i) {
      const auto bit = static_cast<std::byte>(1U << random() % 8);
      forgery.bad().weight[i] ^= bit;
      const std::string message = error_of_reading(forgery.bad(), team);
      forgery.bad().weight[i] ^= bit;
      if (i < forgery.header_size()) {
        ASSERT_THAT(message, HasSubstr("weight")) << i;
        continue;
      }
      if (i == forgery.offset(tile) + forgery.size(tile)) ++tile;
      ASSERT_THAT(message, HasSubstr("tile " + std::to_string(tile) + " (rows 0 to 9")) << i;
      ASSERT_THAT(message, HasSubstr("checksum")) << i;
    }
    EXPECT_EQ(tile, 2U);
    EXPECT_EQ(decoded(forgery.bad(), team), small_matrix());
  }
}

TEST(W8A8scDamage, EveryFlippedBitOfIndexAndInfoIsFound) {
  ThreadTeam team(1);
  Forgery forgery(small_matrix());
  for (size_t bit = 0; bit < 8 * forgery.bad().index.size(); ++bit) {
    const auto mask = static_cast<std::byte>(1U << bit % 8);
    forgery.bad().index[bit / 8] ^= mask;
    ASSERT_THAT(error_of_reading(forgery.bad(), team), HasSubstr("index")) << bit;
    forgery.bad().index[bit / 8] ^= mask;
  }
  for (size_t bit = 0; bit < size_t{64} * 5; ++bit) {
    const auto mask = static_cast<int64_t>(uint64_t{1} << bit % 64);
    forgery.bad().info.at(bit / 64) ^= mask;
    ASSERT_NE(error_of_reading(forgery.bad(), team), "nothing was thrown") << bit;
    forgery.bad().info.at(bit / 64) ^= mask;
  }
}

TEST(W8A8scDamage, TheFirstOfSeveralDamagedTilesIsNamedWhateverTheThreads) {
  const CodeMatrix matrix = gaussian_matrix(128, 256 * 40, sigma(3.0));
  Forgery forgery(matrix);
  for (const size_t tile : {33, 11, 26}) forgery.byte(tile, 100) ^= std::byte{4};
  for (const int n_threads : {1, 2, 5}) {
    ThreadTeam team(n_threads);
    EXPECT_THAT(error_of_reading(forgery.bad(), team), HasSubstr("tile 11 (rows 0 to 127, col"));
    try {
      CompressedReader(view_of(forgery.bad())).verify(team);
      ADD_FAILURE() << "nothing was thrown";
    } catch (const formats::Error& error) {
      EXPECT_THAT(error.what(), HasSubstr("tile 11 "));
      EXPECT_THAT(error.what(), HasSubstr("(3 of 40 tiles are damaged)"));
    }
  }
}

TEST(W8A8scDamage, ATileInThePlaceOfAnotherIsFound) {
  // Two tiles of the same bytes but for their checksums.
  CodeMatrix matrix(16, 512);
  for (size_t i = 0; i < matrix.codes.size(); ++i) {
    matrix.codes[i] = static_cast<int8_t>(i % 256 % 5);
  }
  Forgery forgery(matrix);
  ASSERT_EQ(forgery.size(0), forgery.size(1));
  std::copy_n(&forgery.byte(0, 0), forgery.size(0), &forgery.byte(1, 0));
  EXPECT_THAT(forgery.error(),
              HasSubstr("tile 1 (rows 0 to 15, columns 256 to 511): the checksum"));
}

TEST(W8A8scForgery, HeaderMustBeOursOfAKnownVersionAndCodecAndOfTheExtentsOfInfo) {
  Forgery forgery(small_matrix());
  forgery.bad().weight[0] = std::byte{'X'};
  forgery.mend_header();
  EXPECT_THAT(forgery.error(), HasSubstr("Ascend's own compressor"));
  forgery.reset();
  forgery.bad().weight[4] = std::byte{2};
  forgery.mend_header();
  EXPECT_THAT(forgery.error(), HasSubstr("version 2 of the bitstream"));
  forgery.reset();
  forgery.bad().weight[5] = std::byte{9};
  forgery.mend_header();
  EXPECT_THAT(forgery.error(), HasSubstr("codec 9"));
  forgery.reset();
  forgery.bad().weight[5] = std::byte{2};
  forgery.mend_header();
  EXPECT_THAT(forgery.error(), HasSubstr("table, which deflate does not use"));
  forgery.reset();
  forgery.bad().weight[8] ^= std::byte{1};
  forgery.mend_header();
  EXPECT_THAT(forgery.error(), HasSubstr("a matrix of 11 by 600, but info says 10 by 600"));
  forgery.reset();
  for (const int size : {0, 3, 4, 19, 20, 255}) {
    forgery.bad().weight[6] = static_cast<std::byte>(size);
    forgery.mend_header();
    EXPECT_THAT(forgery.error(), HasSubstr("header of weight")) << size;
  }
  forgery.reset();
  for (const size_t size : {size_t{0}, size_t{3}, size_t{19}, forgery.header_size() - 1}) {
    forgery.bad().weight.resize(size);
    EXPECT_THAT(forgery.error(), AnyOf(HasSubstr("does not begin"), HasSubstr("header of weight")));
  }
  forgery.reset();
  forgery.bad().weight[18] ^= std::byte{1};  // the table says another code
  forgery.mend_header();
  EXPECT_THAT(forgery.error(), HasSubstr("frequenc"));
}

TEST(W8A8scForgery, FirstTileMustBeginBehindTheHeader) {
  Forgery forgery(small_matrix());
  const auto first = static_cast<uint32_t>(forgery.offset(0));
  forgery.set_u32(forgery.bad().index, 0, first + 1);
  forgery.set_u32(forgery.bad().index, 4, static_cast<uint32_t>(forgery.size(0) - 1));
  EXPECT_THAT(forgery.error(), HasSubstr("the first tile begins at byte"));
}

TEST(W8A8scForgery, TileHeadersMustBePossible) {
  Forgery forgery(small_matrix());
  const auto error_with = [&](size_t position, int value) {
    forgery.reset();
    forgery.byte(1, position) = static_cast<std::byte>(value);
    forgery.mend_tile(1);
    return forgery.error();
  };
  EXPECT_THAT(error_with(4, 0), HasSubstr("tile 1 (rows 0 to 9, columns 256 to 511): it holds"));
  EXPECT_THAT(error_with(4, 2), HasSubstr("mode 2 does not belong to codec rans"));
  EXPECT_THAT(error_with(4, 77), HasSubstr("mode 77"));
  EXPECT_THAT(error_with(5, 1), HasSubstr("header is not possible"));
  EXPECT_THAT(error_with(6, 1), HasSubstr("cannot hold its states, words and 1 escaped"));
  EXPECT_THAT(error_with(6, 2), HasSubstr("tile 1"));  // without an escape in the model
  EXPECT_THAT(error_with(7, 255), HasSubstr("escaped codes"));
}

TEST(W8A8scForgery, StreamsMustEndWhereTheyMust) {
  Forgery forgery(small_matrix());
  for (size_t lane = 0; lane < 16; ++lane) {
    forgery.reset();
    forgery.byte(1, kTileHeader + 4 * lane) ^= std::byte{1};
    forgery.mend_tile(1);
    EXPECT_THAT(forgery.error(), HasSubstr("tile 1 ")) << lane;
  }
  for (size_t i = 0; i < forgery.size(1) - kTileHeader - kStates; ++i) {
    forgery.reset();
    forgery.byte(1, kTileHeader + kStates + i) ^= std::byte{0x10};
    forgery.mend_tile(1);
    ASSERT_THAT(forgery.error(), HasSubstr("stream does not end as it must")) << i;
  }
}

TEST(W8A8scForgery, LastTileMayBeCutNowhereAndHasNothingBehindIt) {
  for (const W8A8scCodec codec : {W8A8scCodec::kRans, W8A8scCodec::kDeflate}) {
    Forgery forgery(small_matrix(), codec);
    const auto size = static_cast<int64_t>(forgery.size(2));
    for (int64_t by = -size; by <= 4; ++by) {
      if (by == 0) continue;
      forgery.reset();
      forgery.resize_last_tile(by);
      ASSERT_THAT(forgery.error(), HasSubstr("tile 2 ")) << by;
    }
  }
}

TEST(W8A8scForgery, EscapedCodesMustBeAsManyAsEscapes) {
  Forgery forgery(matrix_with_escapes());
  ThreadTeam team(1);
  const CompressedReader reader(view_of(forgery.bad()));
  ASSERT_TRUE(reader.model()->has_escape);
  const size_t last = forgery.n_tiles() - 1;
  const int n_escapes = std::to_integer<int>(forgery.byte(last, 6));
  ASSERT_GE(n_escapes, 2);
  // Two bytes fewer or more of escapes are a word more or less.
  for (const int change : {-2, 2}) {
    forgery.reset();
    forgery.byte(last, 6) = static_cast<std::byte>(n_escapes + change);
    forgery.mend_tile(last);
    EXPECT_THAT(forgery.error(), HasSubstr("stream does not end as it must")) << change;
  }
  forgery.reset();
  forgery.byte(last, 6) = static_cast<std::byte>(n_escapes + 1);
  forgery.resize_last_tile(1);
  EXPECT_THAT(forgery.error(), HasSubstr("more escaped codes than escapes"));
  forgery.reset();
  forgery.byte(last, 6) = static_cast<std::byte>(n_escapes - 1);
  forgery.resize_last_tile(-1);
  EXPECT_THAT(forgery.error(), HasSubstr("fewer escaped codes than escapes"));
}

TEST(W8A8scForgery, DeflateTilesMustBeOneWholeStream) {
  Forgery forgery(small_matrix(), W8A8scCodec::kDeflate);
  for (size_t i = 0; i < 40; ++i) {
    forgery.reset();
    forgery.byte(0, kTileHeader + i) ^= std::byte{0x20};
    forgery.mend_tile(0);
    ThreadTeam team(1);
    // Deflate has no end of its own to check: most changes break it, others give other codes.
    try {
      EXPECT_FALSE(decoded(forgery.bad(), team) == small_matrix());
    } catch (const formats::Error& error) {
      EXPECT_THAT(error.what(), HasSubstr("no DEFLATE stream of 4096 codes"));
    }
  }
}

}  // namespace
}  // namespace llmq::quant
