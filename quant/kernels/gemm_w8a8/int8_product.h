#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>

#include "quant/kernels/gemm_w8a8/kernels.h"
#include "quant/kernels/thread_team.h"

/// How a product of int8 codes is cut into tasks, whatever form its weights have in memory: for
/// gemm_w8a8.cpp and its relatives.
namespace llmq::quant {

inline int64_t ceil_div(int64_t a, int64_t b) {
  return (a + b - 1) / b;
}
inline int64_t round_up(int64_t a, int64_t b) {
  return ceil_div(a, b) * b;
}

/// Memory aligned to 64 bytes that grows and is never shrunk; contents are not kept.
template <typename T>
class Scratch {
 public:
  /// `count` elements; throws std::bad_alloc.
  T* get(int64_t count) {
    if (count > capacity_) {
      data_.reset();
      capacity_ = 0;
      data_.reset(static_cast<T*>(::operator new(static_cast<size_t>(count) * sizeof(T), kLine)));
      capacity_ = count;
    }
    return data_.get();
  }

 private:
  static constexpr std::align_val_t kLine{64};
  struct Free {
    void operator()(T* p) const { ::operator delete(p, kLine); }
  };
  std::unique_ptr<T, Free> data_;
  int64_t capacity_ = 0;
};

/// The kernels of gemm_w8a8 that run for `isa`.
const Int8Kernels& int8_kernels(Isa isa);

/// What the cutting needs to know of weights [n, k] in panels of kPanelCols rows.
struct Int8Weights {
  int64_t n = 0;
  int64_t k = 0;
  int64_t padded_k = 0;     ///< multiple of kPackedKMultiple
  int64_t panel_bytes = 0;  ///< what a pass over one panel reads, on average
  /// Lines are made from another form block by block: k is cut for few rows of x, too.
  bool is_expanded = false;

  [[nodiscard]] int64_t n_panels() const { return ceil_div(n, kPanelCols); }
};

/// One product, whatever becomes of its sums. The epilogue begins at row 0 and column 0.
struct Int8Product {
  const int8_t* x = nullptr;
  int64_t m = 0;
  int64_t x_stride = 0;
  Int8Weights weights;
  Int8Epilogue epilogue;

  /// Rows [row, row + n_rows) alone.
  [[nodiscard]] Int8Product rows(int64_t row, int64_t n_rows) const;
  /// The epilogue of a block that begins there.
  [[nodiscard]] Int8Epilogue epilogue_at(int64_t row, int64_t col) const;
};

/// How k is cut into blocks and y into tasks.
struct Int8Blocking {
  bool streams = false;  ///< weights pass once: see Int8Block
  int64_t block_k = 0;
  int64_t n_blocks = 0;
  int64_t task_rows = 0;
  int64_t task_panels = 0;
  int64_t x_row_bytes = 0;  ///< of a packed row of x in one block of k
};

/// A task: rows and panels of y. The rows of x are packed, [n_blocks, m, block_k].
struct Int8Task {
  const Int8Kernels& kernels;  ///< those given, or their fewer_rows
  const Int8Product& product;
  const Int8Blocking& blocking;
  const unsigned char* x;
  int64_t row;
  int64_t n_rows;
  int64_t panel;
  int64_t n_panels;

  /// Everything of a block of k that does not depend on the form of the weights.
  [[nodiscard]] Int8Block block(int64_t index) const;
};

namespace detail {

inline constexpr int64_t kChunkRows = 512;  // of x, packed at once; they share one pass over w
Int8Blocking choose_blocking(const Int8Kernels& kernels, const Int8Product& p, int n_threads);
/// Packs the rows of x into memory that the calling thread keeps until its next call.
const unsigned char* pack_x(const Int8Kernels& kernels, const Int8Product& p, const Int8Blocking& b,
                            ThreadTeam& team);

}  // namespace detail

/// Calls fn(const Int8Task&) for all of y, divided over `team`. Tasks that share weights follow
/// each other.
template <typename Fn>
void for_int8_tasks(const Int8Kernels& all_kernels, const Int8Product& product, ThreadTeam& team,
                    const Fn& fn) {
  for (int64_t first = 0; first < product.m; first += detail::kChunkRows) {
    const Int8Product p = product.rows(first, std::min(detail::kChunkRows, product.m - first));
    const Int8Kernels& kernels = p.m < all_kernels.min_rows ? *all_kernels.fewer_rows : all_kernels;
    const Int8Blocking b = detail::choose_blocking(kernels, p, team.n_threads());
    const unsigned char* x = detail::pack_x(kernels, p, b, team);
    const int64_t n_panels = p.weights.n_panels();
    const int64_t n_row_tasks = ceil_div(p.m, b.task_rows);
    team.parallel_for(n_row_tasks * ceil_div(n_panels, b.task_panels), [&](int64_t task, int) {
      const int64_t row = task % n_row_tasks * b.task_rows;
      const int64_t panel = task / n_row_tasks * b.task_panels;
      fn(Int8Task{kernels, p, b, x, row, std::min(b.task_rows, p.m - row), panel,
                  std::min(b.task_panels, n_panels - panel)});
    });
  }
}

/// Extents of operands that have to fit together.
struct Int8Operands {
  const char* function;  ///< for messages
  int64_t m;
  int64_t x_stride;
  int64_t y_stride;
  bool has_weights;
  bool has_scale;  ///< may be false where there is nothing to multiply by it
};

/// Throws Error{kInternal} where they do not fit.
void check_int8_operands(const Int8Operands& operands, int64_t n, int64_t k);
/// Throws Error{kInternal} unless y is [m, n].
void check_int8_result(const char* function, int64_t y_rows, int64_t y_cols, int64_t m, int64_t n);

}  // namespace llmq::quant
