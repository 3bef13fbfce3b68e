#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <limits>
#include <memory>
#include <optional>
#include <utility>

#include "formats/error.h"
#include "quant/codec/deflate.h"
#include "quant/codec/rans_encoder.h"
#include "quant/codec/w8a8sc.h"
#include "quant/codec/w8a8sc_layout.h"

namespace llmq::quant {
namespace {

using formats::ConstCodes;
using formats::TileExtents;
using formats::TileGrid;
using formats::TileRange;
using w8a8sc::kTableOffset;
using w8a8sc::kTileHeaderSizeBytes;
using w8a8sc::put;
using w8a8sc::TileMode;

constexpr size_t kMostTileSizeBytes = kTileHeaderSizeBytes + TileGrid::kTileCodes;
constexpr int64_t kBatchTiles = 64;  // compressed while those before them are handed over
constexpr int64_t kCountRows = 64;

void check_codes(const ConstCodes& codes) {
  if (codes.stride < codes.k || codes.data == nullptr) {
    throw formats::Error(
        formats::ErrorCode::kInternal,
        fmt::format("codes [{}, {}] have rows {} apart", codes.n, codes.k, codes.stride));
  }
}

// Neighbouring codes are often equal; four counters for each keep additions from waiting for each
// other.
void count_rows(const ConstCodes& codes, int64_t first, int64_t end, CodeHistogram& histogram) {
  std::array<std::array<uint32_t, 256>, 4> counts{};
  for (int64_t row = first; row < end; ++row) {
    const auto* p = reinterpret_cast<const uint8_t*>(codes.data + row * codes.stride);
    int64_t col = 0;
    for (; col + 4 <= codes.k; col += 4) {
      ++counts[0][p[col]];
      ++counts[1][p[col + 1]];
      ++counts[2][p[col + 2]];
      ++counts[3][p[col + 3]];
    }
    for (; col < codes.k; ++col) ++counts[0][p[col]];
    // A row is shorter than 2^31, so that no counter can overflow within one.
    for (size_t code = 0; code < histogram.size(); ++code) {
      for (auto& count : counts) histogram[code] += std::exchange(count[code], 0);
    }
  }
}

// Adds the zeros that pad tiles at the edges.
CodeHistogram with_padding(CodeHistogram histogram, const TileGrid& grid) {
  const TileExtents last = grid.extents(grid.n_tiles() - 1);
  const int64_t padded = (last.first_row + last.padded_rows) * (last.first_col + last.padded_cols);
  histogram[0] += static_cast<uint64_t>(padded - grid.n() * grid.k());
  return histogram;
}

std::vector<std::byte> make_header(const TileGrid& grid, W8A8scCodec codec,
                                   std::span<const std::byte> table) {
  std::vector<std::byte> header(kTableOffset + table.size() + w8a8sc::kChecksumSizeBytes);
  std::memcpy(header.data(), w8a8sc::kMagic.data(), w8a8sc::kMagic.size());
  put(w8a8sc::kVersion, 1, &header[4]);
  put(static_cast<uint32_t>(codec), 1, &header[5]);
  put(static_cast<uint32_t>(header.size()), 2, &header[6]);
  put(static_cast<uint32_t>(grid.n()), 4, &header[8]);
  put(static_cast<uint32_t>(grid.k()), 4, &header[12]);
  std::copy(table.begin(), table.end(), header.begin() + kTableOffset);
  const size_t checksum_offset = kTableOffset + table.size();
  put(w8a8sc::checksum(0, std::span(header).first(checksum_offset)), 4, &header[checksum_offset]);
  return header;
}

// What a thread compresses with.
class TileEncoder {
 public:
  explicit TileEncoder(const RansEncoder* rans) : rans_(rans), codes_(TileGrid::kTileCodes) {
    if (rans == nullptr) deflater_.emplace();
  }

  // Writes a tile to `bytes` [kMostTileSizeBytes] and returns its size.
  size_t encode(const ConstCodes& matrix, const TileGrid& grid, int64_t tile, std::byte* bytes) {
    const TileExtents extents = grid.extents(tile);
    formats::gather_tile(matrix, extents, reinterpret_cast<int8_t*>(codes_.data()));
    const auto codes = std::span<const uint8_t>(codes_).first(extents.n_codes());
    const size_t payload =
        rans_ != nullptr ? encode_rans(codes, bytes) : encode_deflate(codes, bytes);
    const size_t size = kTileHeaderSizeBytes + payload;
    put(w8a8sc::checksum(static_cast<uint32_t>(tile), {bytes + 4, size - 4}), 4, bytes);
    return size;
  }

 private:
  static void put_mode(TileMode mode, size_t n_escapes, std::byte* bytes) {
    put(static_cast<uint32_t>(mode), 1, bytes + 4);
    put(0, 1, bytes + 5);
    put(static_cast<uint32_t>(n_escapes), 2, bytes + 6);
  }

