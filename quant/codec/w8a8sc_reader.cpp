#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <cstring>

#include "formats/error.h"
#include "quant/codec/deflate.h"
#include "quant/codec/w8a8sc.h"
#include "quant/codec/w8a8sc_layout.h"

namespace llmq::quant {
namespace {

using formats::bad_input;
using formats::TileGrid;
using formats::TileRange;
using w8a8sc::get;
using w8a8sc::kTableOffset;
using w8a8sc::kTileHeaderSizeBytes;
using w8a8sc::TileMode;

constexpr int64_t kGroupTiles = 4;  // decoded together, as fast kernels want

formats::Error extents_error(const TileGrid& grid, const formats::Codes& codes) {
  return {formats::ErrorCode::kInternal,
          fmt::format("codes [{}, {}] with rows {} apart cannot hold a matrix of {} by {}", codes.n,
                      codes.k, codes.stride, grid.n(), grid.k())};
}

}  // namespace

// What a thread decodes with.
class CompressedReader::TileDecoder {
 public:
  TileDecoder(const CompressedReader& reader, Isa isa)
      : reader_(reader), kernels_(rans_kernels(isa)) {}

  // Decodes tiles [first, first + count), count <= kGroupTiles, as decode_tiles does.
  void decode(int64_t first, int64_t count, int8_t* codes) {
    n_pending_ = 0;
    for (int64_t i = 0; i < count; ++i) {
      begin_tile(first + i, reinterpret_cast<uint8_t*>(codes + i * TileGrid::kTileCodes));
    }
    finish_pending();
  }

 private:
  // A tile whose stream waits to be decoded together with others.
  struct Pending {
    int64_t tile = 0;
    int64_t n_codes = 0;
    std::span<const std::byte> escapes;
    std::vector<std::byte> padded_words;  // where the tensor ends too soon behind the words
  };

  [[noreturn]] void fail(int64_t tile, std::string_view what) const {
    throw bad_input(fmt::format("{}: {}", reader_.grid_.tile_name(tile), what));
  }

  void begin_tile(int64_t tile, uint8_t* codes) {
    const TileRange range = reader_.ranges_[static_cast<size_t>(tile)];
    const auto bytes = reader_.tensors_.weight.subspan(range.offset, range.size_bytes);
    if (bytes.size() < kTileHeaderSizeBytes) {
      fail(tile, fmt::format("it has {} bytes, too few for its header", bytes.size()));
    }
    if (get(bytes.data(), 4) != w8a8sc::checksum(static_cast<uint32_t>(tile), bytes.subspan(4))) {
      fail(tile, "the checksum differs; its bytes are damaged");
    }
    const auto mode = static_cast<TileMode>(get(&bytes[4], 1));
    const uint32_t n_escapes = get(&bytes[6], 2);
    if (get(&bytes[5], 1) != 0 || (n_escapes != 0 && mode != TileMode::kRans)) {
      fail(tile, "its header is not possible");
    }
    const auto n_codes = static_cast<size_t>(reader_.grid_.extents(tile).n_codes());
    const auto payload = bytes.subspan(kTileHeaderSizeBytes);
    if (mode == TileMode::kRaw) {
      if (payload.size() != n_codes) {
        fail(tile, fmt::format("it holds {} codes instead of {}", payload.size(), n_codes));
      }
      std::memcpy(codes, payload.data(), n_codes);
    } else if (mode == TileMode::kRans && reader_.codec_ == W8A8scCodec::kRans) {
      begin_stream(tile, payload, n_escapes, {codes, n_codes});
    } else if (mode == TileMode::kDeflate && reader_.codec_ == W8A8scCodec::kDeflate) {
      if (inflater_ == nullptr) inflater_ = std::make_unique<Inflater>();
      if (!inflater_->decompress({reinterpret_cast<const uint8_t*>(payload.data()), payload.size()},
                                 {codes, n_codes})) {
        fail(tile, fmt::format("it is no DEFLATE stream of {} codes", n_codes));
      }
    } else {
      fail(tile, fmt::format("mode {} does not belong to codec {}", static_cast<int>(mode),
                             codec_name(reader_.codec_)));
    }
  }

