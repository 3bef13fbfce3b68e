#include "formats/dtype.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <limits>
#include <set>
#include <string>
#include <vector>

#include "formats/error.h"
#include "tests/tools/test_files.h"

namespace llmq::formats {
namespace {

using testing::HasSubstr;

struct NamedDType {
  DType dtype;
  std::string_view name;
  size_t size_bytes;
};

// The names and sizes of the safetensors format.
const std::vector<NamedDType> kPublished = {
    {DType::kF64, "F64", 8},   {DType::kF32, "F32", 4},        {DType::kF16, "F16", 2},
    {DType::kBF16, "BF16", 2}, {DType::kI64, "I64", 8},        {DType::kI32, "I32", 4},
    {DType::kI16, "I16", 2},   {DType::kI8, "I8", 1},          {DType::kU8, "U8", 1},
    {DType::kBool, "BOOL", 1}, {DType::kF8E4M3, "F8_E4M3", 1}, {DType::kF8E5M2, "F8_E5M2", 1},
};

TEST(DType, NamesAndSizesAreThoseOfSafetensors) {
  for (const NamedDType& row : kPublished) {
    EXPECT_EQ(dtype_name(row.dtype), row.name);
    EXPECT_EQ(parse_dtype(row.name), row.dtype) << row.name;
    EXPECT_EQ(dtype_size_bytes(row.dtype), row.size_bytes) << row.name;
  }
}

TEST(DType, NamesThatTheFormatDoesNotHaveAreRefused) {
  for (const char* name : {"", "f32", "F32 ", "FP16", "U16", "I4", "float32"}) {
    const std::string message =
        test::error_message(ErrorCode::kBadInput, [&] { (void)parse_dtype(name); });
    EXPECT_THAT(message, HasSubstr("'" + std::string(name) + "'"));
  }
}

TEST(DType, OnlyThreeTypesHoldFloatWeights) {
  const std::set<DType> floats{DType::kF32, DType::kF16, DType::kBF16};
  for (const NamedDType& row : kPublished) {
    EXPECT_EQ(is_weight_float(row.dtype), floats.contains(row.dtype)) << row.name;
  }
}

TEST(DType, TorchNamesComeBackWithAndWithoutPrefix) {
  for (const DType dtype : {DType::kF16, DType::kBF16, DType::kF32}) {
    const std::string name(torch_dtype_name(dtype));
    EXPECT_EQ(parse_torch_dtype(name), dtype);
    EXPECT_EQ(parse_torch_dtype("torch." + name), dtype);
  }
  EXPECT_EQ(torch_dtype_name(DType::kBF16), "bfloat16");
}

TEST(DType, TorchNameOfAnotherTypeIsRefusedWithTheKnownOnes) {
  for (const char* name : {"int8", "auto", "float64", "torch.float8_e4m3fn", ""}) {
    EXPECT_THAT(test::error_message(ErrorCode::kBadInput, [&] { (void)parse_torch_dtype(name); }),
                HasSubstr("float16, bfloat16 and float32"));
  }
  test::error_message(ErrorCode::kInternal, [] { (void)torch_dtype_name(DType::kI8); });
}

TEST(Shape, ElementsAreTheProductAndOneForAScalar) {
  EXPECT_EQ(shape_elements({}), 1);
  EXPECT_EQ(shape_elements({7}), 7);
  EXPECT_EQ(shape_elements({3, 0, 5}), 0);
  EXPECT_EQ(shape_elements({2, 3, 4}), 24);
  EXPECT_EQ(shape_elements({std::numeric_limits<int64_t>::max(), 1}),
            std::numeric_limits<int64_t>::max());
}

TEST(Shape, NegativeExtentsAndOverflowAreRefusedWithTheShape) {
  constexpr int64_t kLarge = int64_t{1} << 32;
  EXPECT_THAT(test::error_message(ErrorCode::kBadInput,
                                  [] {
                                    (void)shape_elements({2, -1});
                                  }),
              HasSubstr("[2, -1]"));
  EXPECT_THAT(test::error_message(ErrorCode::kBadInput,
                                  [] {
                                    (void)shape_elements({kLarge, kLarge});
                                  }),
              HasSubstr("[4294967296, 4294967296]"));
}

TEST(Shape, TextListsTheExtentsOutermostFirst) {
  EXPECT_EQ(shape_string({}), "[]");
  EXPECT_EQ(shape_string({5}), "[5]");
  EXPECT_EQ(shape_string({2, 3}), "[2, 3]");
}

TEST(Shape, SizeInBytesMultipliesByTheElementAndRefusesOverflow) {
  constexpr int64_t kLargest = std::numeric_limits<int64_t>::max();
  EXPECT_EQ(tensor_size_bytes(DType::kBF16, {3, 5}), 30U);
  EXPECT_EQ(tensor_size_bytes(DType::kF64, {}), 8U);
  EXPECT_EQ(tensor_size_bytes(DType::kF16, {kLargest}), uint64_t{kLargest} * 2);
  test::error_message(ErrorCode::kBadInput,
                      [] { (void)tensor_size_bytes(DType::kF32, {kLargest}); });
}

}  // namespace
}  // namespace llmq::formats
