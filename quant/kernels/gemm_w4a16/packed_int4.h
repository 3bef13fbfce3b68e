#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "formats/dialect.h"
#include "quant/kernels/huge_bytes.h"
#include "quant/kernels/thread_team.h"

namespace llmq::quant {

/// A matrix [n, k] of int4 codes (−8..7), two to a byte, in the order in which the kernels of
/// gemm_w4a16 read it (gemm_w4a16/kernels.h). One layout serves every instruction set and number of
/// rows of x. n is padded to a multiple of 8 and k to a multiple of 128, with zeros. Large matrices
/// ask for huge pages.
///
/// Moves but does not copy. Reading is thread safe.
class PackedInt4 {
 public:
  /// An empty matrix [0, 0].
  PackedInt4() = default;
  PackedInt4(PackedInt4&& other) noexcept;
  PackedInt4& operator=(PackedInt4&& other) noexcept;
  PackedInt4(const PackedInt4&) = delete;
  PackedInt4& operator=(const PackedInt4&) = delete;
  ~PackedInt4() = default;

  /// Copies the codes of `stored`, a whole matrix in `layout`: [n, k] bytes, [n, k/2] pairs of
  /// columns or [n/2, k] pairs of rows. Work is divided over `team`.
  ///
  /// Throws Error{kBadInput} naming the first code of kOnePerByte that is not in −8..7,
  /// Error{kInternal} for extents that are negative, odd where they are paired, or that do not fit
  /// the span, std::bad_alloc without memory.
  static PackedInt4 pack(std::span<const std::byte> stored, formats::Int4Layout layout, int64_t n,
                         int64_t k, ThreadTeam& team);

  [[nodiscard]] int64_t n() const { return n_; }
  [[nodiscard]] int64_t k() const { return k_; }
  /// Memory held: the padded codes.
  [[nodiscard]] uint64_t size_bytes() const;

  /// The code at 0 <= row < n, 0 <= column < k; unchecked.
  [[nodiscard]] int8_t at(int64_t row, int64_t column) const;

  /// For kernels: the first panel, aligned to 64 bytes. Null where n or k is 0.
  [[nodiscard]] const unsigned char* panels() const {
    return reinterpret_cast<const unsigned char*>(data_.get());
  }
  /// Bytes per row, half of the padded k.
  [[nodiscard]] int64_t row_size_bytes() const;

 private:
  struct Source;

  PackedInt4(int64_t n, int64_t k);
  void pack_panel(const Source& source, int64_t panel);

  int64_t n_ = 0;
  int64_t k_ = 0;
  HugeBytes data_;
};

}  // namespace llmq::quant
