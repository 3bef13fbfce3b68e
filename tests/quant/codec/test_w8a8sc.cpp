#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <zlib.h>

#include <cmath>
#include <cstring>
#include <map>
#include <numeric>
#include <random>
#include <vector>

#include "formats/error.h"
#include "quant/codec/w8a8sc.h"
#include "tests/quant/codec/code_matrix.h"

namespace llmq::quant {
namespace {

constexpr W8A8scCodec kCodecs[] = {W8A8scCodec::kRans, W8A8scCodec::kDeflate};

size_t size_of(const CompressedCodes& compressed) {
  return compressed.weight.size() + compressed.index.size();
}

// Bytes of the codes at their order-0 entropy.
double entropy_bytes(const CodeMatrix& matrix) {
  std::map<int8_t, double> counts;
  for (const int8_t code : matrix.codes) counts[code] += 1.0;
  const auto total = static_cast<double>(matrix.codes.size());
  double bits = 0.0;
  for (const auto& [code, count] : counts) bits += count * std::log2(total / count);
  return bits / 8.0;
}

void expect_round_trip(const CodeMatrix& matrix, W8A8scCodec codec) {
  ThreadTeam team(2);
  const CompressedCodes compressed = compress_codes(matrix.view(), codec, team);
  const CompressedReader reader(view_of(compressed));
  EXPECT_EQ(reader.codec(), codec);
  reader.verify(team);
  CodeMatrix again = matrix;
  std::fill(again.codes.begin(), again.codes.end(), int8_t{55});
  reader.decode(again.view(), team);
  for (int64_t row = 0; row < matrix.n; ++row) {
    const auto first = static_cast<size_t>(row * (matrix.k + matrix.gap));
    for (int64_t col = 0; col < matrix.k + matrix.gap; ++col) {
      const size_t i = first + static_cast<size_t>(col);
      ASSERT_EQ(again.codes[i], col < matrix.k ? matrix.codes[i] : 55) << row << ' ' << col;
    }
  }
}

TEST(W8A8scCodec, GivesBackEveryShape) {
  const std::pair<int64_t, int64_t> shapes[] = {{1, 1},     {1, 4096},  {300, 1},   {16, 32},
                                                {17, 33},   {128, 256}, {129, 257}, {255, 255},
                                                {100, 700}, {640, 520}};
  std::mt19937 random(1);
  std::normal_distribution<float> normal(0.0F, 2.3F);
  for (const auto& [n, k] : shapes) {
    const CodeMatrix matrix = filled_matrix(n, k, [&] { return std::lrint(normal(random)); });
    for (const W8A8scCodec codec : kCodecs) {
      SCOPED_TRACE(testing::Message() << n << " by " << k << ' ' << codec_name(codec));
      expect_round_trip(matrix, codec);
    }
  }
}

TEST(W8A8scCodec, GivesBackEveryKindOfCodes) {
  std::mt19937 random(2);
  std::uniform_int_distribution<int> any(-128, 127);
  std::normal_distribution<float> normal(0.0F, 2.0F);
  int counter = 0;
  const std::vector<std::function<int()>> kinds{
      [] { return 0; }, [] { return -128; }, [&] { return any(random); },
      [&] { return counter++ % 256 - 128; }, [&] { return any(random) > -120 ? 0 : any(random); },
      // Rare codes of every value among few frequent ones.
      [&] { return ++counter % 701 == 0 ? any(random) : std::lrint(normal(random)); }};
  for (size_t kind = 0; kind < kinds.size(); ++kind) {
    const CodeMatrix matrix = filled_matrix(200, 600, kinds[kind]);
    for (const W8A8scCodec codec : kCodecs) {
      SCOPED_TRACE(testing::Message() << "kind " << kind << ' ' << codec_name(codec));
      expect_round_trip(matrix, codec);
    }
  }
}

TEST(W8A8scCodec, TouchesNothingBetweenTheRowsOfASlice) {
  CodeMatrix matrix(150, 300, 17);
  for (size_t i = 0; i < matrix.codes.size(); ++i) {
    matrix.codes[i] = static_cast<int8_t>(static_cast<int>(i * i % 13) - 6);
  }
  for (const W8A8scCodec codec : kCodecs) expect_round_trip(matrix, codec);
}

TEST(W8A8scCodec, BytesDoNotDependOnTheNumberOfThreads) {
  const CodeMatrix matrix = gaussian_matrix(700, 1500, sigma(3.0));
  for (const W8A8scCodec codec : kCodecs) {
    ThreadTeam one(1);
    const CompressedCodes expected = compress_codes(matrix.view(), codec, one);
    for (const int n_threads : {2, 3, 7}) {
      ThreadTeam team(n_threads);
      const CompressedCodes compressed = compress_codes(matrix.view(), codec, team);
      EXPECT_EQ(compressed.weight, expected.weight);
      EXPECT_EQ(compressed.index, expected.index);
      EXPECT_EQ(decoded(expected, team), matrix);
    }
  }
}

TEST(W8A8scCodec, SizeIsWithinSevenThousandthsOfTheEntropy) {
  ThreadTeam team(2);
  for (const double factor : {3.0, 3.5, 4.0}) {
    const CodeMatrix matrix = gaussian_matrix(1024, 1024, sigma(factor));
    const auto size =
        static_cast<double>(size_of(compress_codes(matrix.view(), W8A8scCodec::kRans, team)));
    EXPECT_LE(size, 1.007 * entropy_bytes(matrix)) << factor;
    EXPECT_GT(size, entropy_bytes(matrix)) << factor;
    if (factor == 3.0) {
      EXPECT_LE(size, 0.414 * static_cast<double>(matrix.codes.size()));
    }
  }
  for (const double fraction : {0.011, 0.02, 0.1}) {
    const CodeMatrix matrix = gaussian_matrix(1024, 1024, {.fraction = fraction});
    const auto size =
        static_cast<double>(size_of(compress_codes(matrix.view(), W8A8scCodec::kRans, team)));
    EXPECT_LE(size, 1.007 * entropy_bytes(matrix)) << fraction;
  }
}

TEST(W8A8scCodec, SizeStaysNearTheEntropyWhereOutliersReachFar) {
  std::mt19937 random(5);
  std::student_t_distribution<float> heavy(3.0F);
  ThreadTeam team(2);
  const CodeMatrix matrix =
      sparse_matrix(1024, 1024, {.fraction = 0.011}, [&] { return heavy(random); });
  const auto used = std::minmax_element(matrix.codes.begin(), matrix.codes.end());
  ASSERT_GT(*used.second - *used.first, 200);
  const auto size =
      static_cast<double>(size_of(compress_codes(matrix.view(), W8A8scCodec::kRans, team)));
  EXPECT_LE(size, 1.007 * entropy_bytes(matrix));
}

TEST(W8A8scCodec, TilesThatCannotShrinkAreStoredAsTheyAre) {
  std::mt19937 random(4);
  std::uniform_int_distribution<int> any(-128, 127);
  const CodeMatrix matrix = filled_matrix(256, 512, [&] { return any(random); });
  ThreadTeam team(1);
  for (const W8A8scCodec codec : kCodecs) {
    const CompressedCodes compressed = compress_codes(matrix.view(), codec, team);
    constexpr size_t kTiles = 4;
    constexpr size_t kMostHeader = 16 + 2 + 32 + 2 * 256 + 4;
    EXPECT_LE(size_of(compressed), matrix.codes.size() + kTiles * (8 + 8) + kMostHeader);
    EXPECT_EQ(decoded(compressed, team), matrix);
  }
}

TEST(W8A8scCodec, RawAndCodedTilesStandBesideEachOther) {
  std::mt19937 random(6);
  std::uniform_int_distribution<int> any(-128, 127);
  int64_t place = 0;
  const CodeMatrix matrix = filled_matrix(128, 1024, [&] {
    const bool noisy = place++ % 1024 < 256;
    return noisy ? any(random) : any(random) / 64;
  });
  for (const W8A8scCodec codec : kCodecs) expect_round_trip(matrix, codec);
}

TEST(W8A8scCodec, DeflateTilesAreReadByZlibAlone) {
  const CodeMatrix matrix = gaussian_matrix(128, 512, sigma(3.0));
  ThreadTeam team(1);
  const CompressedCodes compressed = compress_codes(matrix.view(), W8A8scCodec::kDeflate, team);
  const formats::TileGrid grid(128, 512);
  CodeMatrix again(128, 512);
  std::vector<int8_t> tile(formats::TileGrid::kTileCodes);
  size_t offset = 20;  // behind a header without a table
  for (int64_t t = 0; t < 2; ++t) {
    uint32_t entry[2];
    std::memcpy(entry, compressed.index.data() + 8 * t, 8);
    ASSERT_EQ(entry[0], offset);
    const auto* bytes = reinterpret_cast<const Bytef*>(compressed.weight.data()) + offset;
    uint32_t checksum = 0;
    std::memcpy(&checksum, bytes, 4);
    EXPECT_EQ(checksum, crc32(static_cast<uLong>(t), bytes + 4, entry[1] - 4));
    z_stream z{};
    ASSERT_EQ(inflateInit2(&z, -15), Z_OK);
    z.next_in = const_cast<Bytef*>(bytes + 8);
    z.avail_in = entry[1] - 8;
    z.next_out = reinterpret_cast<Bytef*>(tile.data());
    z.avail_out = static_cast<uInt>(tile.size());
    EXPECT_EQ(inflate(&z, Z_FINISH), Z_STREAM_END);
    EXPECT_EQ(z.avail_in + z.avail_out, 0U);
    inflateEnd(&z);
    formats::scatter_tile(tile.data(), grid.extents(t), again.view());
    offset += entry[1];
  }
  EXPECT_EQ(again, matrix);
}

TEST(W8A8scCodec, AnyTilesAreDecodedOnTheirOwn) {
  const CodeMatrix matrix = gaussian_matrix(200, 1300, sigma(3.0));
  ThreadTeam team(1);
  const CompressedCodes compressed = compress_codes(matrix.view(), W8A8scCodec::kRans, team);
  const CompressedReader reader(view_of(compressed));
  const formats::TileGrid& grid = reader.grid();
  std::vector<int8_t> expected(formats::TileGrid::kTileCodes);
  for (int64_t first = 0; first < grid.n_tiles(); ++first) {
    for (int64_t count = 0; count <= grid.n_tiles() - first; ++count) {
      std::vector<int8_t> codes(static_cast<size_t>(count * formats::TileGrid::kTileCodes));
      reader.decode_tiles(first, count, codes);
      for (int64_t i = 0; i < count; ++i) {
        const formats::TileExtents extents = grid.extents(first + i);
        formats::gather_tile(matrix.view(), extents, expected.data());
        const auto begin = codes.begin() + i * formats::TileGrid::kTileCodes;
        ASSERT_TRUE(std::equal(begin, begin + extents.n_codes(), expected.begin()))
            << first << ' ' << count << ' ' << i;
      }
    }
  }
  std::vector<int8_t> one(formats::TileGrid::kTileCodes);
  EXPECT_THROW(reader.decode_tiles(0, 2, one), formats::Error);
  EXPECT_THROW(reader.decode_tiles(grid.n_tiles(), 1, one), formats::Error);
  EXPECT_THROW(reader.decode_tiles(-1, 1, one), formats::Error);
}

TEST(W8A8scCodec, HistogramCountsTheCodesWithoutPadding) {
  const CodeMatrix matrix = gaussian_matrix(131, 77, sigma(3.0));
  ThreadTeam team(3);
  CodeHistogram expected{};
  for (const int8_t code : matrix.codes) ++expected[static_cast<uint8_t>(code)];
  EXPECT_EQ(count_codes(matrix.view(), team), expected);
  EXPECT_NEAR(entropy_bits(expected) / 8.0 * static_cast<double>(matrix.codes.size()),
              entropy_bytes(matrix), 1e-9 * static_cast<double>(matrix.codes.size()));
}

TEST(W8A8scCodec, NamesAreThoseOfTheOption) {
  for (const W8A8scCodec codec : kCodecs) EXPECT_EQ(parse_codec(codec_name(codec)), codec);
  EXPECT_EQ(codec_mark(W8A8scCodec::kRans), "rans-1");
  EXPECT_EQ(codec_mark(W8A8scCodec::kDeflate), "deflate-1");
  EXPECT_THROW(parse_codec("zstd"), formats::Error);
}

TEST(W8A8scCodec, RefusesAMatrixOrADestinationOfOtherExtents) {
  ThreadTeam team(1);
  const std::vector<int8_t> codes(64);
  EXPECT_THROW(compress_codes({codes.data(), 8, 8, 7}, W8A8scCodec::kRans, team), formats::Error);
  EXPECT_THROW(compress_codes({codes.data(), 0, 8, 8}, W8A8scCodec::kRans, team), formats::Error);
  const CompressedCodes compressed =
      compress_codes({codes.data(), 8, 8, 8}, W8A8scCodec::kRans, team);
  const CompressedReader reader(view_of(compressed));
  std::vector<int8_t> out(72);
  EXPECT_THROW(reader.decode({out.data(), 8, 9, 9}, team), formats::Error);
  EXPECT_THROW(reader.decode({out.data(), 9, 8, 8}, team), formats::Error);
  EXPECT_THROW(reader.decode({out.data(), 8, 8, 7}, team), formats::Error);
}

}  // namespace
}  // namespace llmq::quant
