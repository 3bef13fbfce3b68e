#pragma once

#include <cstdint>

#include "quant/kernels/isa.h"

namespace llmq::quant {

/// Multiplies instead of dividing; see quantize_rows.h. Division is RoundingKernels::quantize.
struct ReciprocalKernels {
  Isa isa = Isa::kScalar;  ///< of this implementation
  /// codes[i] = clamp(rint(x[i] · reciprocal + offset), −128, 127) for n >= 0 elements at any
  /// alignment; NaN gives −128.
  void (*quantize)(const float* x, int64_t n, float reciprocal, float offset,
                   int8_t* codes) = nullptr;
};

extern const ReciprocalKernels kReciprocalScalar;
extern const ReciprocalKernels kReciprocalAvx2;
extern const ReciprocalKernels kReciprocalAvx512;

}  // namespace llmq::quant
