#include "convert/pipeline/tensor_bytes.h"

#include <cstring>

#include "formats/error.h"
#include "formats/float16.h"
#include "quant/kernels/rounding/rounding.h"
#include "quant/static_w8a8.h"

namespace llmq::convert {
namespace {

using formats::DType;

template <typename T, typename Convert>
std::vector<std::byte> encode(std::span<const float> values, const Convert& convert) {
  std::vector<std::byte> bytes(values.size() * sizeof(T));
  for (size_t i = 0; i < values.size(); ++i) {
    const T value = convert(values[i]);
    std::memcpy(bytes.data() + i * sizeof(T), &value, sizeof(T));
  }
  return bytes;
}

}  // namespace

std::vector<std::byte> encode_floats(std::span<const float> values, DType dtype) {
  switch (dtype) {
    case DType::kF32:
      return encode<float>(values, [](float value) { return value; });
    case DType::kF16:
      return encode<uint16_t>(values, formats::float_to_fp16);
    case DType::kBF16:
      return encode<uint16_t>(values, formats::float_to_bf16);
    case DType::kI8:
      return encode<int8_t>(values, [](float value) { return static_cast<int8_t>(value); });
    default:
      throw formats::Error(formats::ErrorCode::kInternal, "no encoding of floats for this dtype");
  }
}

std::vector<std::byte> encode_deq_scale(std::span<const float> values, DType dtype) {
  if (dtype == DType::kF32) return encode_floats(values, dtype);
  if (dtype != DType::kI64)
    throw formats::Error(formats::ErrorCode::kInternal, "no encoding of deq_scale for this dtype");
  return encode<int64_t>(values, quant::widen_deq_scale);
}

std::vector<float> rounded_floats(std::span<const std::byte> stored, DType stored_dtype,
                                  DType written_dtype) {
  const auto n = static_cast<int64_t>(stored.size() / formats::dtype_size_bytes(stored_dtype));
  const auto& cast = quant::rounding_kernels().cast;
  const auto from = quant::float_type_index(stored_dtype);
  const auto to = quant::float_type_index(written_dtype);
  std::vector<std::byte> written(static_cast<size_t>(n) * formats::dtype_size_bytes(written_dtype));
  std::vector<float> values(static_cast<size_t>(n));
  quant::CastReport report{};
  cast[from][to](stored.data(), n, written.data(), &report);
  cast[to][quant::float_type_index(DType::kF32)](written.data(), n, values.data(), &report);
  return values;
}

}  // namespace llmq::convert