  static size_t encode_raw(std::span<const uint8_t> codes, std::byte* bytes) {
    put_mode(TileMode::kRaw, 0, bytes);
    std::memcpy(bytes + kTileHeaderSizeBytes, codes.data(), codes.size());
    return codes.size();
  }

  size_t encode_rans(std::span<const uint8_t> codes, std::byte* bytes) {
    const RansStreamBytes stream = rans_->encode(codes, scratch_);
    const size_t size = w8a8sc::kStatesSizeBytes + 2 * stream.words.size() + stream.escapes.size();
    if (size >= codes.size()) return encode_raw(codes, bytes);
    put_mode(TileMode::kRans, stream.escapes.size(), bytes);
    std::byte* next = bytes + kTileHeaderSizeBytes;
    for (const uint32_t state : stream.states) {
      put(state, 4, next);
      next += 4;
    }
    for (const uint16_t word : stream.words) {
      put(word, 2, next);
      next += 2;
    }
    std::copy_n(reinterpret_cast<const std::byte*>(stream.escapes.data()), stream.escapes.size(),
                next);
    return size;
  }

  size_t encode_deflate(std::span<const uint8_t> codes, std::byte* bytes) {
    const std::span<const uint8_t> compressed = deflater_->compress(codes);
    if (compressed.size() >= codes.size()) return encode_raw(codes, bytes);
    put_mode(TileMode::kDeflate, 0, bytes);
    std::memcpy(bytes + kTileHeaderSizeBytes, compressed.data(), compressed.size());
    return compressed.size();
  }

  const RansEncoder* rans_;
  std::vector<uint8_t> codes_;
  RansEncoder::Scratch scratch_;
  std::optional<Deflater> deflater_;
};

// Compresses the tiles of a matrix batch by batch. One thread hands a batch over while the others
// encode the next: files let one writer in at a time, and many would wait for each other.
class TileStream {
 public:
  // `begin`: where the first tile's bytes lie.
  TileStream(const ConstCodes& codes, const TileGrid& grid, const RansEncoder* rans, uint64_t begin)
      : codes_(codes), grid_(grid), rans_(rans), end_(begin) {
    const auto n_batch = static_cast<size_t>(std::min(grid.n_tiles(), kBatchTiles));
    for (Batch& batch : batches_) {
      batch.bytes.resize(n_batch * kMostTileSizeBytes);
      batch.sizes.resize(n_batch);
    }
    ranges_.reserve(static_cast<size_t>(grid.n_tiles()));
  }

  void write(ThreadTeam& team, CompressedSink& sink) {
    encoders_.resize(static_cast<size_t>(team.n_threads()));
    const Batch* full = nullptr;
    for (int64_t first = 0; first < grid_.n_tiles(); first += kBatchTiles) {
      Batch& batch = full == batches_.data() ? batches_[1] : batches_[0];
      batch.first = first;
      batch.count = std::min(kBatchTiles, grid_.n_tiles() - first);
      const int64_t n_before = full != nullptr ? 1 : 0;
      team.parallel_for(n_before + batch.count, [&](int64_t task, int thread_index) {
        if (task < n_before) return hand_over(*full, sink);
        encode(task - n_before, thread_index, batch);
      });
      for (int64_t i = 0; i < batch.count; ++i) append_range(batch.sizes[static_cast<size_t>(i)]);
      sink.extend(end_);
      full = &batch;
    }
    if (full != nullptr) hand_over(*full, sink);
  }

  [[nodiscard]] uint64_t end() const { return end_; }
  [[nodiscard]] const std::vector<TileRange>& ranges() const { return ranges_; }

 private:
  struct Batch {
    int64_t first = 0;  // tile
    int64_t count = 0;
    std::vector<std::byte> bytes;  // [count][kMostTileSizeBytes]
    std::vector<size_t> sizes;
  };

  void encode(int64_t index, int thread_index, Batch& batch) {
    auto& encoder = encoders_[static_cast<size_t>(thread_index)];
    if (encoder == nullptr) encoder = std::make_unique<TileEncoder>(rans_);
    const auto i = static_cast<size_t>(index);
    batch.sizes[i] =
        encoder->encode(codes_, grid_, batch.first + index, &batch.bytes[i * kMostTileSizeBytes]);
  }

  void hand_over(const Batch& batch, CompressedSink& sink) const {
    for (int64_t i = 0; i < batch.count; ++i) {
      const TileRange& range = ranges_[static_cast<size_t>(batch.first + i)];
      sink.write(range.offset,
                 std::span(batch.bytes)
                     .subspan(static_cast<size_t>(i) * kMostTileSizeBytes, range.size_bytes));
    }
  }

