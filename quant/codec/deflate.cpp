#include "quant/codec/deflate.h"

#include <zlib.h>

#include "formats/error.h"

namespace llmq::quant {
namespace {

constexpr int kRawWindowBits = -15;  // negative: without zlib's header and checksum
constexpr int kMostMemory = 9;       // a whole tile then shares one table

[[noreturn]] void throw_no_memory() {
  throw formats::Error(formats::ErrorCode::kMemory, "zlib got no memory");
}

// zlib 1.2.13 does not write through next_in, but its declaration does not say so.
void set_input(z_stream& stream, std::span<const uint8_t> bytes) {
  stream.next_in = const_cast<Bytef*>(bytes.data());
  stream.avail_in = static_cast<uInt>(bytes.size());
}

void set_output(z_stream& stream, std::span<uint8_t> bytes) {
  stream.next_out = bytes.data();
  stream.avail_out = static_cast<uInt>(bytes.size());
}

}  // namespace

struct Deflater::Stream {
  z_stream z{};
};

Deflater::Deflater() : stream_(std::make_unique<Stream>()) {
  if (deflateInit2(&stream_->z, Z_DEFAULT_COMPRESSION, Z_DEFLATED, kRawWindowBits, kMostMemory,
                   Z_HUFFMAN_ONLY) != Z_OK) {
    throw_no_memory();
  }
}

Deflater::~Deflater() {
  deflateEnd(&stream_->z);
}

std::span<const uint8_t> Deflater::compress(std::span<const uint8_t> bytes) {
  z_stream& z = stream_->z;
  deflateReset(&z);
  buffer_.resize(deflateBound(&z, bytes.size()));
  set_input(z, bytes);
  set_output(z, buffer_);
  if (deflate(&z, Z_FINISH) != Z_STREAM_END) {
    throw formats::Error(formats::ErrorCode::kInternal, "zlib needs more space than it said");
  }
  return std::span(buffer_).first(buffer_.size() - z.avail_out);
}

struct Inflater::Stream {
  z_stream z{};
};

Inflater::Inflater() : stream_(std::make_unique<Stream>()) {
  if (inflateInit2(&stream_->z, kRawWindowBits) != Z_OK) throw_no_memory();
}

Inflater::~Inflater() {
  inflateEnd(&stream_->z);
}

bool Inflater::decompress(std::span<const uint8_t> compressed, std::span<uint8_t> bytes) {
  z_stream& z = stream_->z;
  inflateReset(&z);
  set_input(z, compressed);
  set_output(z, bytes);
  return inflate(&z, Z_FINISH) == Z_STREAM_END && z.avail_in == 0 && z.avail_out == 0;
}

}  // namespace llmq::quant
