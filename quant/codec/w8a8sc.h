#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "formats/w8a8sc.h"
#include "quant/codec/rans_model.h"
#include "quant/kernels/cpu.h"
#include "quant/kernels/thread_team.h"

/// Lossless compression of the int8 codes of W8A8S: each tile on its own, order 0, in the container
/// of formats/w8a8sc.h. docs/w8a8sc.md describes every byte.
namespace llmq::quant {

/// The codec of a matrix; the value is that of its header.
enum class W8A8scCodec : uint8_t {
  kRans = 1,    ///< our own: rANS, one table per matrix
  kDeflate = 2  ///< raw DEFLATE, Huffman only, one table per tile
};

/// "rans" or "deflate": the spelling of --codec.
std::string_view codec_name(W8A8scCodec codec);
/// The inverse. Throws Error{kUsage} with the known names.
W8A8scCodec parse_codec(std::string_view name);
/// How the description file marks the codec: its name with the version of the bitstream, "rans-1"
/// or "deflate-1".
std::string_view codec_mark(W8A8scCodec codec);

/// A compressed matrix: the three tensors of a linear.
struct CompressedCodes {
  std::vector<std::byte> weight;  ///< int8 [c]
  std::vector<std::byte> index;   ///< int8 [8 · tiles]
  std::array<int64_t, 5> info{};  ///< int64 [5]
};

/// Takes the bytes of the tensor `weight` as they are made.
class CompressedSink {
 public:
  CompressedSink() = default;
  virtual ~CompressedSink() = default;
  CompressedSink(const CompressedSink&) = delete;
  CompressedSink& operator=(const CompressedSink&) = delete;

  /// The tensor has at least `size_bytes`, more than in the call before. Called by one thread,
  /// while no write is under way and before any write up to there.
  virtual void extend(uint64_t size_bytes) = 0;
  /// Bytes of the tensor, valid during the call. Called for one range at a time, by any thread of
  /// the team, once for each byte.
  virtual void write(uint64_t offset_bytes, std::span<const std::byte> bytes) = 0;
};

/// What compression gives beside the tensor `weight`.
struct CompressionResult {
  uint64_t weight_size_bytes = 0;
  std::vector<std::byte> index;   ///< int8 [8 · tiles]
  std::array<int64_t, 5> info{};  ///< int64 [5]
  CodeHistogram histogram{};      ///< of the matrix, without padding
};

/// Compresses a matrix into a sink. The bytes depend on the codes and the codec alone. Takes 8 MiB
/// and a little per thread, whatever the matrix. Throws Error{kBadInput} where the grid does not
/// allow the extents or the result would pass 4 GiB, which an index cannot address;
/// Error{kInternal} where the stride is less than k; what the sink throws.
CompressionResult compress_codes(const formats::ConstCodes& codes, W8A8scCodec codec,
                                 ThreadTeam& team, CompressedSink& sink);

/// The same into memory, which it takes beside.
CompressedCodes compress_codes(const formats::ConstCodes& codes, W8A8scCodec codec,
                               ThreadTeam& team);

/// The most bytes that `weight` of a matrix with this grid can take.
uint64_t most_compressed_bytes(const formats::TileGrid& grid);

/// How often each code occurs in a matrix, without padding. Work is divided over `team`.
CodeHistogram count_codes(const formats::ConstCodes& codes, ThreadTeam& team);

/// The tensors of a compressed matrix where they lie, for example in a mapped file.
struct CompressedView {
  std::span<const std::byte> weight;
  std::span<const std::byte> index;
  std::span<const int64_t> info;
};

/// Reads a compressed matrix. The tensors must outlive it. Nothing is believed: every offset, size
/// and table is checked before use, every tile has a checksum, and no input makes it read or write
/// outside its arrays. Immutable; const members are thread safe.
class CompressedReader {
 public:
  /// Checks `info`, the header of `weight` with its checksum, and `index`; tiles are checked when
  /// they are decoded. Throws Error{kBadInput}.
  explicit CompressedReader(const CompressedView& tensors);

  [[nodiscard]] const formats::TileGrid& grid() const { return grid_; }
  [[nodiscard]] W8A8scCodec codec() const { return codec_; }
  /// The model of the rANS codec; none for deflate.
  [[nodiscard]] const std::optional<RansModel>& model() const { return model_; }

  /// Writes the matrix [n, k] to `codes`. Throws Error{kBadInput} that names the first damaged
  /// tile, whatever the number of threads, and Error{kInternal} where the extents differ.
  void decode(const formats::Codes& codes, ThreadTeam& team, Isa isa = active_isa()) const;

  /// Decodes tiles [first, first + count) in stored order (see formats::gather_tile) with padding:
  /// tile first + i to codes[i · TileGrid::kTileCodes] and behind, `codes` being count such places.
  /// On this thread alone; four whole tiles a call are enough for full speed. Throws as decode
  /// does.
  void decode_tiles(int64_t first, int64_t count, std::span<int8_t> codes,
                    Isa isa = active_isa()) const;

  /// Decodes every tile and keeps nothing. Throws Error{kBadInput} that names the first damaged
  /// tile and says how many there are.
  void verify(ThreadTeam& team, Isa isa = active_isa()) const;

 private:
  class TileDecoder;
  struct Worker;

  size_t parse_header();
  template <typename Fn>
  void for_each_group(ThreadTeam& team, Isa isa, Fn&& fn) const;

  CompressedView tensors_;
  formats::TileGrid grid_;
  W8A8scCodec codec_ = W8A8scCodec::kRans;
  std::optional<RansModel> model_;
  std::unique_ptr<const RansSlotTable> slots_;  // where there is a model
  std::vector<formats::TileRange> ranges_;
};

}  // namespace llmq::quant
