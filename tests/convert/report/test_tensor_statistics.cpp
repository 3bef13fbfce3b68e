#include "convert/report/tensor_statistics.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "tests/convert/verify/static_folder.h"

namespace llmq::convert {
namespace {

using formats::DType;
using test::bytes_of;

template <typename T>
TensorStatistics statistics_of(DType dtype, const std::vector<T>& values) {
  const std::string bytes = bytes_of(values);
  formats::StoredTensor tensor;
  tensor.dtype = dtype;
  tensor.shape = {static_cast<int64_t>(bytes.size() / formats::dtype_size_bytes(dtype))};
  tensor.bytes = std::as_bytes(std::span(bytes));
  return tensor_statistics(tensor);
}

// Mean 2.5 and deviation sqrt(1.25) of 1, 2, 3, 4 in every dtype.
TEST(TensorStatistics, FourNumbersHaveTheSameMomentsInEveryDtype) {
  const std::vector<TensorStatistics> all = {
      statistics_of(DType::kF64, std::vector<double>{1, 2, 3, 4}),
      statistics_of(DType::kF32, std::vector<float>{1, 2, 3, 4}),
      statistics_of(DType::kF16, std::vector<uint16_t>{0x3c00, 0x4000, 0x4200, 0x4400}),
      statistics_of(DType::kBF16, std::vector<uint16_t>{0x3f80, 0x4000, 0x4040, 0x4080}),
      statistics_of(DType::kI64, std::vector<int64_t>{1, 2, 3, 4}),
      statistics_of(DType::kI32, std::vector<int32_t>{1, 2, 3, 4}),
      statistics_of(DType::kI16, std::vector<int16_t>{1, 2, 3, 4}),
      statistics_of(DType::kI8, std::vector<int8_t>{1, 2, 3, 4}),
      statistics_of(DType::kU8, std::vector<uint8_t>{1, 2, 3, 4})};
  for (const TensorStatistics& one : all) {
    EXPECT_EQ(one.min, 1.0);
    EXPECT_EQ(one.max, 4.0);
    EXPECT_DOUBLE_EQ(one.mean, 2.5);
    EXPECT_DOUBLE_EQ(one.deviation, std::sqrt(1.25));
    EXPECT_EQ(one.zero_share, 0.0);
    EXPECT_EQ(one.n_non_finite, 0);
  }
}

TEST(TensorStatistics, ValuesThatAreNotFiniteAreCountedAndLeftOut) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  const TensorStatistics one = statistics_of(
      DType::kF32, std::vector<float>{kInfinity, -2, 0, -kInfinity, std::nanf(""), 2});
  EXPECT_EQ(one.n_non_finite, 3);
  EXPECT_EQ(one.min, -2.0);
  EXPECT_EQ(one.max, 2.0);
  EXPECT_EQ(one.mean, 0.0);
  EXPECT_DOUBLE_EQ(one.zero_share, 1.0 / 3.0);
}

TEST(TensorStatistics, NothingFiniteGivesZeros) {
  const TensorStatistics one =
      statistics_of(DType::kF32, std::vector<float>{std::nanf(""), std::nanf("")});
  EXPECT_EQ(one.n_non_finite, 2);
  EXPECT_EQ(one.min, 0.0);
  EXPECT_EQ(one.deviation, 0.0);
  EXPECT_EQ(statistics_of(DType::kF32, std::vector<float>{}).max, 0.0);
}

TEST(TensorStatistics, DeviationOfLargeNumbersCloseTogetherIsExact) {
  std::vector<int64_t> values(1000, 1'000'000'000'000);
  for (size_t i = 0; i < values.size(); i += 2) ++values[i];
  EXPECT_NEAR(statistics_of(DType::kI64, values).deviation, 0.5, 1e-9);
  EXPECT_EQ(statistics_of(DType::kF64, std::vector<double>(1000, 1e15)).deviation, 0.0);
}

TEST(TensorStatistics, EntropyOfCodesIsInBitsPerCode) {
  std::vector<int8_t> all(1024);
  for (size_t i = 0; i < all.size(); ++i) all[i] = static_cast<int8_t>(i);
  EXPECT_DOUBLE_EQ(statistics_of(DType::kI8, all).entropy_bits.value(), 8.0);
  EXPECT_DOUBLE_EQ(
      statistics_of(DType::kU8, std::vector<uint8_t>{7, 7, 200, 200}).entropy_bits.value(), 1.0);
  EXPECT_DOUBLE_EQ(statistics_of(DType::kI8, std::vector<int8_t>{3, 3}).entropy_bits.value(), 0.0);
}

TEST(TensorStatistics, EntropyIsOnlyGivenForBytesThatAreThere) {
  EXPECT_FALSE(statistics_of(DType::kI8, std::vector<int8_t>{}).entropy_bits.has_value());
  EXPECT_FALSE(statistics_of(DType::kF32, std::vector<float>{1}).entropy_bits.has_value());
  EXPECT_FALSE(statistics_of(DType::kBool, std::vector<uint8_t>{1, 0}).entropy_bits.has_value());
}

TEST(TensorStatistics, Float8IsNotRead) {
  const TensorStatistics one = statistics_of(DType::kF8E4M3, std::vector<uint8_t>{0x7f, 0x38});
  EXPECT_EQ(one.max, 0.0);
  EXPECT_EQ(one.n_non_finite, 0);
}

}  // namespace
}  // namespace llmq::convert
