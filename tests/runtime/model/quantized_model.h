#pragma once

#include "tests/runtime/model/model_testing.h"

namespace llmq::testing {

/// What quantize_w8a16 did.
struct QuantizedW8A16 {
  formats::Json description;  ///< of the quantized tensors
  NewTensors dequantized;     ///< the same model in float32, with the values of the codes
};

/// Replaces the linears of `tensors` (all two-dimensional weights but the embedding) by int8 codes
/// with a scale per output. Every second output is asymmetric: its codes have an offset. By the
/// formulas of the format, not by the library's quantizer.
QuantizedW8A16 quantize_w8a16(NewTensors& tensors);

}  // namespace llmq::testing
