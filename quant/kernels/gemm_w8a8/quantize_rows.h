#pragma once

#include <cstdint>

#include "quant/kernels/cpu.h"
#include "quant/kernels/gemm_f32/matrix_f32.h"
#include "quant/kernels/thread_team.h"

namespace llmq::quant {

/// How float activations become int8 codes with one scale and offset for a whole tensor (static
/// W8A8): by the published formula
///   code = clamp(rint(x / scale + offset), −128, 127)
/// or, as serving engines compute it, by
///   code = clamp(rint(x · reciprocal + offset), −128, 127).
struct ActivationRule {
  float scale = 1.0F;          ///< positive
  float offset = 0.0F;         ///< integer-valued
  bool by_reciprocal = false;  ///< which formula
  float reciprocal = 1.0F;     ///< of scale, as the engine rounds it; read where by_reciprocal

  bool operator==(const ActivationRule&) const = default;
};

/// Quantizes x, [m, k], to `codes`, [m, k] row-major with `codes_stride` elements from row to row
/// (at least k where m > 1), at any alignment. Division or multiplication, addition and rounding
/// (half to even) are one float32 rounding each; nothing is flushed to zero. An infinity gives the
/// bound on its side, NaN gives −128. The codes do not depend on instruction set or threads.
///
/// Work is divided over `team`. Throws Error{kInternal} when the shapes do not fit together,
/// Error{kUsage} when this machine does not support `isa`.
void quantize_rows(const ConstMatrixF32& x, const ActivationRule& rule, int8_t* codes,
                   int64_t codes_stride, ThreadTeam& team, Isa isa = active_isa());

/// Quantizes each row of x with a scale of its own (per token, symmetric):
///   row_scale[i] = max(max_l |x[i, l]| / 127, 2^−23)
///   code         = clamp(rint(x / row_scale[i]), −127, 127)
/// `row_scale` is [m]; `codes` and the arithmetic are as above. Elements that are not finite are
/// left out of the maximum; an infinity gives ±127, NaN gives −127.
void quantize_rows_dynamic(const ConstMatrixF32& x, int8_t* codes, int64_t codes_stride,
                           float* row_scale, ThreadTeam& team, Isa isa = active_isa());

/// The two halves of quantize_rows_dynamic, for rows whose columns lie on several ranks: the
/// largest finite magnitude of each row of x into `maxima` [m] (0 for rows without one) ...
void row_maxima(const ConstMatrixF32& x, float* maxima, ThreadTeam& team, Isa isa = active_isa());

/// ... and codes and row_scale from such maxima, [m]. `maxima` and `row_scale` may be the same.
void quantize_rows_by_maxima(const ConstMatrixF32& x, const float* maxima, int8_t* codes,
                             int64_t codes_stride, float* row_scale, ThreadTeam& team,
                             Isa isa = active_isa());

/// The instruction set of the implementation that runs for `isa` (kAvx2 serves kAvxVnni,
/// kAvx512Vnni serves kAmx).
Isa quantize_rows_implementation(Isa isa);

}  // namespace llmq::quant
