#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "quant/kernels/huge_bytes.h"
#include "quant/kernels/thread_team.h"

namespace llmq::quant {

/// An int8 matrix [n, k] most of whose codes are within ±7, as W8A8S makes them, at about half a
/// byte a code, with the sum of each row. It has the panels of 16 rows and the lines of PackedInt8
/// (a line holds four consecutive k of 16 rows, 64 codes), n padded to a multiple of 16 and k to a
/// multiple of 64 with zeros. A panel is
///   escapes  the codes outside ±7, a byte each, in the order of the lines and of the codes in a
///            line; padded with zeros to a multiple of 64 bytes
///   nibbles  [k / 8, 64] bytes: byte j of row i has the code j of line 2i in its low four bits and
///            that of line 2i + 1 in its high ones, in two's complement; −8 stands for the next
///            escape
/// and panels follow each other without gaps, so that a pass over the matrix is one stream.
///
/// Moves but does not copy. Reading is thread safe.
class PackedW8A8sc {
 public:
  /// Where rows come from: writes rows [first_row, first_row + n_rows) to `codes`, [n_rows, k]
  /// row-major without gaps. Called once for each row, from several threads at once, with no more
  /// than kSourceRows rows; first_row is a multiple of kSourceRows.
  using RowSource = std::function<void(int64_t first_row, int64_t n_rows, int8_t* codes)>;
  static constexpr int64_t kSourceRows = 128;

  /// An empty matrix [0, 0].
  PackedW8A8sc() = default;
  PackedW8A8sc(PackedW8A8sc&& other) noexcept;
  PackedW8A8sc& operator=(PackedW8A8sc&& other) noexcept;
  PackedW8A8sc(const PackedW8A8sc&) = delete;
  PackedW8A8sc& operator=(const PackedW8A8sc&) = delete;
  ~PackedW8A8sc() = default;

  /// Packs `weights`, [n, k] row-major with `row_stride` elements from row to row (at least k where
  /// n > 1), at any alignment; rows of a larger matrix are a pointer to their first. Work is
  /// divided over `team`. On the way the packed matrix is there twice. Throws Error{kInternal} for
  /// extents that are negative or do not fit together, std::bad_alloc without memory.
  static PackedW8A8sc pack(const int8_t* weights, int64_t n, int64_t k, int64_t row_stride,
                           ThreadTeam& team);
  /// The same from a source, of which kSourceRows rows per thread are there as int8 at a time. What
  /// the source throws is passed on, of several threads the error of the first rows.
  static PackedW8A8sc pack(int64_t n, int64_t k, const RowSource& rows, ThreadTeam& team);

  [[nodiscard]] int64_t n() const { return n_; }
  [[nodiscard]] int64_t k() const { return k_; }
  /// Codes outside ±7.
  [[nodiscard]] int64_t n_escapes() const { return n_escapes_; }
  /// Memory held: panels, their offsets and the row sums.
  [[nodiscard]] uint64_t size_bytes() const;

  /// Writes the k codes of row 0 <= row < n (unchecked) to `codes`. Reads the row's whole panel.
  void read_row(int64_t row, int8_t* codes) const;

  /// For kernels: panel p begins panel_offsets()[p] bytes behind bytes(), which is aligned to 64
  /// bytes, with its escapes, and its nibbles end at panel_offsets()[p + 1]. 64 bytes from the
  /// end of the escapes on may always be read where k > 0. Null where n or k is 0.
  [[nodiscard]] const int8_t* bytes() const { return data_.get(); }
  [[nodiscard]] const int64_t* panel_offsets() const { return panel_offsets_.data(); }
  [[nodiscard]] int64_t n_panels() const;
  /// k rounded up to a multiple of 64.
  [[nodiscard]] int64_t padded_k() const;
  /// Bytes of the nibbles of a panel.
  [[nodiscard]] int64_t nibbles_size_bytes() const;
  /// [16 · n_panels()]: Σ_k of each row's codes, modulo 2^32; zeros in the padding.
  [[nodiscard]] const int32_t* row_sums() const { return row_sums_.data(); }

 private:
  struct Strip;

  PackedW8A8sc(int64_t n, int64_t k);
  template <typename Rows>
  static PackedW8A8sc pack_strips(int64_t n, int64_t k, ThreadTeam& team, const Rows& rows);
  void assemble(const std::vector<Strip>& strips, ThreadTeam& team);

  int64_t n_ = 0;
  int64_t k_ = 0;
  int64_t n_escapes_ = 0;
  HugeBytes data_;
  std::vector<int64_t> panel_offsets_;  // [n_panels() + 1]
  std::vector<int32_t> row_sums_;
};

}  // namespace llmq::quant
