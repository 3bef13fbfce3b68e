#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <vector>

#include "formats/dtype.h"

namespace llmq::convert {

/// A small tensor's name and data, ready to be written.
struct NamedBytes {
  std::string name;
  std::vector<std::byte> bytes;
};

/// Values as they stand in a file: F32, F16 or BF16 rounded half to even, or I8 for whole numbers
/// from -128 to 127. Throws Error{kInternal} for another dtype.
std::vector<std::byte> encode_floats(std::span<const float> values, formats::DType dtype);

/// deq_scale (positive) as engines read it: F32, or I64 with the bits of the float32 in the lower
/// half. Throws Error{kInternal} for another dtype.
std::vector<std::byte> encode_deq_scale(std::span<const float> values, formats::DType dtype);

/// Values of `stored` (F32, F16 or BF16, any alignment) as they are after rounding to `written`
/// (the same kinds), widened to float32.
std::vector<float> rounded_floats(std::span<const std::byte> stored, formats::DType stored_dtype,
                                  formats::DType written_dtype);

}  // namespace llmq::convert
