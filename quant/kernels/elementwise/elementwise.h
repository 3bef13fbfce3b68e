#pragma once

#include <cstdint>

#include "quant/kernels/isa.h"

/// Vector operations between the matrix products of a decoder layer. Single-threaded; callers
/// divide rows or heads over threads, which cannot change a bit, as nothing crosses a row.
///
/// Every operation is defined by a fixed sequence of float32 operations (scalar.cpp), each rounded
/// once, so that all instruction sets give the same bits (only the payload of a NaN may differ).
/// Sums run in the canonical order of gemm_f32/lane_gemm.h: 16 lanes, element i in lane i mod 16,
/// then one tree. Free of library code, because files compiled for one instruction set include it.
namespace llmq::quant {

/// How rows of keys or values are stored.
enum class RowType : uint8_t { kF32, kBf16, kFp16 };

/// Rows at any byte alignment: row j begins row_size_bytes · j bytes after data.
struct StoredRows {
  const void* data = nullptr;
  RowType type = RowType::kF32;
  int64_t row_size_bytes = 0;  ///< distance between rows
  int64_t n_rows = 0;
  /// Rows that are read after these and are fetched meanwhile, never read; null: those behind.
  const void* next = nullptr;
};

/// RMS normalization of one row (Zhang and Sennrich, arXiv 1910.07467):
///   y[i] = (x[i] · (1 / sqrt(Σ x² / n + eps))) · weight[i]
/// with Σ x² in the canonical order (a fused multiply-add per element) and all else in float32,
/// square root and divisions rounded as IEEE asks.
struct RmsNormTask {
  const float* x = nullptr;       ///< [n]
  const float* weight = nullptr;  ///< [n]
  float eps = 0.0F;
  int64_t n = 0;       ///< at least 1
  float* y = nullptr;  ///< [n], may be x
};

/// Rotation of one head (rotary position embedding in the half-split layout of Hugging Face
/// models):
///   y[i]     = x[i] · cos[i] − x[i + h] · sin[i]
///   y[i + h] = x[i + h] · cos[i] + x[i] · sin[i]        for i < h = n_pairs,
/// where the second product of each line is rounded and the first enters by a fused multiply-add.
struct RopeTask {
  const float* x = nullptr;    ///< [2 · n_pairs]
  const float* cos = nullptr;  ///< [n_pairs]
  const float* sin = nullptr;  ///< [n_pairs]
  int64_t n_pairs = 0;
  float* y = nullptr;  ///< [2 · n_pairs], x itself or not overlapping it
};

/// Dot products of m queries with rows (keys): out[i, j] = (Σ_l q[i, l] · rows[j, l]) · scale, sums
/// in the canonical order over the d elements, rows widened exactly.
struct DotRowsTask {
  const float* queries = nullptr;  ///< [m, d]
  int64_t query_stride = 0;        ///< elements between queries
  int64_t m = 1;
  int64_t d = 0;
  StoredRows rows;  ///< [n_rows, d]
  float scale = 1.0F;
  float* out = nullptr;    ///< [m, n_rows]
  int64_t out_stride = 0;  ///< elements between rows of out
};

/// Weighted sums of rows (values) into m accumulators: acc[i, l] ← fma(p[i, j], rows[j, l], acc[i,
/// l]) for j = 0, 1, … n_rows − 1 in this order, rows widened exactly.
struct AddRowsTask {
  const float* p = nullptr;  ///< [m, n_rows]
  int64_t p_stride = 0;      ///< elements between rows of p
  int64_t m = 1;
  int64_t d = 0;
  StoredRows rows;         ///< [n_rows, d]
  float* acc = nullptr;    ///< [m, d], updated
  int64_t acc_stride = 0;  ///< elements between accumulators
};

/// The operations for one instruction set. Outputs may be one of the inputs (but not overlap it in
/// another way) except where an operation's struct says otherwise. n may be 0.
///
/// exp here has an error below 1.1 ulp for −87.336 <= x <= 88.722; below it is 0 (never subnormal),
/// above it is infinity; a NaN gives a NaN.
struct ElementwiseKernels {
  Isa isa = Isa::kScalar;  ///< instruction set of this implementation

  void (*rms_norm)(const RmsNormTask& task);
  void (*rope)(const RopeTask& task);
  void (*dot_rows)(const DotRowsTask& task);
  void (*add_rows)(const AddRowsTask& task);

  /// y[i] = exp(x[i])
  void (*exp)(const float* x, float* y, int64_t n);
  /// y[i] = 1 / (1 + exp(−x[i]))
  void (*sigmoid)(const float* x, float* y, int64_t n);
  /// y[i] = (gate[i] / (1 + exp(−gate[i]))) · up[i]: SwiGLU, Shazeer, arXiv 2002.05202. An infinite
  /// negative gate gives a NaN.
  void (*silu_multiply)(const float* gate, const float* up, float* y, int64_t n);
  /// y[i] = a[i] + b[i]
  void (*add)(const float* a, const float* b, float* y, int64_t n);
  /// y[i] = x[i] · factor
  void (*scale)(const float* x, float factor, float* y, int64_t n);
  /// The largest element, −infinity for none; NaNs are passed over. In the canonical order, where
  /// an element replaces the maximum only when it is greater (this decides between +0 and −0).
  float (*row_max)(const float* x, int64_t n);
  /// y[i] = exp(x[i] − max); returns Σ y in the canonical order. Where max is −infinity (a row that
  /// is masked entirely) it counts as 0, so that such a row becomes zeros instead of NaNs.
  float (*exp_sum)(const float* x, float max, float* y, int64_t n);
};

/// The table for `isa`: kAvx2 serves kAvxVnni, kAvx512Vnni serves kAmx. `isa` must be supported by
/// this machine for the operations to be called. Thread safe.
const ElementwiseKernels& elementwise_kernels(Isa isa);

/// elementwise_kernels(active_isa()).
const ElementwiseKernels& elementwise_kernels();

/// The tables behind elementwise_kernels.
extern const ElementwiseKernels kElementwiseScalar;
extern const ElementwiseKernels kElementwiseAvx2;
extern const ElementwiseKernels kElementwiseAvx512;

}  // namespace llmq::quant
