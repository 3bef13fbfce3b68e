#pragma once

#include <cstdint>

#include "quant/kernels/isa.h"

/// The plain structs through which gemm_w8a8.cpp calls the kernels of one instruction set. Free of
/// library code, because files compiled for one instruction set include it. A "column" is a column
/// of y, that is, a row of the weights.
namespace llmq::quant {

/// The layout of PackedInt8: a line holds kGroup consecutive k of kPanelCols columns.
inline constexpr int kPanelCols = 16;
inline constexpr int kGroup = 4;
inline constexpr int kPackedKMultiple = 64;

/// What becomes of the sums of a block. Arrays over columns begin at the block's first column,
/// those over rows at its first row.
struct Int8Epilogue {
  const int32_t* row_sums = nullptr;    ///< PackedInt8::row_sums, to undo a shift of x
  const int32_t* quant_bias = nullptr;  ///< added to the sums, modulo 2^32; or null
  int32_t* sums = nullptr;              ///< where the int32 sums go; or null, and the rest applies:
  const float* deq_scale = nullptr;     ///< y = float(sum) · deq_scale[column]
  const float* row_scale = nullptr;     ///< then times row_scale[row]; or null
  const float* bias = nullptr;          ///< then plus bias[column]; or null
  float* y = nullptr;
  int64_t stride = 0;  ///< elements between rows of `sums` or `y`
  int64_t n_cols = 0;  ///< columns of the block that exist; fills all panels but the last
};

/// A block of y over a block of k.
struct Int8Block {
  const unsigned char* x = nullptr;  ///< rows as pack_row wrote them
  int64_t x_row_bytes = 0;           ///< distance between them
  int64_t n_rows = 0;
  const int8_t* weights = nullptr;  ///< the first panel's first line of this block of k
  int64_t panel_bytes = 0;          ///< distance between panels
  int64_t n_panels = 0;
  int64_t n_groups = 0;        ///< lines per panel, a multiple of 16
  int32_t* partial = nullptr;  ///< n_rows · n_panels · kPanelCols sums between blocks of k, in an
                               ///< order of the kernel's own; 64-byte aligned
  bool first = true;           ///< nothing is in `partial` yet
  bool last = true;            ///< sums are complete and go to the epilogue, else to `partial`
  bool streams = false;  ///< weights come from memory and pass once: n_rows <= max_stream_rows, and
                         ///< the lines of consecutive panels follow each other
  Int8Epilogue epilogue;
};

/// Columns [col_begin, col_end) of y over all of k, for the specification in scalar.cpp.
struct Int8Columns {
  const int8_t* x = nullptr;  ///< [m, k]
  int64_t x_stride = 0;
  int64_t m = 0;
  int64_t k = 0;
  const int8_t* panels = nullptr;  ///< PackedInt8::panels
  int64_t panel_bytes = 0;
  int64_t col_begin = 0;
  int64_t col_end = 0;
  Int8Epilogue epilogue;  ///< of column 0
};

/// The kernels of one instruction set: scalar has multiply_columns alone, the others have the rest.
struct Int8Kernels {
  Isa isa = Isa::kScalar;  ///< of this implementation
  void (*multiply_columns)(const Int8Columns& task) = nullptr;
  int64_t max_stream_rows = 0;  ///< rows of x that one pass over the weights serves
  int64_t tile_panels = 0;      ///< panels that one pass over x serves
  int64_t block_k = 0;  ///< most k for which a tile's weights stay in a near cache; multiple of 64
  int64_t x_size_bytes = 1;  ///< bytes per element of a packed row of x
  int64_t row_multiple = 1;  ///< tasks get this many rows or a multiple, but for the last
  /// Rows of packed x are an odd number of 64-byte lines apart, so that those of a tile spread over
  /// all sets of the cache.
  bool odd_row_lines = false;
  int64_t min_rows = 1;  ///< fewer rows of x than this go to `fewer_rows`
  const Int8Kernels* fewer_rows = nullptr;
  /// Writes `padded` elements, a multiple of 64, in the form that `multiply` reads; those from
  /// `count` on may be anything, since they meet zeros.
  void (*pack_row)(const int8_t* codes, int64_t count, int64_t padded,
                   unsigned char* out) = nullptr;
  void (*multiply)(const Int8Block& block) = nullptr;
};

extern const Int8Kernels kGemmW8A8Scalar;
extern const Int8Kernels kGemmW8A8Avx2;
extern const Int8Kernels kGemmW8A8AvxVnni;
extern const Int8Kernels kGemmW8A8Avx512Vnni;
extern const Int8Kernels kGemmW8A8Amx;

}  // namespace llmq::quant
