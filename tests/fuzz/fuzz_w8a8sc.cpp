// The reader of compressed matrices on arbitrary bytes. The first byte says what the others are:
//   bit 0: with checksums made right, so that what lies behind them is reached
//   bit 1: codes to compress and read back instead; bit 2: by deflate
// Then, for reading: n, k and the size of the index (2 bytes each), the index, the weight.

#include <zlib.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <span>
#include <vector>

#include "formats/error.h"
#include "quant/codec/w8a8sc.h"

namespace {

using llmq::formats::Error;
using llmq::formats::ErrorCode;
using llmq::quant::CompressedCodes;
using llmq::quant::CompressedReader;
using llmq::quant::Isa;
using llmq::quant::ThreadTeam;

constexpr int64_t kMostCodes = 1 << 20;  // of a matrix that a few bytes claim to hold

void require(bool condition) {
  if (!condition) std::abort();
}

ThreadTeam& team() {
  static ThreadTeam one(1);
  return one;
}

uint32_t number(std::span<const std::byte> bytes, size_t position, size_t size) {
  uint32_t value = 0;
  for (size_t i = size; i-- > 0;) {
    value = value << 8 | std::to_integer<uint32_t>(bytes[position + i]);
  }
  return value;
}

// Writes the checksum of bytes [begin, end) to position `to`.
void mend(std::vector<std::byte>& bytes, size_t begin, size_t end, size_t to, uint32_t start) {
  const auto* data = reinterpret_cast<const Bytef*>(bytes.data());
  const auto checksum =
      static_cast<uint32_t>(crc32(start, data + begin, static_cast<uInt>(end - begin)));
  std::memcpy(bytes.data() + to, &checksum, 4);
}

void mend_checksums(CompressedCodes& input) {
  std::vector<std::byte>& weight = input.weight;
  if (weight.size() < 8) return;
  for (size_t tile = 0; tile < input.index.size() / 8; ++tile) {
    const size_t offset = number(input.index, 8 * tile, 4);
    const size_t end = offset + number(input.index, 8 * tile + 4, 4);
    if (end <= weight.size() && end - offset >= 4) {
      mend(weight, offset + 4, end, offset, static_cast<uint32_t>(tile));
    }
  }
  const size_t header_size = number(weight, 6, 2);
  if (header_size >= 12 && header_size <= weight.size()) {
    mend(weight, 0, header_size - 4, header_size - 4, 0);
  }
}

// The codes, or nothing where the input is refused.
std::vector<int8_t> read(const CompressedReader& reader, Isa isa) {
  const int64_t n = reader.grid().n();
  const int64_t k = reader.grid().k();
  std::vector<int8_t> codes(static_cast<size_t>(n * k));
  try {
    reader.decode({codes.data(), n, k, k}, team(), isa);
  } catch (const Error& error) {
    require(error.code() == ErrorCode::kBadInput);
    return {};
  }
  return codes;
}

void read_input(CompressedCodes input, bool with_right_checksums) {
  if (with_right_checksums) mend_checksums(input);
  input.weight.shrink_to_fit();
  try {
    const CompressedReader reader({input.weight, input.index, input.info});
    if (reader.grid().n() * reader.grid().k() > kMostCodes) return;
    const std::vector<int8_t> expected = read(reader, Isa::kScalar);
    for (const Isa isa : llmq::quant::supported_isas()) require(read(reader, isa) == expected);
  } catch (const Error& error) {
    require(error.code() == ErrorCode::kBadInput);
  }
}

void compress_and_read(std::span<const uint8_t> bytes, bool deflate) {
  if (bytes.size() < 2) return;
  const int64_t k = 1 + bytes[0] + 3 * bytes[1];
  const auto n = static_cast<int64_t>(bytes.size() - 2) / k;
  if (n == 0) return;
  const auto* codes = reinterpret_cast<const int8_t*>(bytes.data() + 2);
  const CompressedCodes compressed = llmq::quant::compress_codes(
      {codes, n, k, k},
      deflate ? llmq::quant::W8A8scCodec::kDeflate : llmq::quant::W8A8scCodec::kRans, team());
  const CompressedReader reader({compressed.weight, compressed.index, compressed.info});
  for (const Isa isa : llmq::quant::supported_isas()) {
    const std::vector<int8_t> again = read(reader, isa);
    require(std::equal(again.begin(), again.end(), codes, codes + n * k));
  }
}

}  // namespace

// NOLINTNEXTLINE(readability-identifier-naming): the name is libFuzzer's.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 7) return 0;
  const uint8_t flags = data[0];
  if ((flags & 2) != 0) {
    compress_and_read({data + 1, size - 1}, (flags & 4) != 0);
    return 0;
  }
  const std::span<const std::byte> bytes = std::as_bytes(std::span(data, size));
  const size_t index_size = std::min<size_t>(number(bytes, 5, 2), size - 7);
  CompressedCodes input;
  input.info = {8, 8, number(bytes, 3, 2), number(bytes, 1, 2), 1};
  const auto index = bytes.subspan(7, index_size);
  const auto weight = bytes.subspan(7 + index_size);
  input.index.assign(index.begin(), index.end());
  input.weight.assign(weight.begin(), weight.end());
  read_input(std::move(input), (flags & 1) != 0);
  return 0;
}
