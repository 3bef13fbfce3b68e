#include "formats/dialect.h"

#include <gtest/gtest.h>

#include "formats/error.h"

namespace llmq::formats {
namespace {

const TensorRule& rule_of(Scheme scheme, std::string_view suffix) {
  for (const TensorRule& rule : scheme_row(scheme).tensors) {
    if (rule.suffix == suffix) return rule;
  }
  throw Error(ErrorCode::kInternal, "no such rule");
}

TEST(Dialect, layouts_of_int4_are_told_apart_by_their_shape) {
  EXPECT_EQ(int4_layout({6, 8}, 6, 8), Int4Layout::kOnePerByte);
  EXPECT_EQ(int4_layout({6, 4}, 6, 8), Int4Layout::kColumnPairs);
  EXPECT_EQ(int4_layout({3, 8}, 6, 8), Int4Layout::kRowPairs);
  EXPECT_EQ(int4_layout({3, 4}, 6, 8), std::nullopt);
  EXPECT_EQ(int4_layout({2, 8}, 5, 8), std::nullopt);
  EXPECT_EQ(int4_layout({24}, 6, 8), std::nullopt);
}

TEST(Dialect, codes_lie_in_pairs_from_version_1_on) {
  Description description;
  EXPECT_FALSE(stores_int4_pairs(description));
  description.version = "0.0.0";
  EXPECT_FALSE(stores_int4_pairs(description));
  for (const char* version : {"1.0.0", "2.1.0", "10.0.0"}) {
    description.version = version;
    EXPECT_TRUE(stores_int4_pairs(description)) << version;
  }
}

TEST(Dialect, sixteen_bit_weights_are_float_whatever_their_tag) {
  EXPECT_EQ(effective_scheme(Scheme::kW8A8, DType::kF16), Scheme::kFloat);
  EXPECT_EQ(effective_scheme(Scheme::kW4A16, DType::kBF16), Scheme::kFloat);
  EXPECT_EQ(effective_scheme(Scheme::kW8A8, DType::kI8), Scheme::kW8A8);
  EXPECT_EQ(effective_scheme(Scheme::kW8A8, DType::kF32), Scheme::kW8A8);
}

TEST(Dialect, parameters_may_be_stored_in_every_float_type_and_offsets_of_inputs_in_int8) {
  const auto accepts = [](std::string_view suffix, DType stored) {
    return accepts_dtype(rule_of(Scheme::kW8A8, suffix), stored, DType::kF16);
  };
  for (const DType dtype : {DType::kF32, DType::kF16, DType::kBF16}) {
    for (const char* suffix : {".input_scale", ".input_offset", ".weight_scale", ".weight_offset"})
      EXPECT_TRUE(accepts(suffix, dtype)) << suffix;
    EXPECT_FALSE(accepts(".weight", dtype));
    EXPECT_FALSE(accepts(".quant_bias", dtype));
  }
  EXPECT_TRUE(accepts(".input_offset", DType::kI8));
  EXPECT_FALSE(accepts(".input_scale", DType::kI8));
  EXPECT_FALSE(accepts(".weight_scale", DType::kF64));
  EXPECT_TRUE(accepts(".deq_scale", DType::kI64));
  EXPECT_FALSE(accepts(".deq_scale", DType::kF32));
}

TEST(Dialect, vectors_serve_for_columns_and_scalars_for_single_elements) {
  EXPECT_TRUE(accepts_shape({7}, {7, 1}));
  EXPECT_TRUE(accepts_shape({7, 1}, {7, 1}));
  EXPECT_TRUE(accepts_shape({}, {1}));
  EXPECT_TRUE(accepts_shape({1}, {1}));
  EXPECT_TRUE(accepts_shape({3, 9}, {}));
  EXPECT_FALSE(accepts_shape({14}, {7, 2}));
  EXPECT_FALSE(accepts_shape({1, 7}, {7, 1}));
  EXPECT_FALSE(accepts_shape({0}, {1}));
  EXPECT_FALSE(accepts_shape({}, {7}));
}

TEST(Dialect, the_shape_of_scales_gives_the_group_size) {
  EXPECT_EQ(group_size_of({5}, 32), 0);
  EXPECT_EQ(group_size_of({5, 1}, 32), 0);
  EXPECT_EQ(group_size_of({5, 4}, 32), 8);
  for (const Shape& wrong : {Shape{}, Shape{5, 0}, Shape{5, 3}, Shape{5, 4, 1}})
    EXPECT_THROW(group_size_of(wrong, 32), Error) << shape_string(wrong);
}

}  // namespace
}  // namespace llmq::formats
