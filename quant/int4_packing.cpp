#include "quant/int4_packing.h"

#include <fmt/format.h>

#include <string_view>

#include "formats/error.h"

namespace llmq::quant {
namespace {

void check_extents(std::string_view what, int64_t paired, size_t size, int64_t expected) {
  if (paired % 2 != 0) {
    throw formats::bad_input(
        fmt::format("{} {} cannot be packed in pairs of int4: the number is odd", paired, what));
  }
  if (size == static_cast<size_t>(expected)) return;
  throw formats::Error(formats::ErrorCode::kInternal,
                       fmt::format("{} elements given for {} of int4", size, expected));
}

uint8_t pair_of(int8_t low, int8_t high) {
  if (low < -8 || low > 7 || high < -8 || high > 7) {
    throw formats::bad_input(
        fmt::format("code {} does not fit into 4 bits", low < -8 || low > 7 ? low : high));
  }
  return static_cast<uint8_t>((static_cast<unsigned>(high) & 0xFU) << 4 |
                              (static_cast<unsigned>(low) & 0xFU));
}

int8_t low_code(uint8_t pair) {
  return static_cast<int8_t>(static_cast<int8_t>(pair << 4) >> 4);
}

int8_t high_code(uint8_t pair) {
  return static_cast<int8_t>(static_cast<int8_t>(pair) >> 4);
}

}  // namespace

std::vector<uint8_t> pack_int4_per_channel(std::span<const int8_t> codes, int64_t n, int64_t k) {
  check_extents("columns", k, codes.size(), n * k);
  std::vector<uint8_t> packed(codes.size() / 2);
  for (size_t i = 0; i < packed.size(); ++i) packed[i] = pair_of(codes[2 * i], codes[2 * i + 1]);
  return packed;
}

std::vector<uint8_t> pack_int4_per_group(std::span<const int8_t> codes, int64_t n, int64_t k) {
  check_extents("rows", n, codes.size(), n * k);
  const auto n_cols = static_cast<size_t>(k);
  std::vector<uint8_t> packed(codes.size() / 2);
  for (size_t i = 0; i < packed.size(); ++i) {
    const size_t low = i / n_cols * 2 * n_cols + i % n_cols;
    packed[i] = pair_of(codes[low], codes[low + n_cols]);
  }
  return packed;
}

std::vector<int8_t> unpack_int4_per_channel(std::span<const uint8_t> packed, int64_t n, int64_t k) {
  check_extents("columns", k, packed.size(), n * k / 2);
  std::vector<int8_t> codes(packed.size() * 2);
  for (size_t i = 0; i < packed.size(); ++i) {
    codes[2 * i] = low_code(packed[i]);
    codes[2 * i + 1] = high_code(packed[i]);
  }
  return codes;
}

std::vector<int8_t> unpack_int4_per_group(std::span<const uint8_t> packed, int64_t n, int64_t k) {
  check_extents("rows", n, packed.size(), n * k / 2);
  const auto n_cols = static_cast<size_t>(k);
  std::vector<int8_t> codes(packed.size() * 2);
  for (size_t i = 0; i < packed.size(); ++i) {
    const size_t low = i / n_cols * 2 * n_cols + i % n_cols;
    codes[low] = low_code(packed[i]);
    codes[low + n_cols] = high_code(packed[i]);
  }
  return codes;
}

}  // namespace llmq::quant