  void append_range(size_t size_bytes) {
    if (end_ > std::numeric_limits<uint32_t>::max() - size_bytes) {
      throw formats::bad_input(fmt::format(
          "a matrix of {} by {} takes more than 4 GiB compressed; cut it for more ranks", grid_.n(),
          grid_.k()));
    }
    ranges_.push_back({static_cast<uint32_t>(end_), static_cast<uint32_t>(size_bytes)});
    end_ += size_bytes;
  }

  const ConstCodes& codes_;
  const TileGrid& grid_;
  const RansEncoder* rans_;
  uint64_t end_;
  std::vector<std::unique_ptr<TileEncoder>> encoders_;
  std::array<Batch, 2> batches_;
  std::vector<TileRange> ranges_;
};

// Keeps what it is given.
class MemorySink final : public CompressedSink {
 public:
  explicit MemorySink(const ConstCodes& codes) {
    // Growing in steps would hold the bytes twice; nothing beyond the end is ever touched.
    bytes_.reserve(static_cast<size_t>(most_compressed_bytes({codes.n, codes.k})));
  }
  void extend(uint64_t size_bytes) override { bytes_.resize(static_cast<size_t>(size_bytes)); }
  void write(uint64_t offset_bytes, std::span<const std::byte> bytes) override {
    std::copy(bytes.begin(), bytes.end(),
              bytes_.begin() + static_cast<std::ptrdiff_t>(offset_bytes));
  }
  std::vector<std::byte> take() { return std::move(bytes_); }

 private:
  std::vector<std::byte> bytes_;
};

}  // namespace

std::string_view codec_name(W8A8scCodec codec) {
  return codec == W8A8scCodec::kDeflate ? "deflate" : "rans";
}

std::string_view codec_mark(W8A8scCodec codec) {
  return codec == W8A8scCodec::kDeflate ? "deflate-1" : "rans-1";
}

W8A8scCodec parse_codec(std::string_view name) {
  for (const W8A8scCodec codec : {W8A8scCodec::kRans, W8A8scCodec::kDeflate}) {
    if (name == codec_name(codec)) return codec;
  }
  throw formats::usage_error(
      fmt::format("there is no codec '{}'; the codecs are rans and deflate", name));
}

CodeHistogram count_codes(const ConstCodes& codes, ThreadTeam& team) {
  check_codes(codes);
  std::vector<CodeHistogram> parts(static_cast<size_t>(team.n_threads()));
  const int64_t n_blocks = (codes.n + kCountRows - 1) / kCountRows;
  team.parallel_for(n_blocks, [&](int64_t block, int thread_index) {
    const int64_t first = block * kCountRows;
    count_rows(codes, first, std::min(first + kCountRows, codes.n),
               parts[static_cast<size_t>(thread_index)]);
  });
  CodeHistogram histogram{};
  for (const CodeHistogram& part : parts) {
    for (size_t code = 0; code < histogram.size(); ++code) histogram[code] += part[code];
  }
  return histogram;
}

uint64_t most_compressed_bytes(const TileGrid& grid) {
  constexpr uint64_t kMostHeaderBytes = 1024;
  const TileExtents last = grid.extents(grid.n_tiles() - 1);
  const int64_t padded = (last.first_row + last.padded_rows) * (last.first_col + last.padded_cols);
  return kMostHeaderBytes + static_cast<uint64_t>(padded) +
         static_cast<uint64_t>(grid.n_tiles()) * kTileHeaderSizeBytes;
}

CompressionResult compress_codes(const ConstCodes& codes, W8A8scCodec codec, ThreadTeam& team,
                                 CompressedSink& sink) {
  check_codes(codes);
  const TileGrid grid(codes.n, codes.k);
  CompressionResult result;
  result.info = grid.info();
  result.histogram = count_codes(codes, team);
  std::optional<RansEncoder> rans;
  std::vector<std::byte> header;
  if (codec == W8A8scCodec::kRans) {
    const RansModel model = choose_rans_model(with_padding(result.histogram, grid));
    header = make_header(grid, codec, serialize_rans_model(model));
    rans.emplace(model);
  } else {
    header = make_header(grid, codec, {});
  }
  sink.extend(header.size());
  sink.write(0, header);
  TileStream tiles(codes, grid, rans ? &*rans : nullptr, header.size());
  tiles.write(team, sink);
  result.weight_size_bytes = tiles.end();
  result.index = formats::serialize_tile_index(tiles.ranges());
  return result;
}

CompressedCodes compress_codes(const ConstCodes& codes, W8A8scCodec codec, ThreadTeam& team) {
  check_codes(codes);
  MemorySink sink(codes);
  CompressionResult result = compress_codes(codes, codec, team, sink);
  return {sink.take(), std::move(result.index), result.info};
}

}  // namespace llmq::quant
