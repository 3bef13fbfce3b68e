#pragma once

#include <zlib.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "quant/kernels/rans/rans.h"

/// Places and constants of the W8A8SC bitstream that its writer and its reader share; see
/// docs/w8a8sc.md. Numbers are little-endian.
namespace llmq::quant::w8a8sc {

/// Header: magic, version (1 byte), codec (1), size of the header (2), n (4), k (4), the table of
/// the codec, CRC-32 of everything before it (4).
inline constexpr std::array<char, 4> kMagic{'L', 'Q', 'S', 'C'};
inline constexpr uint8_t kVersion = 1;
inline constexpr size_t kTableOffset = 16;
inline constexpr size_t kChecksumSizeBytes = 4;

/// Tile: CRC-32 of everything behind it, begun from the number of the tile (4), mode (1), zero (1),
/// number of escaped codes (2), payload.
inline constexpr size_t kTileHeaderSizeBytes = 8;
inline constexpr size_t kStatesSizeBytes = sizeof(uint32_t) * kRansLanes;
enum class TileMode : uint8_t { kRaw = 0, kRans = 1, kDeflate = 2 };

inline void put(uint32_t value, size_t size_bytes, std::byte* bytes) {
  for (size_t i = 0; i < size_bytes; ++i) bytes[i] = static_cast<std::byte>(value >> 8 * i & 0xff);
}

inline uint32_t get(const std::byte* bytes, size_t size_bytes) {
  uint32_t value = 0;
  for (size_t i = size_bytes; i-- > 0;) value = value << 8 | std::to_integer<uint32_t>(bytes[i]);
  return value;
}

/// zlib's CRC-32, continued from `start`.
inline uint32_t checksum(uint32_t start, std::span<const std::byte> bytes) {
  return static_cast<uint32_t>(
      crc32_z(start, reinterpret_cast<const Bytef*>(bytes.data()), bytes.size()));
}

}  // namespace llmq::quant::w8a8sc
