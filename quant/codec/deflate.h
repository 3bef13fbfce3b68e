#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

namespace llmq::quant {

/// Raw DEFLATE (RFC 1951) by zlib, Huffman codes only: searching for repetitions costs time and, on
/// codes of weights, a fifth more space. For one thread at a time.
class Deflater {
 public:
  /// Throws Error{kMemory} where zlib gets no memory.
  Deflater();
  ~Deflater();
  Deflater(const Deflater&) = delete;
  Deflater& operator=(const Deflater&) = delete;

  /// The compressed bytes, valid until the next call. `bytes` has fewer than 2^30.
  std::span<const uint8_t> compress(std::span<const uint8_t> bytes);

 private:
  struct Stream;
  std::unique_ptr<Stream> stream_;
  std::vector<uint8_t> buffer_;
};

/// The inverse; reads any raw DEFLATE stream. For one thread at a time.
class Inflater {
 public:
  /// Throws Error{kMemory} where zlib gets no memory.
  Inflater();
  ~Inflater();
  Inflater(const Inflater&) = delete;
  Inflater& operator=(const Inflater&) = delete;

  /// True when `compressed` is one whole stream, no byte more, that gives exactly as many bytes as
  /// `bytes` has; they are then written there. Both have fewer than 2^30.
  bool decompress(std::span<const uint8_t> compressed, std::span<uint8_t> bytes);

 private:
  struct Stream;
  std::unique_ptr<Stream> stream_;
};

}  // namespace llmq::quant