  void begin_stream(int64_t tile, std::span<const std::byte> payload, size_t n_escapes,
                    std::span<uint8_t> codes) {
    const size_t n_outside = w8a8sc::kStatesSizeBytes + n_escapes;
    if (payload.size() < n_outside || (payload.size() - n_outside) % 2 != 0) {
      fail(tile, fmt::format("{} bytes cannot hold its states, words and {} escaped codes",
                             payload.size(), n_escapes));
    }
    const auto n_codes = static_cast<int64_t>(codes.size());
    if (n_pending_ > 0 && pending_.front().n_codes != n_codes) finish_pending();

    const auto i = static_cast<size_t>(n_pending_++);
    Pending& pending = pending_.at(i);
    RansStream& stream = streams_.at(i);
    pending.tile = tile;
    pending.n_codes = n_codes;
    pending.escapes = payload.last(n_escapes);
    for (size_t lane = 0; lane < kRansLanes; ++lane) {
      stream.states[lane] = get(&payload[4 * lane], 4);
    }
    const auto words = payload.subspan(w8a8sc::kStatesSizeBytes, payload.size() - n_outside);
    stream.n_words = static_cast<int64_t>(words.size() / 2);
    stream.codes = codes.data();
    const std::byte* begin = words.data();
    const auto& weight = reader_.tensors_.weight;
    const auto n_behind = (weight.data() + weight.size()) - (begin + words.size());
    if (n_behind < kRansReadAhead) {
      pending.padded_words.assign(words.begin(), words.end());
      pending.padded_words.resize(words.size() + kRansReadAhead);
      begin = pending.padded_words.data();
    }
    stream.words = reinterpret_cast<const unsigned char*>(begin);
  }

  void finish_pending() {
    if (n_pending_ == 0) return;
    kernels_.decode(reader_.slots_->data(), streams_.data(), n_pending_, pending_.front().n_codes);
    for (size_t i = 0; i < static_cast<size_t>(n_pending_); ++i) {
      if (!streams_.at(i).complete) fail(pending_.at(i).tile, "its stream does not end as it must");
      put_escapes(pending_.at(i), streams_.at(i).codes);
    }
    n_pending_ = 0;
  }

  // Puts each escaped code where the decoder found an escape.
  void put_escapes(const Pending& pending, uint8_t* codes) const {
    if (!reader_.model_->has_escape) {
      if (!pending.escapes.empty()) fail(pending.tile, "it has escaped codes, but no escape");
      return;
    }
    uint8_t* next = codes;
    uint8_t* const end = codes + pending.n_codes;
    for (const std::byte escape : pending.escapes) {
      next = find_escape(next, end);
      if (next == end) fail(pending.tile, "it has more escaped codes than escapes");
      *next++ = std::to_integer<uint8_t>(escape);
    }
    if (find_escape(next, end) != end)
      fail(pending.tile, "it has fewer escaped codes than escapes");
  }

  [[nodiscard]] uint8_t* find_escape(uint8_t* begin, uint8_t* end) const {
    void* found = std::memchr(begin, reader_.model_->escape_code, static_cast<size_t>(end - begin));
    return found != nullptr ? static_cast<uint8_t*>(found) : end;
  }

  const CompressedReader& reader_;
  const RansKernels& kernels_;
  std::unique_ptr<Inflater> inflater_;
  std::array<Pending, kGroupTiles> pending_;
  std::array<RansStream, kGroupTiles> streams_{};
  int64_t n_pending_ = 0;
};

CompressedReader::CompressedReader(const CompressedView& tensors)
    : tensors_(tensors), grid_(TileGrid::from_info(tensors.info)) {
  const size_t header_size = parse_header();
  ranges_ = formats::parse_tile_index(tensors.index, grid_, tensors.weight.size());
  if (ranges_.front().offset != header_size) {
    throw bad_input(fmt::format("index: the first tile begins at byte {} instead of {}",
                                ranges_.front().offset, header_size));
  }
}

size_t CompressedReader::parse_header() {
  const auto& weight = tensors_.weight;
  if (weight.size() < kTableOffset + w8a8sc::kChecksumSizeBytes ||
      std::memcmp(weight.data(), w8a8sc::kMagic.data(), w8a8sc::kMagic.size()) != 0) {
    throw bad_input(
        "weight does not begin with the header of llmq's codecs; what Ascend's own compressor "
        "wrote can only be read by its hardware");
  }
  const uint32_t version = get(&weight[4], 1);
  if (version != w8a8sc::kVersion) {
    throw bad_input(
        fmt::format("weight has version {} of the bitstream; this llmq reads version {}", version,
                    w8a8sc::kVersion));
  }
  const size_t size = get(&weight[6], 2);
  const size_t checksum_offset = size - w8a8sc::kChecksumSizeBytes;
  if (size < kTableOffset + w8a8sc::kChecksumSizeBytes || size > weight.size() ||
      get(&weight[checksum_offset], 4) != w8a8sc::checksum(0, weight.first(checksum_offset))) {
    throw bad_input("the checksum of the header of weight differs; its bytes are damaged");
  }
  const uint32_t codec = get(&weight[5], 1);
  if (codec != static_cast<uint32_t>(W8A8scCodec::kRans) &&
      codec != static_cast<uint32_t>(W8A8scCodec::kDeflate)) {
    throw bad_input(
        fmt::format("weight is coded with codec {}, which this llmq does not know", codec));
  }
  codec_ = static_cast<W8A8scCodec>(codec);
  const int64_t n = get(&weight[8], 4);
  const int64_t k = get(&weight[12], 4);
  if (n != grid_.n() || k != grid_.k()) {
    throw bad_input(fmt::format("weight holds a matrix of {} by {}, but info says {} by {}", n, k,
                                grid_.n(), grid_.k()));
  }
  const auto table = weight.subspan(kTableOffset, checksum_offset - kTableOffset);
  if (codec_ == W8A8scCodec::kRans) {
    model_ = parse_rans_model(table);
    slots_ = std::make_unique<const RansSlotTable>(make_rans_slots(*model_));
  } else if (!table.empty()) {
    throw bad_input("the header of weight has a table, which deflate does not use");
  }
  return size;
}

void CompressedReader::decode_tiles(int64_t first, int64_t count, std::span<int8_t> codes,
                                    Isa isa) const {
  if (first < 0 || count < 0 || first > grid_.n_tiles() || count > grid_.n_tiles() - first ||
      static_cast<int64_t>(codes.size()) < count * TileGrid::kTileCodes) {
    throw formats::Error(formats::ErrorCode::kInternal,
                         fmt::format("{} tiles from {} on do not fit into {} codes, or there are "
                                     "only {}",
                                     count, first, codes.size(), grid_.n_tiles()));
  }
  TileDecoder decoder(*this, isa);
  for (int64_t i = 0; i < count; i += kGroupTiles) {
    decoder.decode(first + i, std::min(kGroupTiles, count - i),
                   codes.data() + i * TileGrid::kTileCodes);
  }
}

// What a thread of decode or verify needs.
struct CompressedReader::Worker {
  Worker(const CompressedReader& reader, Isa isa)
      : decoder(reader, isa), codes(kGroupTiles * TileGrid::kTileCodes) {}

