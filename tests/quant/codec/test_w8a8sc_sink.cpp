#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <vector>

#include "formats/error.h"
#include "quant/codec/w8a8sc.h"
#include "tests/quant/codec/code_matrix.h"

namespace llmq::quant {
namespace {

constexpr W8A8scCodec kCodecs[] = {W8A8scCodec::kRans, W8A8scCodec::kDeflate};

/// Keeps the bytes and how often each was written.
class CountingSink final : public CompressedSink {
 public:
  void extend(uint64_t size_bytes) override {
    EXPECT_GT(size_bytes, bytes.size());
    bytes.resize(size_bytes);
    counts.resize(size_bytes);
  }
  void write(uint64_t offset_bytes, std::span<const std::byte> part) override {
    ASSERT_LE(offset_bytes + part.size(), bytes.size());
    for (size_t i = 0; i < part.size(); ++i) {
      bytes[offset_bytes + i] = part[i];
      ++counts[offset_bytes + i];
    }
  }

  std::vector<std::byte> bytes;
  std::vector<int> counts;
};

TEST(W8A8scSink, GetsEachByteOnceWhateverTheThreads) {
  // More tiles than are coded between two calls of extend.
  std::mt19937 random(3);
  std::normal_distribution<float> normal(0.0F, 2.3F);
  const CodeMatrix matrix = filled_matrix(1000, 9000, [&] { return std::lrint(normal(random)); });
  ASSERT_GT(formats::TileGrid(matrix.n, matrix.k).n_tiles(), 256);
  for (const W8A8scCodec codec : kCodecs) {
    ThreadTeam one(1);
    const CompressedCodes wanted = compress_codes(matrix.view(), codec, one);
    for (const int n_threads : {1, 2, 3}) {
      ThreadTeam team(n_threads);
      CountingSink sink;
      const CompressionResult result = compress_codes(matrix.view(), codec, team, sink);
      EXPECT_TRUE(sink.bytes == wanted.weight) << n_threads;
      EXPECT_EQ(result.weight_size_bytes, wanted.weight.size());
      EXPECT_TRUE(result.index == wanted.index);
      EXPECT_EQ(result.info, wanted.info);
      EXPECT_TRUE(std::all_of(sink.counts.begin(), sink.counts.end(),
                              [](int count) { return count == 1; }));
    }
  }
}

TEST(W8A8scSink, HistogramCountsTheMatrixWithoutPadding) {
  const CodeMatrix matrix = gaussian_matrix(17, 33, sigma(3.0));
  CodeHistogram wanted{};
  for (const int8_t code : matrix.codes) ++wanted[static_cast<uint8_t>(code)];
  ThreadTeam team(1);
  for (const W8A8scCodec codec : kCodecs) {
    CountingSink sink;
    EXPECT_EQ(compress_codes(matrix.view(), codec, team, sink).histogram, wanted);
  }
}

TEST(W8A8scSink, SizesStayWithinWhatIsPromised) {
  std::mt19937 random(4);
  std::uniform_int_distribution<int> any(-128, 127);
  ThreadTeam team(1);
  for (const auto& [n, k] : {std::pair{1, 1}, {16, 32}, {129, 257}, {300, 700}}) {
    const CodeMatrix matrix = filled_matrix(n, k, [&] { return any(random); });
    for (const W8A8scCodec codec : kCodecs) {
      CountingSink sink;
      const CompressionResult result = compress_codes(matrix.view(), codec, team, sink);
      EXPECT_LE(result.weight_size_bytes, most_compressed_bytes({n, k})) << n << " by " << k;
    }
  }
}

/// Fails where a disk would be full.
class FullSink final : public CompressedSink {
 public:
  void extend(uint64_t) override {}
  void write(uint64_t offset_bytes, std::span<const std::byte>) override {
    if (offset_bytes > 100'000) throw formats::Error(formats::ErrorCode::kIo, "the disk is full");
  }
};

TEST(W8A8scSink, WhatItThrowsEndsTheCompression) {
  const CodeMatrix matrix = gaussian_matrix(512, 2048, sigma(3.0));
  for (const int n_threads : {1, 3}) {
    ThreadTeam team(n_threads);
    FullSink sink;
    try {
      compress_codes(matrix.view(), W8A8scCodec::kRans, team, sink);
      FAIL() << "nothing was thrown";
    } catch (const formats::Error& error) {
      EXPECT_EQ(error.code(), formats::ErrorCode::kIo);
    }
  }
}

}  // namespace
}  // namespace llmq::quant
