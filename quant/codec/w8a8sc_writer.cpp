#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <limits>
#include <memory>
#include <optional>

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
constexpr int64_t kBatchTiles = 256;  // compressed between two additions to the result
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

// Codes of all tiles with the zeros that pad those at the edges.
CodeHistogram count_stored(const ConstCodes& codes, const TileGrid& grid, ThreadTeam& team) {
  CodeHistogram histogram = count_codes(codes, team);
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

// Compresses all tiles behind the header that `result.weight` holds.
void append_tiles(const ConstCodes& codes, const TileGrid& grid, const RansEncoder* rans,
                  ThreadTeam& team, CompressedCodes& result) {
  std::vector<std::unique_ptr<TileEncoder>> encoders(static_cast<size_t>(team.n_threads()));
  const int64_t n_batch = std::min(grid.n_tiles(), kBatchTiles);
  std::vector<std::byte> batch(static_cast<size_t>(n_batch) * kMostTileSizeBytes);
  std::vector<size_t> sizes(static_cast<size_t>(n_batch));
  std::vector<TileRange> ranges;
  ranges.reserve(static_cast<size_t>(grid.n_tiles()));
  for (int64_t first = 0; first < grid.n_tiles(); first += n_batch) {
    const int64_t count = std::min(n_batch, grid.n_tiles() - first);
    team.parallel_for(count, [&](int64_t task, int thread_index) {
      auto& encoder = encoders[static_cast<size_t>(thread_index)];
      if (encoder == nullptr) encoder = std::make_unique<TileEncoder>(rans);
      const auto i = static_cast<size_t>(task);
      sizes[i] = encoder->encode(codes, grid, first + task, &batch[i * kMostTileSizeBytes]);
    });
    for (size_t i = 0; i < static_cast<size_t>(count); ++i) {
      if (result.weight.size() > std::numeric_limits<uint32_t>::max() - sizes[i]) {
        throw formats::bad_input(
            fmt::format("a matrix of {} by {} takes more than 4 GiB compressed; cut it for more "
                        "ranks",
                        grid.n(), grid.k()));
      }
      ranges.push_back(
          {static_cast<uint32_t>(result.weight.size()), static_cast<uint32_t>(sizes[i])});
      const auto tile = batch.begin() + static_cast<std::ptrdiff_t>(i * kMostTileSizeBytes);
      result.weight.insert(result.weight.end(), tile, tile + static_cast<std::ptrdiff_t>(sizes[i]));
    }
  }
  result.index = formats::serialize_tile_index(ranges);
}

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

CompressedCodes compress_codes(const ConstCodes& codes, W8A8scCodec codec, ThreadTeam& team) {
  check_codes(codes);
  const TileGrid grid(codes.n, codes.k);
  CompressedCodes result;
  result.info = grid.info();
  if (codec == W8A8scCodec::kDeflate) {
    result.weight = make_header(grid, codec, {});
    append_tiles(codes, grid, nullptr, team, result);
    return result;
  }
  const CodeHistogram histogram = count_stored(codes, grid, team);
  const RansModel model = choose_rans_model(histogram);
  result.weight = make_header(grid, codec, serialize_rans_model(model));
  // Growing in steps would hold the bytes twice.
  const double n_codes = static_cast<double>(grid.n()) * static_cast<double>(grid.k());
  const double expected = n_codes / 8.0 * entropy_bits(histogram) * 1.02;
  result.weight.reserve(result.weight.size() + static_cast<size_t>(std::min(expected, 0x1p32)));
  const RansEncoder rans(model);
  append_tiles(codes, grid, &rans, team, result);
  return result;
}

}  // namespace llmq::quant
