#include "quant/kernels/gemm_w8a8sc/packed_w8a8sc.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

#include "formats/error.h"
#include "quant/kernels/gemm_w8a8/kernels.h"
#include "quant/kernels/gemm_w8a8sc/kernels.h"

namespace llmq::quant {
namespace {

constexpr int64_t kLineCodes = int64_t{kPanelCols} * kGroup;
constexpr int64_t kStripPanels = PackedW8A8sc::kSourceRows / kPanelCols;

int64_t round_up(int64_t value, int64_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

// Rejects what is negative, does not fit together, or overflows when padded.
void check_extents(int64_t n, int64_t k, int64_t row_stride) {
  int64_t padded_n = 0;
  int64_t padded_k = 0;
  int64_t size = 0;
  const bool fits = n >= 0 && k >= 0 && (n <= 1 || row_stride >= k) &&
                    !__builtin_add_overflow(n, int64_t{kPanelCols}, &padded_n) &&
                    !__builtin_add_overflow(k, int64_t{kPackedKMultiple}, &padded_k) &&
                    !__builtin_mul_overflow(padded_n, padded_k, &size) &&
                    !__builtin_mul_overflow(size, int64_t{2}, &size);
  if (!fits) {
    throw formats::Error(
        formats::ErrorCode::kInternal,
        fmt::format("PackedW8A8sc: [{}, {}] with row stride {} is no matrix", n, k, row_stride));
  }
}

bool is_escaped(int8_t code) {
  return code < -7 || code > 7;
}

// A line of the panel whose rows are given, with zeros where there are none.
struct PanelRows {
  const int8_t* data;
  int64_t n_rows;
  int64_t k;
  int64_t stride;

  void gather(int64_t line, int8_t* codes) const {
    const int64_t first = line * kGroup;
    const int64_t count = std::clamp<int64_t>(k - first, 0, kGroup);
    if (n_rows < kPanelCols || count < kGroup) std::memset(codes, 0, kLineCodes);
    for (int64_t row = 0; row < n_rows && count > 0; ++row) {
      std::memcpy(codes + row * kGroup, data + row * stride + first, static_cast<size_t>(count));
    }
  }
};

// The nibbles of a line; says whether any code is escaped.
bool to_nibbles(const int8_t* codes, uint8_t* nibbles) {
  uint8_t any = 0;
  for (int64_t i = 0; i < kLineCodes; ++i) {
    const auto escaped = static_cast<uint8_t>(is_escaped(codes[i]) ? 1 : 0);
    nibbles[i] = escaped != 0 ? uint8_t{8} : static_cast<uint8_t>(codes[i] & 15);
    any |= escaped;
  }
  return any != 0;
}

// Appends a panel to `out` and returns the number of its escapes.
int64_t append_panel(const PanelRows& rows, int64_t n_lines, std::vector<int8_t>& out) {
  std::vector<int8_t> escapes;
  std::vector<int8_t> packed(static_cast<size_t>(n_lines * kLineCodes / 2));
  std::array<int8_t, kLineCodes> codes{};
  std::array<std::array<uint8_t, kLineCodes>, 2> nibbles{};
  for (int64_t line = 0; line < n_lines; line += 2) {
    for (int64_t half = 0; half < 2; ++half) {
      rows.gather(line + half, codes.data());
      if (!to_nibbles(codes.data(), nibbles[static_cast<size_t>(half)].data())) continue;
      std::copy_if(codes.begin(), codes.end(), std::back_inserter(escapes), is_escaped);
    }
    int8_t* to = packed.data() + line * kLineCodes / 2;
    for (size_t i = 0; i < kLineCodes; ++i)
      to[i] = static_cast<int8_t>(nibbles[0][i] | nibbles[1][i] << 4);
  }
  const auto n_escapes = static_cast<int64_t>(escapes.size());
  escapes.resize(static_cast<size_t>(round_up(n_escapes, kEscapesMultiple)));
  out.insert(out.end(), escapes.begin(), escapes.end());
  out.insert(out.end(), packed.begin(), packed.end());
  return n_escapes;
}

int32_t sum_of(const int8_t* codes, int64_t count) {
  uint32_t sum = 0;
  for (int64_t i = 0; i < count; ++i) sum += static_cast<uint32_t>(codes[i]);
  return static_cast<int32_t>(sum);
}

}  // namespace

// Some panels one after the other, before it is known where they go.
struct PackedW8A8sc::Strip {
  std::vector<int8_t> bytes;
  std::array<int64_t, kStripPanels> panel_ends{};
  int64_t n_escapes = 0;
};

PackedW8A8sc::PackedW8A8sc(PackedW8A8sc&& other) noexcept
    : n_(std::exchange(other.n_, 0)),
      k_(std::exchange(other.k_, 0)),
      n_escapes_(std::exchange(other.n_escapes_, 0)),
      data_(std::move(other.data_)),
      panel_offsets_(std::move(other.panel_offsets_)),
      row_sums_(std::move(other.row_sums_)) {}

PackedW8A8sc& PackedW8A8sc::operator=(PackedW8A8sc&& other) noexcept {
  n_ = std::exchange(other.n_, 0);
  k_ = std::exchange(other.k_, 0);
  n_escapes_ = std::exchange(other.n_escapes_, 0);
  data_ = std::move(other.data_);
  panel_offsets_ = std::move(other.panel_offsets_);
  row_sums_ = std::move(other.row_sums_);
  return *this;
}

PackedW8A8sc::PackedW8A8sc(int64_t n, int64_t k) : n_(n), k_(k) {
  panel_offsets_.resize(static_cast<size_t>(n_panels()) + 1);
  row_sums_.resize(static_cast<size_t>(n_panels() * kPanelCols));
}

// `rows` gives the first of some rows and their stride.
template <typename Rows>
PackedW8A8sc PackedW8A8sc::pack_strips(int64_t n, int64_t k, ThreadTeam& team, const Rows& rows) {
  PackedW8A8sc packed(n, k);
  if (n == 0 || k == 0) return packed;
  std::vector<Strip> strips(static_cast<size_t>(round_up(n, kSourceRows) / kSourceRows));
  team.parallel_for(static_cast<int64_t>(strips.size()), [&](int64_t index, int thread) {
    Strip& strip = strips[static_cast<size_t>(index)];
    const int64_t first = index * kSourceRows;
    const int64_t n_rows = std::min(kSourceRows, n - first);
    const auto [data, stride] = rows(first, n_rows, thread);
    for (int64_t row = 0; row < n_rows; row += kPanelCols) {
      strip.n_escapes += append_panel(
          {data + row * stride, std::min<int64_t>(kPanelCols, n_rows - row), k, stride},
          packed.padded_k() / kGroup, strip.bytes);
      strip.panel_ends.at(static_cast<size_t>(row / kPanelCols)) =
          static_cast<int64_t>(strip.bytes.size());
    }
    for (int64_t row = 0; row < n_rows; ++row)
      packed.row_sums_[static_cast<size_t>(first + row)] = sum_of(data + row * stride, k);
  });
  packed.assemble(strips, team);
  return packed;
}

void PackedW8A8sc::assemble(const std::vector<Strip>& strips, ThreadTeam& team) {
  for (int64_t panel = 0; panel < n_panels(); ++panel) {
    const auto at = static_cast<size_t>(panel);
    const Strip& strip = strips[at / kStripPanels];
    const size_t place = at % kStripPanels;
    const int64_t begin = place == 0 ? 0 : strip.panel_ends.at(place - 1);
    panel_offsets_[at + 1] = panel_offsets_[at] + strip.panel_ends.at(place) - begin;
  }
  for (const Strip& strip : strips) n_escapes_ += strip.n_escapes;
  data_ = allocate_huge(static_cast<size_t>(panel_offsets_.back()));
  // Static: memory belongs to the NUMA node of the thread that touches it first.
  team.parallel_for(
      static_cast<int64_t>(strips.size()),
      [&](int64_t index, int) {
        const auto at = static_cast<size_t>(index);
        const std::vector<int8_t>& bytes = strips[at].bytes;
        std::copy(bytes.begin(), bytes.end(), data_.get() + panel_offsets_[at * kStripPanels]);
      },
      Partition::kStatic);
}

PackedW8A8sc PackedW8A8sc::pack(const int8_t* weights, int64_t n, int64_t k, int64_t row_stride,
                                ThreadTeam& team) {
  check_extents(n, k, row_stride);
  return pack_strips(n, k, team, [&](int64_t first, int64_t /*n_rows*/, int /*thread*/) {
    return std::pair{weights + first * row_stride, row_stride};
  });
}

PackedW8A8sc PackedW8A8sc::pack(int64_t n, int64_t k, const RowSource& rows, ThreadTeam& team) {
  check_extents(n, k, k);
  std::vector<std::vector<int8_t>> buffers(static_cast<size_t>(team.n_threads()));
  return pack_strips(n, k, team, [&](int64_t first, int64_t n_rows, int thread) {
    std::vector<int8_t>& buffer = buffers[static_cast<size_t>(thread)];
    buffer.resize(static_cast<size_t>(n_rows * k));
    rows(first, n_rows, buffer.data());
    return std::pair{static_cast<const int8_t*>(buffer.data()), k};
  });
}

uint64_t PackedW8A8sc::size_bytes() const {
  if (panel_offsets_.empty()) return 0;
  return static_cast<uint64_t>(panel_offsets_.back()) + panel_offsets_.size() * sizeof(int64_t) +
         row_sums_.size() * sizeof(int32_t);
}

void PackedW8A8sc::read_row(int64_t row, int8_t* codes) const {
  if (k_ == 0) return;
  const auto panel = static_cast<size_t>(row / kPanelCols);
  const int8_t* escapes = data_.get() + panel_offsets_[panel];
  const int8_t* nibbles = data_.get() + panel_offsets_[panel + 1] - nibbles_size_bytes();
  std::array<int8_t, 2 * kLineCodes> lines{};
  for (int64_t first = 0; first < k_; first += 2 * kGroup) {
    escapes = kExpandScalar.expand({nibbles + first * kPanelCols / 2, escapes, 2, lines.data()});
    for (int64_t i = 0; i < std::min<int64_t>(2 * kGroup, k_ - first); ++i) {
      const int64_t at = i / kGroup * kLineCodes + row % kPanelCols * kGroup + i % kGroup;
      codes[first + i] = lines.at(static_cast<size_t>(at));
    }
  }
}

int64_t PackedW8A8sc::n_panels() const {
  return round_up(n_, kPanelCols) / kPanelCols;
}

int64_t PackedW8A8sc::padded_k() const {
  return round_up(k_, kPackedKMultiple);
}

int64_t PackedW8A8sc::nibbles_size_bytes() const {
  return padded_k() * kPanelCols / 2;
}

}  // namespace llmq::quant
