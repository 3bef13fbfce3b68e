#include "convert/pipeline/tensor_bytes.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <span>
#include <string>
#include <vector>

#include "formats/error.h"
#include "formats/float16.h"
#include "tests/tools/test_files.h"

namespace llmq::convert {
namespace {

using formats::DType;
using formats::ErrorCode;
using test::error_message;
using testing::ElementsAre;
using testing::ElementsAreArray;

template <typename T>
std::vector<T> elements(const std::vector<std::byte>& bytes) {
  std::vector<T> values(bytes.size() / sizeof(T));
  EXPECT_EQ(bytes.size(), values.size() * sizeof(T));
  std::memcpy(values.data(), bytes.data(), bytes.size());
  return values;
}

const std::vector<float>& awkward() {
  static const std::vector<float> values = {0.0F,
                                            -0.0F,
                                            1.0F,
                                            1.0F / 3,
                                            -2.0F / 3,
                                            65504.0F,
                                            -65519.0F,
                                            0x1p-24F,
                                            0x1.8p-24F,
                                            0x1p-25F,
                                            -0x1.fffffep-15F,
                                            std::numeric_limits<float>::denorm_min(),
                                            0x1.fep+127F,
                                            0x1.01p+0F,
                                            0x1.03p+0F};
  return values;
}

TEST(EncodeFloats, Float32KeepsItsBitsLittleEndian) {
  EXPECT_THAT(encode_floats(std::vector<float>{-2.0F}, DType::kF32),
              ElementsAre(std::byte{0}, std::byte{0}, std::byte{0}, std::byte{0xc0}));
  const auto bits = elements<uint32_t>(encode_floats(awkward(), DType::kF32));
  ASSERT_EQ(bits.size(), awkward().size());
  for (size_t i = 0; i < bits.size(); ++i)
    EXPECT_EQ(bits[i], std::bit_cast<uint32_t>(awkward()[i])) << awkward()[i];
}

TEST(EncodeFloats, SixteenBitFloatsAreRoundedHalfToEven) {
  // 1 + 2^-8 lies halfway between bfloat16 1 and 1 + 2^-7; 1 + 3·2^-8 between that and the next.
  EXPECT_THAT(elements<uint16_t>(encode_floats(
                  std::vector<float>{1.0F, 0x1.01p+0F, 0x1.03p+0F, -0.0F}, DType::kBF16)),
              ElementsAre(0x3f80, 0x3f80, 0x3f82, 0x8000));
  // 2^-25 lies halfway between 0 and the smallest float16, 1.5·2^-24 between that and the next.
  EXPECT_THAT(
      elements<uint16_t>(encode_floats(
          std::vector<float>{1.0F, 0x1p-24F, 0x1p-25F, 0x1.8p-24F, -65504.0F}, DType::kF16)),
      ElementsAre(0x3c00, 0x0001, 0x0000, 0x0002, 0xfbff));
}

TEST(EncodeFloats, SixteenBitFloatsAreThoseOfTheSingleValueConversions) {
  std::vector<uint16_t> half;
  std::vector<uint16_t> bfloat;
  for (const float value : awkward()) {
    half.push_back(formats::float_to_fp16(value));
    bfloat.push_back(formats::float_to_bf16(value));
  }
  EXPECT_THAT(elements<uint16_t>(encode_floats(awkward(), DType::kF16)), ElementsAreArray(half));
  EXPECT_THAT(elements<uint16_t>(encode_floats(awkward(), DType::kBF16)), ElementsAreArray(bfloat));
}

TEST(EncodeFloats, WholeNumbersBecomeInt8) {
  EXPECT_THAT(elements<int8_t>(encode_floats(
                  std::vector<float>{-128.0F, -1.0F, -0.0F, 0.0F, 1.0F, 127.0F}, DType::kI8)),
              ElementsAre(-128, -1, 0, 0, 1, 127));
}

TEST(EncodeFloats, NoValuesAreNoBytes) {
  for (const DType dtype : {DType::kF32, DType::kF16, DType::kBF16, DType::kI8})
    EXPECT_TRUE(encode_floats({}, dtype).empty());
  EXPECT_TRUE(encode_deq_scale({}, DType::kI64).empty());
}

TEST(EncodeFloats, OtherDtypesAreABug) {
  const std::vector<float> one = {1.0F};
  for (const DType dtype : {DType::kI64, DType::kI32})
    (void)error_message(ErrorCode::kInternal, [&] { (void)encode_floats(one, dtype); });
}

TEST(EncodeDeqScale, Float32ForBfloat16Models) {
  EXPECT_EQ(encode_deq_scale(awkward(), DType::kF32), encode_floats(awkward(), DType::kF32));
}

TEST(EncodeDeqScale, Int64HoldsTheBitsOfTheFloat32BelowAZeroUpperHalf) {
  std::vector<float> scales = awkward();  // a scale is positive
  std::erase_if(scales, [](float scale) { return std::signbit(scale); });
  const auto halves = elements<uint32_t>(encode_deq_scale(scales, DType::kI64));
  ASSERT_EQ(halves.size(), 2 * scales.size());
  for (size_t i = 0; i < scales.size(); ++i) {
    EXPECT_EQ(halves[2 * i], std::bit_cast<uint32_t>(scales[i])) << scales[i];
    EXPECT_EQ(halves[2 * i + 1], 0U) << scales[i];
  }
}

TEST(EncodeDeqScale, OtherDtypesAreABug) {
  const std::vector<float> one = {1.0F};
  for (const DType dtype : {DType::kF16, DType::kBF16, DType::kI32})
    (void)error_message(ErrorCode::kInternal, [&] { (void)encode_deq_scale(one, dtype); });
}

// What `value` stored as `dtype` is.
float stored_value(float value, DType dtype) {
  if (dtype == DType::kF16) return formats::fp16_to_float(formats::float_to_fp16(value));
  if (dtype == DType::kBF16) return formats::bf16_to_float(formats::float_to_bf16(value));
  return value;
}

TEST(RoundedFloats, AreWhatIsReadBackFromTheFileAtAnyAlignment) {
  const std::vector<DType> dtypes = {DType::kF32, DType::kF16, DType::kBF16};
  for (const DType stored : dtypes) {
    for (const DType written : dtypes) {
      SCOPED_TRACE(std::string(formats::dtype_name(stored)) + " to " +
                   std::string(formats::dtype_name(written)));
      const std::vector<std::byte> encoded = encode_floats(awkward(), stored);
      std::vector<std::byte> shifted(1);
      shifted.insert(shifted.end(), encoded.begin(), encoded.end());
      const std::span<const std::byte> odd = std::span(shifted).subspan(1);
      const std::vector<float> values = rounded_floats(odd, stored, written);
      ASSERT_EQ(values.size(), awkward().size());
      for (size_t i = 0; i < values.size(); ++i) {
        const float expected = stored_value(stored_value(awkward()[i], stored), written);
        EXPECT_EQ(std::bit_cast<uint32_t>(values[i]), std::bit_cast<uint32_t>(expected))
            << awkward()[i];
      }
    }
  }
}

}  // namespace
}  // namespace llmq::convert