  TileDecoder decoder;
  std::vector<int8_t> codes;
};

template <typename Fn>
void CompressedReader::for_each_group(ThreadTeam& team, Isa isa, Fn&& fn) const {
  std::vector<std::unique_ptr<Worker>> workers(static_cast<size_t>(team.n_threads()));
  const int64_t n_groups = (grid_.n_tiles() + kGroupTiles - 1) / kGroupTiles;
  team.parallel_for(n_groups, [&](int64_t group, int thread_index) {
    auto& worker = workers[static_cast<size_t>(thread_index)];
    if (worker == nullptr) worker = std::make_unique<Worker>(*this, isa);
    const int64_t first = group * kGroupTiles;
    fn(first, std::min(kGroupTiles, grid_.n_tiles() - first), *worker);
  });
}

void CompressedReader::decode(const formats::Codes& codes, ThreadTeam& team, Isa isa) const {
  if (codes.n != grid_.n() || codes.k != grid_.k() || codes.stride < codes.k) {
    throw extents_error(grid_, codes);
  }
  for_each_group(team, isa, [&](int64_t first, int64_t count, Worker& worker) {
    worker.decoder.decode(first, count, worker.codes.data());
    for (int64_t i = 0; i < count; ++i) {
      formats::scatter_tile(worker.codes.data() + i * TileGrid::kTileCodes,
                            grid_.extents(first + i), codes);
    }
  });
}

void CompressedReader::verify(ThreadTeam& team, Isa isa) const {
  std::vector<std::string> damages(static_cast<size_t>(grid_.n_tiles()));
  // What is wrong with tiles [first, first + count), or nothing.
  const auto damage_of = [](int64_t first, int64_t count, Worker& worker) -> std::string {
    try {
      worker.decoder.decode(first, count, worker.codes.data());
    } catch (const formats::Error& error) {
      if (error.code() != formats::ErrorCode::kBadInput) throw;
      return error.what();
    }
    return {};
  };
  for_each_group(team, isa, [&](int64_t first, int64_t count, Worker& worker) {
    if (damage_of(first, count, worker).empty()) return;
    for (int64_t tile = first; tile < first + count; ++tile) {
      damages[static_cast<size_t>(tile)] = damage_of(tile, 1, worker);
    }
  });
  const auto is_damaged = [](const std::string& damage) { return !damage.empty(); };
  const auto n_damaged = std::count_if(damages.begin(), damages.end(), is_damaged);
  if (n_damaged == 0) return;
  const auto first = std::find_if(damages.begin(), damages.end(), is_damaged);
  throw bad_input(
      fmt::format("{} ({} of {} tiles are damaged)", *first, n_damaged, grid_.n_tiles()));
}

}  // namespace llmq::quant
