#pragma once

#include <cstdint>

#include "quant/kernels/isa.h"

/// Decoding of interleaved range asymmetric numeral systems (Duda, arXiv 1311.2540; interleaving
/// after Giesen, arXiv 1402.3392). Free of library code, because files compiled for one instruction
/// set include it. The bytes are described in docs/w8a8sc.md.
namespace llmq::quant {

/// States of a stream; code i belongs to lane i mod kRansLanes.
inline constexpr int kRansLanes = 16;
/// The frequencies of a table sum to 2^kRansSlotBits.
inline constexpr int kRansSlotBits = 12;
inline constexpr int kRansSlots = 1 << kRansSlotBits;
/// Least state; below it a decoder takes 16 bits from the stream. Every lane ends at this value.
inline constexpr uint32_t kRansLow = uint32_t{1} << 16;
/// Bytes behind the words of a stream that decoders may read, whatever they hold.
inline constexpr int64_t kRansReadAhead = 64;
/// The number of codes in a stream is a multiple of this.
inline constexpr int64_t kRansCodeMultiple = 32;

/// What a slot s of a table stands for: the code that owns the slot, its frequency f and the first
/// of its slots a, as (f − 1) · 2^20 + (s − a) · 2^8 + code.
constexpr uint32_t rans_slot(uint32_t frequency, uint32_t rank, uint32_t code) {
  return (frequency - 1) << 20 | rank << 8 | code;
}

/// One stream to decode.
struct RansStream {
  const unsigned char* words;   ///< [n_words] little-endian uint16 at any alignment, and
                                ///< kRansReadAhead readable bytes behind them
  int64_t n_words;              ///< at least 0
  uint32_t states[kRansLanes];  ///< the first states; overwritten
  uint8_t* codes;               ///< [n_codes], written
  bool complete;  ///< written: all words were used, none was missing, all lanes ended at kRansLow
};

/// The decoder of one instruction set.
struct RansKernels {
  Isa isa;

  /// Decodes n_streams streams of n_codes codes each (a multiple of kRansCodeMultiple) with one
  /// table, slots [kRansSlots]. Whatever the words, states and slots hold, it writes n_codes bytes
  /// per stream and reads nothing outside the arrays named above. All implementations agree in
  /// `complete`, and in codes where that is true; otherwise codes are unspecified. Thread safe.
  void (*decode)(const uint32_t* slots, RansStream* streams, int64_t n_streams, int64_t n_codes);
};

/// The decoder for `isa`: its own or that of the best lower instruction set. Throws Error{kUsage}
/// when this machine does not support `isa`. Thread safe.
const RansKernels& rans_kernels(Isa isa);

namespace detail {
extern const RansKernels kRansScalar;
extern const RansKernels kRansAvx2;
extern const RansKernels kRansAvx512;
}  // namespace detail

}  // namespace llmq::quant
