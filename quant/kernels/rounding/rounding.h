#pragma once

#include <cstddef>
#include <cstdint>

#include "quant/kernels/isa.h"

namespace llmq::formats {
enum class DType : uint8_t;
}  // namespace llmq::formats

namespace llmq::quant {

/// The float types that weights are stored in; also the index into the tables of RoundingKernels.
enum class FloatType : uint8_t {
  kBf16,  ///< bfloat16
  kFp16,  ///< IEEE binary16
  kFp32   ///< IEEE binary32
};
inline constexpr size_t kNFloatTypes = 3;

/// Extremes of a row. Elements that are not finite are left out of the three extremes.
struct RowRange {
  float min;                 ///< +inf where no element is finite; never −0
  float max;                 ///< −inf where no element is finite; never −0
  float absmax;              ///< largest magnitude, 0 where no element is finite
  int64_t first_non_finite;  ///< index of the first NaN or infinity, −1 where all are finite
};

/// How a row is quantized: code = clamp(rint(x / scale + offset), code_min, code_max) in float32,
/// rint being half-to-even and a NaN giving code_min.
struct RoundingParams {
  float scale;
  float offset;    ///< integer-valued; 0 for symmetric codes
  float code_min;  ///< integer-valued, at least −128
  float code_max;  ///< integer-valued, at most 127
};

/// What quantization did to a row, with x̂ = (code − offset)·scale and x − x̂ in float32. Sums of
/// squares overflow where |x| exceeds 1e19, and are not finite where x is not.
struct RoundingSums {
  double sum_squares;         ///< Σ x²
  double sum_squared_errors;  ///< Σ (x − x̂)²
  float max_abs_error;        ///< max |x − x̂|, NaN left out
  int64_t n_clipped;          ///< elements whose rounded value lay outside the codes, NaN included
  int64_t n_zeros;            ///< codes that stand for zero (code = offset)
};

/// What a cast found. Only finite source elements count in n_overflow, n_near_overflow and absmax.
struct CastReport {
  int64_t first_non_finite;  ///< index of the first NaN or infinity in the source, −1 if none
  int64_t n_overflow;        ///< elements that became infinite
  int64_t
      n_near_overflow;  ///< casts to fp16: magnitudes of 32752 (half of 65504) and above; else 0
  float absmax;         ///< largest magnitude in the source, 0 for none
};

/// Sums run over blocks of this many elements: 16 float32 lanes by index mod 16, each element added
/// with one fused multiply-add; at a block's end the lanes are added as a tree (8, 4, 2, 1 apart)
/// and the total joins a double. This order is what makes every implementation agree to the bit.
inline constexpr int64_t kSumBlock = 4096;
inline constexpr int kSumLanes = 16;

/// Largest magnitude below which a cast to fp16 is unremarkable: half of fp16's largest value.
inline constexpr float kNearFp16Overflow = 32752.0F;

/// Kernels over one row of n elements; any n >= 0, any alignment, source and destination apart.
/// All implementations agree bit for bit, subnormals, signed zeros, infinities and NaN included
/// (only the payload of NaN sums is open). They rely on the default floating-point environment:
/// round to nearest, no flushing of subnormals. Thread safe.
struct RoundingKernels {
  /// The instruction set that this implementation is written for.
  Isa isa;

  using RangeFn = void (*)(const void* row, int64_t n, RowRange* range);
  using QuantizeFn = void (*)(const void* row, int64_t n, const RoundingParams* params,
                              int8_t* codes);
  using QuantizeMeasuredFn = void (*)(const void* row, int64_t n, const RoundingParams* params,
                                      int8_t* codes, RoundingSums* sums);
  using CastFn = void (*)(const void* source, int64_t n, void* destination, CastReport* report);

  /// By source type.
  RangeFn range[kNFloatTypes];
  QuantizeFn quantize[kNFloatTypes];
  QuantizeMeasuredFn quantize_measured[kNFloatTypes];
  /// By source type, then destination type. Round half to even; every NaN stays a NaN and becomes
  /// quiet (except from bf16 to fp32); the diagonal copies bits unchanged and reports on them.
  CastFn cast[kNFloatTypes][kNFloatTypes];
};

/// The implementation for `isa`: its own, or that of the best lower instruction set. Throws
/// Error{kUsage} when this machine does not support `isa`. Thread safe.
const RoundingKernels& rounding_kernels(Isa isa);

/// The implementation for active_isa().
const RoundingKernels& rounding_kernels();

/// Index into the tables. Throws Error{kBadInput} for a dtype other than BF16, F16 and F32.
size_t float_type_index(formats::DType dtype);

namespace detail {
// By destination type of a cast: the magnitude, as a bit pattern, from which an element is not
// finite, may overflow or is near it, so that the row's report needs a closer look.
inline constexpr unsigned kRemarkableBits[kNFloatTypes] = {
    0x7f7f8000U,  // half a last place above bfloat16's largest value
    0x46ffe000U,  // kNearFp16Overflow
    0x7f800000U   // infinity
};

// One table per file; the files of wider instruction sets fall back on the scalar one for rows that
// hold something unusual.
extern const RoundingKernels kScalarRounding;
extern const RoundingKernels kAvx2Rounding;
extern const RoundingKernels kAvx512Rounding;
}  // namespace detail

}  // namespace llmq::quant
