#include "formats/scheme.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <set>
#include <string>
#include <vector>

#include "formats/error.h"
#include "tests/tools/test_files.h"

namespace llmq::formats {
namespace {

using test::error_message;
using testing::HasSubstr;

struct Stored {
  std::string dtype;  ///< for an fp16 model / for a bf16 model
  Shape shape;
  bool operator==(const Stored&) const = default;
};

std::ostream& operator<<(std::ostream& stream, const Stored& stored) {
  return stream << stored.dtype << " " << shape_string(stored.shape);
}

// Every tensor of a scheme for a linear [n, k].
std::map<std::string, Stored> tensors_of(Scheme scheme, const LinearExtents& extents) {
  std::map<std::string, Stored> tensors;
  for (const TensorRule& rule : scheme_row(scheme).tensors) {
    const std::string fp16(dtype_name(resolve_dtype(rule.dtype, DType::kF16)));
    const std::string bf16(dtype_name(resolve_dtype(rule.dtype, DType::kBF16)));
    tensors[std::string(rule.suffix)] = {fp16 == bf16 ? fp16 : fmt::format("{}/{}", fp16, bf16),
                                         resolve_shape(rule.shape, extents)};
  }
  return tensors;
}

// The files that the serving engines load, for n = 6 outputs and k = 8 inputs.
TEST(Scheme, TensorsPerChannelAreThoseThatEnginesLoad) {
  const std::map<std::string, Stored> weight_only = {
      {".weight", {"I8", {6, 8}}},
      {".weight_scale", {"F32", {6, 1}}},
      {".weight_offset", {"F32", {6, 1}}},
  };
  std::map<std::string, Stored> sparse = {
      {".weight", {"I8", {6, 8}}},          {".input_scale", {"F16/BF16", {1}}},
      {".input_offset", {"F16/BF16", {1}}}, {".quant_bias", {"I32", {6}}},
      {".deq_scale", {"I64/F32", {6}}},
  };
  std::map<std::string, Stored> static_int8 = sparse;
  static_int8.insert(weight_only.begin(), weight_only.end());
  std::map<std::string, Stored> compressed = sparse;
  compressed[".weight"] = {"I8", {}};
  compressed[".index"] = {"I8", {}};
  compressed[".info"] = {"I64", {5}};
  compressed[".input_offset"] = {"I8", {1}};
  const std::map<std::string, Stored> int4 = {
      {".weight", {"I8", {6, 4}}},
      {".weight_scale", {"F32", {6, 1}}},
      {".weight_offset", {"F32", {6, 1}}},
  };
  const std::map<std::string, Stored> kv_cache = {
      {".kv_cache_scale", {"F16/BF16", {6}}},
      {".kv_cache_offset", {"F16/BF16", {6}}},
  };
  const std::map<std::string, Stored> attention = {
      {".scale", {"F16/BF16", {6, 1}}},
      {".offset", {"I8", {6, 1}}},
  };
  const LinearExtents extents{6, 8, 0};
  EXPECT_EQ(tensors_of(Scheme::kFloat, extents),
            (std::map<std::string, Stored>{{".weight", {"F16/BF16", {6, 8}}}}));
  EXPECT_EQ(tensors_of(Scheme::kW8A16, extents), weight_only);
  EXPECT_EQ(tensors_of(Scheme::kW8A8Dynamic, extents), weight_only);
  EXPECT_EQ(tensors_of(Scheme::kW8A8, extents), static_int8);
  EXPECT_EQ(tensors_of(Scheme::kW8A8Mix, extents), static_int8);
  EXPECT_EQ(tensors_of(Scheme::kW8A8S, extents), sparse);
  EXPECT_EQ(tensors_of(Scheme::kW8A8SC, extents), compressed);
  EXPECT_EQ(tensors_of(Scheme::kW4A16, extents), int4);
  EXPECT_EQ(tensors_of(Scheme::kC8, extents), kv_cache);
  EXPECT_EQ(tensors_of(Scheme::kFaQuant, extents), attention);
}

TEST(Scheme, GroupsAddScaleColumnsAndInt4PacksAlongTheOutputs) {
  const LinearExtents extents{6, 128, 32};
  EXPECT_EQ(tensors_of(Scheme::kW8A16, extents).at(".weight_scale"), (Stored{"F32", {6, 4}}));
  EXPECT_EQ(tensors_of(Scheme::kW8A16, extents).at(".weight"), (Stored{"I8", {6, 128}}));
  EXPECT_EQ(tensors_of(Scheme::kW4A16, extents).at(".weight"), (Stored{"I8", {3, 128}}));
  EXPECT_EQ(tensors_of(Scheme::kW4A16, extents).at(".weight_offset"), (Stored{"F32", {6, 4}}));
}

TEST(Scheme, ShapesThatDoNotDivideAreRefusedWithTheNumbers) {
  const auto message = [](ShapeRule rule, const LinearExtents& extents) {
    return error_message(ErrorCode::kBadInput, [&] { (void)resolve_shape(rule, extents); });
  };
  EXPECT_THAT(message(ShapeRule::kNGroups, {4, 100, 32}),
              HasSubstr("group_size 32 does not divide the 100 input channels"));
  EXPECT_THAT(message(ShapeRule::kNGroups, {4, 100, -1}), HasSubstr("group_size -1"));
  EXPECT_THAT(message(ShapeRule::kNK, {4, 100, 200}), HasSubstr("group_size 200"));
  EXPECT_THAT(message(ShapeRule::kPacked4, {4, 7, 0}), HasSubstr("[4, 7]"));
  EXPECT_THAT(message(ShapeRule::kPacked4, {5, 64, 32}), HasSubstr("[5, 64]"));
  EXPECT_EQ(resolve_shape(ShapeRule::kPacked4, {5, 64, 0}), (Shape{5, 32}));
  EXPECT_EQ(resolve_shape(ShapeRule::kPacked4, {6, 7, 7}), (Shape{3, 7}));
}

TEST(Scheme, RowsStandWhereTheirSchemeLooksThemUp) {
  for (const SchemeRow& row : schemes()) EXPECT_EQ(&scheme_row(row.scheme), &row) << row.tag;
}

TEST(Scheme, TagsAreThoseOfTheDescriptionAndComeBack) {
  std::set<std::string> tags;
  for (const SchemeRow& row : schemes()) {
    tags.insert(std::string(row.tag));
    EXPECT_EQ(parse_scheme_tag(row.tag), row.scheme);
  }
  EXPECT_EQ(tags, (std::set<std::string>{"FLOAT", "W8A8", "W8A8_DYNAMIC", "W8A8_MIX", "W8A16",
                                         "W4A16", "W8A8S", "W8A8SC", "C8", "FAQuant"}));
}

TEST(Scheme, UnknownTagListsTheKnownOnes) {
  for (const char* tag : {"", "w8a16", "W8A16 ", "NF4", "INT8"}) {
    const std::string message =
        error_message(ErrorCode::kBadInput, [&] { (void)parse_scheme_tag(tag); });
    EXPECT_THAT(message, HasSubstr("\"" + std::string(tag) + "\""));
    EXPECT_THAT(message, HasSubstr("FLOAT, W8A8, W8A8_DYNAMIC"));
  }
}

// config.json's `quantize` must be one of the values that the engine's validation accepts.
TEST(Scheme, QuantizeNamesAreThoseThatTheEngineAccepts) {
  const std::set<std::string_view> accepted = {
      "w8a8",       "w8a8s",        "w8a8sc",   "w8a16",   "w4a16",   "w8a8_dynamic",
      "w8a8_pdmix", "w4a8_dynamic", "w8a8_mix", "w16a16s", "w16a16sc"};
  for (const SchemeRow& row : schemes()) {
    if (row.scheme == Scheme::kFloat) continue;
    EXPECT_EQ(accepted.contains(row.quantize), row.is_linear) << row.tag;
  }
}

TEST(Scheme, StrongerSchemesNameAMixedModel) {
  const std::vector<Scheme> rising = {Scheme::kFloat, Scheme::kW8A16, Scheme::kW8A8Dynamic,
                                      Scheme::kW8A8Mix, Scheme::kW8A8};
  for (size_t i = 1; i < rising.size(); ++i) {
    EXPECT_GT(scheme_row(rising[i]).priority, scheme_row(rising[i - 1]).priority)
        << scheme_row(rising[i]).tag;
  }
}

TEST(Scheme, SlicesOfRowParallelLinearsKeepTheSumRight) {
  for (const SchemeRow& row : schemes()) {
    for (const TensorRule& rule : row.tensors) {
      if (rule.suffix == ".quant_bias") {
        EXPECT_EQ(rule.slice, SliceRule::kRankZero);
      }
      if (rule.suffix == ".deq_scale") {
        EXPECT_EQ(rule.slice, SliceRule::kPerOutput);
      }
      if (rule.suffix == ".weight_scale") {
        EXPECT_EQ(rule.slice, SliceRule::kPerGroup);
      }
      if (rule.suffix == ".input_scale") {
        EXPECT_EQ(rule.slice, SliceRule::kReplicated);
      }
    }
  }
}

}  // namespace
}  // namespace llmq::formats
