#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace llmq::quant {

/// int4 codes (−8..7) two to a byte, in the packings of Ascend's quantized checkpoints: the first
/// of a pair in the low nibble, two's complement. All functions are thread-safe.

/// Pairs of neighbouring columns: codes [n, k] give bytes [n, k/2]; byte (r, j) holds codes (r, 2j)
/// and (r, 2j+1). For scales per output channel. Throws Error{kBadInput} where k is odd or a code
/// does not fit into 4 bits, Error{kInternal} where the span has another size.
std::vector<uint8_t> pack_int4_per_channel(std::span<const int8_t> codes, int64_t n, int64_t k);

/// Pairs of neighbouring rows: codes [n, k] give bytes [n/2, k]; byte (j, c) holds codes (2j, c)
/// and (2j+1, c). For scales per group. Throws as above, where n is odd.
std::vector<uint8_t> pack_int4_per_group(std::span<const int8_t> codes, int64_t n, int64_t k);

/// The inverse of pack_int4_per_channel: `packed` [n, k/2] gives codes [n, k]. Throws
/// Error{kBadInput} where k is odd, Error{kInternal} where the span has another size.
std::vector<int8_t> unpack_int4_per_channel(std::span<const uint8_t> packed, int64_t n, int64_t k);

/// The inverse of pack_int4_per_group: `packed` [n/2, k] gives codes [n, k]. Throws as above, where
/// n is odd.
std::vector<int8_t> unpack_int4_per_group(std::span<const uint8_t> packed, int64_t n, int64_t k);

}  // namespace llmq::quant
