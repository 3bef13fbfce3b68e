#include "quant/kernels/gemm_w4a16/packed_int4.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <utility>
#include <vector>

#include "formats/error.h"
#include "quant/kernels/gemm_w4a16/kernels.h"

namespace llmq::quant {
namespace {

using formats::Int4Layout;

int64_t round_up(int64_t value, int64_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

// Rejects what is negative, does not fit together, or overflows when padded.
void check_extents(size_t size_bytes, Int4Layout layout, int64_t n, int64_t k) {
  int64_t n_codes = 0;
  int64_t padded = 0;
  bool fits = n >= 0 && k >= 0 && !__builtin_add_overflow(n, kInt4PanelRows, &padded) &&
              !__builtin_add_overflow(k, kInt4BlockK, &padded) &&
              !__builtin_mul_overflow(n + kInt4PanelRows, k + kInt4BlockK, &padded) &&
              !__builtin_mul_overflow(n, k, &n_codes);
  if (layout == Int4Layout::kColumnPairs) fits = fits && k % 2 == 0;
  if (layout == Int4Layout::kRowPairs) fits = fits && n % 2 == 0;
  const int64_t per_byte = layout == Int4Layout::kOnePerByte ? 1 : 2;
  if (fits && static_cast<uint64_t>(n_codes / per_byte) == size_bytes) return;
  throw formats::Error(
      formats::ErrorCode::kInternal,
      fmt::format("PackedInt4: {} bytes hold no [{}, {}] codes of int4", size_bytes, n, k));
}

// One line from the nibbles of 128 codes, a byte each.
void pack_line(const uint8_t* nibbles, unsigned char* line) {
  for (int64_t pair = 0; pair < 4; ++pair) {
    const uint8_t* low = nibbles + 2 * pair * kLanes;
    const uint8_t* high = low + kLanes;
    for (int64_t i = 0; i < kLanes; ++i)
      line[4 * i + pair] = static_cast<unsigned char>(low[i] | high[i] << 4);
  }
}

}  // namespace

struct PackedInt4::Source {
  const uint8_t* data = nullptr;
  Int4Layout layout = Int4Layout::kOnePerByte;
  int64_t k = 0;

  // The k codes of a row as nibbles.
  void read_row(int64_t row, uint8_t* nibbles) const {
    switch (layout) {
      case Int4Layout::kOnePerByte:
        return read_bytes(row, nibbles);
      case Int4Layout::kColumnPairs: {
        const uint8_t* pairs = data + row * (k / 2);
        for (int64_t j = 0; j < k / 2; ++j) {
          nibbles[2 * j] = pairs[j] & 15U;
          nibbles[2 * j + 1] = pairs[j] >> 4;
        }
        return;
      }
      case Int4Layout::kRowPairs: {
        const uint8_t* pairs = data + row / 2 * k;
        const int shift = row % 2 == 0 ? 0 : 4;
        for (int64_t j = 0; j < k; ++j) nibbles[j] = static_cast<uint8_t>(pairs[j] >> shift & 15);
        return;
      }
    }
  }

  void read_bytes(int64_t row, uint8_t* nibbles) const {
    const uint8_t* codes = data + row * k;
    unsigned beyond = 0;
    for (int64_t j = 0; j < k; ++j) {
      beyond |= static_cast<uint8_t>(codes[j] + 8U) & 0xf0U;
      nibbles[j] = codes[j] & 15U;
    }
    if (beyond == 0) return;
    const uint8_t* wrong = std::find_if(
        codes, codes + k, [](uint8_t code) { return static_cast<uint8_t>(code + 8U) > 15; });
    throw formats::bad_input(fmt::format("holds {} at element {}; a code of int4 is from -8 to 7",
                                         static_cast<int8_t>(*wrong), wrong - data));
  }
};

PackedInt4::PackedInt4(PackedInt4&& other) noexcept
    : n_(std::exchange(other.n_, 0)),
      k_(std::exchange(other.k_, 0)),
      data_(std::move(other.data_)) {}

PackedInt4& PackedInt4::operator=(PackedInt4&& other) noexcept {
  n_ = std::exchange(other.n_, 0);
  k_ = std::exchange(other.k_, 0);
  data_ = std::move(other.data_);
  return *this;
}

PackedInt4::PackedInt4(int64_t n, int64_t k) : n_(n), k_(k) {
  const auto bytes = static_cast<size_t>(size_bytes());
  if (bytes > 0) data_ = allocate_huge(bytes);
}

PackedInt4 PackedInt4::pack(std::span<const std::byte> stored, Int4Layout layout, int64_t n,
                            int64_t k, ThreadTeam& team) {
  check_extents(stored.size(), layout, n, k);
  PackedInt4 packed(n, k);
  if (n == 0 || k == 0) return packed;
  const Source source{reinterpret_cast<const uint8_t*>(stored.data()), layout, k};
  // Static: memory belongs to the NUMA node of the thread that touches it first.
  team.parallel_for((n + kInt4PanelRows - 1) / kInt4PanelRows,
                    [&](int64_t panel, int) { packed.pack_panel(source, panel); },
                    Partition::kStatic);
  return packed;
}

void PackedInt4::pack_panel(const Source& source, int64_t panel) {
  static thread_local std::vector<uint8_t> nibbles;
  const int64_t n_blocks = row_size_bytes() / kInt4LineBytes;
  nibbles.assign(static_cast<size_t>(n_blocks * kInt4BlockK), 0);
  unsigned char* out =
      reinterpret_cast<unsigned char*>(data_.get()) + panel * kInt4PanelRows * row_size_bytes();
  for (int64_t i = 0; i < kInt4PanelRows; ++i) {
    const int64_t row = panel * kInt4PanelRows + i;
    if (row < n_) {
      source.read_row(row, nibbles.data());
    } else {
      std::fill(nibbles.begin(), nibbles.end(), uint8_t{0});
    }
    for (int64_t block = 0; block < n_blocks; ++block)
      pack_line(nibbles.data() + block * kInt4BlockK,
                out + (block * kInt4PanelRows + i) * kInt4LineBytes);
  }
}

uint64_t PackedInt4::size_bytes() const {
  return static_cast<uint64_t>(round_up(n_, kInt4PanelRows) * row_size_bytes());
}

int8_t PackedInt4::at(int64_t row, int64_t column) const {
  const WeightRows rows{.data = panels(), .row_size_bytes = row_size_bytes()};
  return static_cast<int8_t>(int4_code(rows, row, column));
}

int64_t PackedInt4::row_size_bytes() const {
  return round_up(k_, kInt4BlockK) / 2;
}

}  // namespace llmq::quant
