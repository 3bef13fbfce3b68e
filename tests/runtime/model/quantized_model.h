#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

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

/// How the inputs of a linear are quantized.
struct W8A8Input {
  float scale = 0x1.a6p-5F;  ///< a value of float16 and of bfloat16 whose reciprocal is of neither
  float offset = -17.0F;
};

/// A linear as quantize_w8a8 stores it.
struct W8A8Linear {
  int64_t n = 0;
  int64_t k = 0;
  std::vector<int8_t> codes;  ///< [n, k]
  W8A8Input input;
  std::vector<float> weight_scale;  ///< [n]
  std::vector<float> deq_scale;     ///< [n]
  std::vector<int32_t> quant_bias;  ///< [n]
  std::vector<float> float_weight;  ///< [n, k], before it was quantized
  std::vector<float> float_bias;    ///< [n]; zeros where there is none
};

/// A static W8A8 model folder in memory, to be changed and written.
struct W8A8Folder {
  formats::Json config;
  NewTensors tensors;
  formats::Json description;
  std::map<std::string, W8A8Linear> linears;  ///< by module; not written

  void write(const std::filesystem::path& path) const;
};

/// Quantizes the linears of a golden model (all two-dimensional weights but the embedding) by the
/// formulas of the format, not by the library's quantizer. deq_scale is stored as models of its
/// dtype do it: float32 for bf16, widened to int64 for fp16. `inputs` by module; others get the
/// default.
W8A8Folder w8a8_folder(const std::string& golden_name,
                       const std::map<std::string, W8A8Input>& inputs = {});

/// Values as a tensor of `dtype` (F32, F16 or BF16), each rounded to nearest even.
NewTensor float_tensor(formats::DType dtype, const formats::Shape& shape,
                       const std::vector<float>& values);

/// float32 values as a tensor of int64 that hold their bits.
NewTensor widened_tensor(const formats::Shape& shape, const std::vector<float>& values);

}  // namespace llmq::testing
