#include "convert/report/tensor_statistics.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <limits>

#include "formats/file.h"
#include "formats/float16.h"

namespace llmq::convert {
namespace {

using formats::DType;

class Moments {
 public:
  void add(double value) {
    if (!std::isfinite(value)) {
      ++n_non_finite_;
      return;
    }
    if (n_ == 0) first_ = value;
    ++n_;
    min_ = std::min(min_, value);
    max_ = std::max(max_, value);
    const double distance = value - first_;
    sum_ += distance;
    sum_squares_ += distance * distance;
    if (value == 0) ++n_zeros_;
  }

  [[nodiscard]] TensorStatistics statistics() const {
    TensorStatistics result;
    result.n_non_finite = n_non_finite_;
    if (n_ == 0) return result;
    const auto n = static_cast<double>(n_);
    result.min = min_;
    result.max = max_;
    const double mean_distance = sum_ / n;
    result.mean = first_ + mean_distance;
    result.deviation = std::sqrt(std::max(0.0, sum_squares_ / n - mean_distance * mean_distance));
    result.zero_share = static_cast<double>(n_zeros_) / n;
    return result;
  }

 private:
  int64_t n_ = 0;
  int64_t n_zeros_ = 0;
  int64_t n_non_finite_ = 0;
  double min_ = std::numeric_limits<double>::infinity();
  double max_ = -std::numeric_limits<double>::infinity();
  // Sums are of distances from the first value: squares of large values close together would
  // cancel.
  double first_ = 0;
  double sum_ = 0;
  double sum_squares_ = 0;
};

template <typename T, typename Widen>
TensorStatistics statistics_of(std::span<const std::byte> bytes, Widen widen) {
  Moments moments;
  for (size_t at = 0; at + sizeof(T) <= bytes.size(); at += sizeof(T)) {
    T value;
    std::memcpy(&value, bytes.data() + at, sizeof(T));
    moments.add(static_cast<double>(widen(value)));
  }
  return moments.statistics();
}

double byte_entropy_bits(std::span<const std::byte> bytes) {
  std::array<int64_t, 256> counts{};
  for (const std::byte byte : bytes) ++counts[static_cast<size_t>(byte)];
  double bits = 0;
  for (const int64_t count : counts) {
    if (count == 0) continue;
    const double share = static_cast<double>(count) / static_cast<double>(bytes.size());
    bits -= share * std::log2(share);
  }
  return bits;
}

TensorStatistics dispatch(const formats::StoredTensor& tensor) {
  const auto plain = [](auto value) { return value; };
  switch (tensor.dtype) {
    case DType::kF64:
      return statistics_of<double>(tensor.bytes, plain);
    case DType::kF32:
      return statistics_of<float>(tensor.bytes, plain);
    case DType::kF16:
      return statistics_of<uint16_t>(tensor.bytes, formats::fp16_to_float);
    case DType::kBF16:
      return statistics_of<uint16_t>(tensor.bytes, formats::bf16_to_float);
    case DType::kI64:
      return statistics_of<int64_t>(tensor.bytes, plain);
    case DType::kI32:
      return statistics_of<int32_t>(tensor.bytes, plain);
    case DType::kI16:
      return statistics_of<int16_t>(tensor.bytes, plain);
    case DType::kI8:
      return statistics_of<int8_t>(tensor.bytes, plain);
    case DType::kU8:
    case DType::kBool:
      return statistics_of<uint8_t>(tensor.bytes, plain);
    case DType::kF8E4M3:
    case DType::kF8E5M2:
      return {};
  }
  return {};
}

}  // namespace

TensorStatistics tensor_statistics(const formats::StoredTensor& tensor) {
  TensorStatistics statistics = dispatch(tensor);
  const bool is_codes = tensor.dtype == DType::kI8 || tensor.dtype == DType::kU8;
  if (is_codes && !tensor.bytes.empty()) statistics.entropy_bits = byte_entropy_bits(tensor.bytes);
  formats::MappedFile::release(tensor.bytes);
  return statistics;
}

}  // namespace llmq::convert
