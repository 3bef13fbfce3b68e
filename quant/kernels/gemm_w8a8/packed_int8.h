#pragma once

#include <cstdint>
#include <vector>

#include "quant/kernels/cpu.h"
#include "quant/kernels/huge_bytes.h"
#include "quant/kernels/thread_team.h"

namespace llmq::quant {

/// An int8 matrix [n, k] in the order in which the kernels of gemm_w8a8 read it, with the sum of
/// each row. One layout serves every instruction set: panels of 16 rows one after the other, each
/// [k / 4, 16, 4] bytes, so that a 64-byte line holds four consecutive k of 16 rows and sixteen
/// lines are one 16 × 64 tile. n is padded to a multiple of 16 and k to a multiple of 64, with
/// zeros.
///
/// Moves but does not copy. Reading is thread safe.
class PackedInt8 {
 public:
  /// An empty matrix [0, 0].
  PackedInt8() = default;
  PackedInt8(PackedInt8&& other) noexcept;
  PackedInt8& operator=(PackedInt8&& other) noexcept;
  PackedInt8(const PackedInt8&) = delete;
  PackedInt8& operator=(const PackedInt8&) = delete;
  ~PackedInt8() = default;

  /// Copies `weights`, [n, k] row-major with `row_stride` elements from row to row (at least k
  /// where n > 1), at any alignment. Work is divided over `team`. Throws Error{kInternal} for
  /// extents that are negative or do not fit together, std::bad_alloc without memory.
  static PackedInt8 pack(const int8_t* weights, int64_t n, int64_t k, int64_t row_stride,
                         ThreadTeam& team, Isa isa = active_isa());

  [[nodiscard]] int64_t n() const { return n_; }
  [[nodiscard]] int64_t k() const { return k_; }
  /// Memory held: the padded codes and the row sums.
  [[nodiscard]] uint64_t size_bytes() const;

  /// The code at 0 <= row < n, 0 <= column < k; unchecked.
  [[nodiscard]] int8_t at(int64_t row, int64_t column) const;

  /// For kernels: the first panel, aligned to 64 bytes; panel p begins p · panel_size_bytes()
  /// behind it. Null where n or k is 0.
  [[nodiscard]] const int8_t* panels() const { return data_.get(); }
  [[nodiscard]] int64_t n_panels() const;
  [[nodiscard]] int64_t panel_size_bytes() const;
  /// k rounded up to a multiple of 64.
  [[nodiscard]] int64_t padded_k() const;
  /// [16 · n_panels()]: Σ_k of each row's codes, modulo 2^32; zeros in the padding.
  [[nodiscard]] const int32_t* row_sums() const { return row_sums_.data(); }

 private:
  PackedInt8(int64_t n, int64_t k);
  void pack_panel(const int8_t* weights, int64_t row_stride, int64_t panel, bool is_wide);

  int64_t n_ = 0;
  int64_t k_ = 0;
  HugeBytes data_;
  std::vector<int32_t> row_sums_;
};

}  // namespace llmq::quant
