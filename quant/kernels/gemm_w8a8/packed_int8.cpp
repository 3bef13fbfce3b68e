#include "quant/kernels/gemm_w8a8/packed_int8.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "formats/error.h"
#include "quant/kernels/gemm_w8a8/kernels.h"
#include "quant/kernels/gemm_w8a8/pack_kernels.h"

namespace llmq::quant {
namespace {

constexpr int64_t kLineBytes = 64;

int64_t round_up(int64_t value, int64_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

// Rejects what is negative, does not fit together, or overflows when padded.
void check_extents(int64_t n, int64_t k, int64_t row_stride) {
  int64_t padded_size = 0;
  const bool fits = n >= 0 && k >= 0 && (n <= 1 || row_stride >= k) &&
                    !__builtin_mul_overflow(n, k, &padded_size) &&
                    !__builtin_add_overflow(n, int64_t{kPanelCols}, &padded_size) &&
                    !__builtin_add_overflow(k, int64_t{kPackedKMultiple}, &padded_size) &&
                    !__builtin_mul_overflow(n + kPanelCols, k + kPackedKMultiple, &padded_size);
  if (!fits) {
    throw formats::Error(
        formats::ErrorCode::kInternal,
        fmt::format("PackedInt8: [{}, {}] with row stride {} is no matrix", n, k, row_stride));
  }
}

}  // namespace

PackedInt8::PackedInt8(PackedInt8&& other) noexcept
    : n_(std::exchange(other.n_, 0)),
      k_(std::exchange(other.k_, 0)),
      data_(std::move(other.data_)),
      row_sums_(std::move(other.row_sums_)) {}

PackedInt8& PackedInt8::operator=(PackedInt8&& other) noexcept {
  n_ = std::exchange(other.n_, 0);
  k_ = std::exchange(other.k_, 0);
  data_ = std::move(other.data_);
  row_sums_ = std::move(other.row_sums_);
  return *this;
}

PackedInt8::PackedInt8(int64_t n, int64_t k) : n_(n), k_(k) {
  const auto size_bytes = static_cast<size_t>(n_panels() * panel_size_bytes());
  if (size_bytes > 0) data_ = allocate_huge(size_bytes);
  row_sums_.resize(static_cast<size_t>(n_panels() * kPanelCols));
}

PackedInt8 PackedInt8::pack(const int8_t* weights, int64_t n, int64_t k, int64_t row_stride,
                            ThreadTeam& team, Isa isa) {
  check_extents(n, k, row_stride);
  PackedInt8 packed(n, k);
  if (n == 0 || k == 0) return packed;
  // Static: memory belongs to the NUMA node of the thread that touches it first.
  team.parallel_for(
      packed.n_panels(),
      [&](int64_t panel, int) {
        packed.pack_panel(weights, row_stride, panel, isa != Isa::kScalar);
      },
      Partition::kStatic);
  return packed;
}

void PackedInt8::pack_panel(const int8_t* weights, int64_t row_stride, int64_t panel,
                            bool is_wide) {
  int8_t* out = data_.get() + panel * panel_size_bytes();
  const int64_t n_rows = std::min<int64_t>(kPanelCols, n_ - panel * kPanelCols);
  const int8_t* first_row = weights + panel * kPanelCols * row_stride;
  int32_t* sums = row_sums_.data() + panel * kPanelCols;
  const int64_t n_whole_groups = k_ / kGroup;
  // Only lines without padding are written completely below.
  const int64_t first_padded = n_rows < kPanelCols ? 0 : n_whole_groups * kLineBytes;
  std::memset(out + first_padded, 0, static_cast<size_t>(panel_size_bytes() - first_padded));
  int64_t packed_k = 0;
  if (is_wide && n_rows == kPanelCols) {
    packed_k = k_ / kPackBlockK * kPackBlockK;
    pack_lines_avx2(first_row, row_stride, packed_k / kPackBlockK, out, sums);
  }
  for (int64_t group = packed_k / kGroup; group < n_whole_groups; ++group) {
    for (int64_t row = 0; row < n_rows; ++row) {
      std::memcpy(out + (group * kPanelCols + row) * kGroup,
                  first_row + row * row_stride + group * kGroup, kGroup);
    }
  }
  for (int64_t row = 0; row < n_rows; ++row) {
    const int8_t* from = first_row + row * row_stride;
    const int64_t tail = n_whole_groups * kGroup;
    std::copy(from + tail, from + k_, out + (n_whole_groups * kPanelCols + row) * kGroup);
    auto sum = static_cast<uint32_t>(sums[row]);
    for (int64_t i = packed_k; i < k_; ++i) sum += static_cast<uint32_t>(from[i]);
    sums[row] = static_cast<int32_t>(sum);
  }
}

uint64_t PackedInt8::size_bytes() const {
  return static_cast<uint64_t>(n_panels() * panel_size_bytes()) +
         row_sums_.size() * sizeof(int32_t);
}

int8_t PackedInt8::at(int64_t row, int64_t column) const {
  const int64_t line = column / kGroup * kPanelCols;
  return data_.get()[row / kPanelCols * panel_size_bytes() + (line + row % kPanelCols) * kGroup +
                     column % kGroup];
}

int64_t PackedInt8::n_panels() const {
  return round_up(n_, kPanelCols) / kPanelCols;
}

int64_t PackedInt8::padded_k() const {
  return round_up(k_, kPackedKMultiple);
}

int64_t PackedInt8::panel_size_bytes() const {
  return padded_k() * kPanelCols;
}

}  // namespace llmq::quant
