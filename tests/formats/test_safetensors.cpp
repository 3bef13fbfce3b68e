#include "formats/safetensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstddef>
#include <ostream>
#include <span>
#include <string>
#include <vector>

#include "formats/error.h"
#include "tests/convert/checkpoint_writer.h"
#include "tests/tools/test_files.h"

namespace llmq::formats {
namespace {

using test::le64;
using test::safetensors_file;
using testing::AllOf;
using testing::HasSubstr;

SafetensorsHeader parse(std::string_view file) {
  return parse_safetensors_header(std::as_bytes(std::span(file)), "x.safetensors");
}

TEST(Safetensors, ReadsEveryTensorOfAnotherWriterInByteOrder) {
  const std::string header = R"({"b":{"dtype":"I64","shape":[2],"data_offsets":[6,22]},)"
                             R"("__metadata__":{"format":"pt","by":"someone"},)"
                             R"("a":{"dtype":"BF16","shape":[1,3],"data_offsets":[0,6]},)"
                             R"("scalar":{"dtype":"F32","shape":[],"data_offsets":[22,26]}}   )";
  const SafetensorsHeader parsed = parse(safetensors_file(header, std::string(26, 'x')));
  EXPECT_EQ(parsed.data_begin, 8 + header.size());
  EXPECT_EQ(parsed.metadata.at("format"), "pt");
  EXPECT_EQ(parsed.metadata.at("by"), "someone");
  ASSERT_EQ(parsed.tensors.size(), 3U);
  EXPECT_EQ(parsed.tensors[0].name, "a");
  EXPECT_EQ(parsed.tensors[0].dtype, DType::kBF16);
  EXPECT_EQ(parsed.tensors[0].shape, (Shape{1, 3}));
  EXPECT_EQ(parsed.tensors[1].name, "b");
  EXPECT_EQ(parsed.tensors[1].begin, 6U);
  EXPECT_EQ(parsed.tensors[1].size_bytes(), 16U);
  EXPECT_EQ(parsed.tensors[2].shape, Shape{});
}

TEST(Safetensors, AFileWithoutTensorsIsValid) {
  EXPECT_TRUE(parse(safetensors_file("{}", "")).tensors.empty());
  const SafetensorsHeader parsed = parse(safetensors_file(R"({"__metadata__":{}})", ""));
  EXPECT_TRUE(parsed.tensors.empty());
  EXPECT_TRUE(parsed.metadata.empty());
}

TEST(Safetensors, EmptyTensorsMayStandAnywhere) {
  const std::string header = R"({"first":{"dtype":"F32","shape":[0],"data_offsets":[0,0]},)"
                             R"("full":{"dtype":"I8","shape":[4],"data_offsets":[0,4]},)"
                             R"("middle":{"dtype":"F32","shape":[3,0],"data_offsets":[4,4]},)"
                             R"("more":{"dtype":"I8","shape":[1],"data_offsets":[4,5]},)"
                             R"("last":{"dtype":"F32","shape":[0,9],"data_offsets":[5,5]}})";
  EXPECT_EQ(parse(safetensors_file(header, "12345")).tensors.size(), 5U);
}

TEST(Safetensors, MetadataThatIsNoTextKeepsItsSpelling) {
  const SafetensorsHeader parsed =
      parse(safetensors_file(R"({"__metadata__":{"n":3,"none":null,"t":"x"}})", ""));
  EXPECT_EQ(parsed.metadata.at("n"), "3");
  EXPECT_EQ(parsed.metadata.at("none"), "null");
  EXPECT_EQ(parsed.metadata.at("t"), "x");
}

TEST(Safetensors, ANameMayBeAnyUtf8Text) {
  const std::string header = R"({"":{"dtype":"I8","shape":[1],"data_offsets":[0,1]},)"
                             R"("名前 \"x\"":{"dtype":"I8","shape":[1],"data_offsets":[1,2]}})";
  const SafetensorsHeader parsed = parse(safetensors_file(header, "ab"));
  EXPECT_EQ(parsed.tensors[0].name, "");
  EXPECT_EQ(parsed.tensors[1].name, "名前 \"x\"");
}

struct Broken {
  const char* name;
  std::string file;
  const char* words;  ///< what the message says
};

std::ostream& operator<<(std::ostream& stream, const Broken& broken) {
  return stream << broken.name;
}

std::string one_tensor(const std::string& fields, size_t n_data_bytes = 4) {
  return safetensors_file(R"({"layer.w":{)" + fields + "}}", std::string(n_data_bytes, 'x'));
}

class SafetensorsBroken : public testing::TestWithParam<Broken> {};

TEST_P(SafetensorsBroken, IsRefusedWithFileAndReason) {
  const std::string message =
      test::error_message(ErrorCode::kBadInput, [] { (void)parse(GetParam().file); });
  EXPECT_THAT(message, AllOf(HasSubstr("x.safetensors"), HasSubstr(GetParam().words)));
}

const std::vector<Broken> kBroken = {
    {"nothing", "", "0 bytes are too few"},
    {"length_cut", le64(2).substr(0, 3), "3 bytes are too few"},
    {"length_above_the_file", le64(3) + "{}", "header length 3 at offset 0 is more than the 2"},
    {"length_above_the_limit", le64(kMaxSafetensorsHeaderBytes + 1) + "{}", "exceeds the limit"},
    {"length_of_all_ones", le64(UINT64_MAX) + "{}", "exceeds the limit"},
    {"length_zero", le64(0), "not valid JSON"},
    {"header_is_a_list", safetensors_file("[]", ""), "not a JSON object"},
    {"header_is_cut", safetensors_file(R"({"a":)", ""), "not valid JSON"},
    {"header_too_deep", safetensors_file(R"({"a":[[[[[[[[[]]]]]]]]]})", ""), "nested deeper"},
    {"metadata_is_a_list", safetensors_file(R"({"__metadata__":[]})", ""), "not an object"},
    {"name_twice",
     safetensors_file(R"({"w":{"dtype":"I8","shape":[1],"data_offsets":[0,1]},)"
                      R"("w":{"dtype":"I8","shape":[1],"data_offsets":[1,2]}})",
                      "ab"),
     "\"w\" appears twice"},
    {"entry_is_a_number", safetensors_file(R"({"layer.w":7})", ""), "layer.w"},
    {"dtype_missing", one_tensor(R"("shape":[4],"data_offsets":[0,4])"), "\"dtype\" is missing"},
    {"dtype_unknown", one_tensor(R"("dtype":"I4","shape":[8],"data_offsets":[0,4])"), "'I4'"},
    {"dtype_a_number", one_tensor(R"("dtype":1,"shape":[4],"data_offsets":[0,4])"), "not a string"},
    {"shape_missing", one_tensor(R"("dtype":"I8","data_offsets":[0,4])"), "\"shape\" is missing"},
    {"shape_a_number", one_tensor(R"("dtype":"I8","shape":4,"data_offsets":[0,4])"), "not a list"},
    {"shape_negative", one_tensor(R"("dtype":"I8","shape":[-4],"data_offsets":[0,4])"), "-4"},
    {"shape_of_fractions", one_tensor(R"("dtype":"I8","shape":[4.0],"data_offsets":[0,4])"),
     "not a whole number"},
    {"shape_beyond_int64",
     one_tensor(R"("dtype":"I8","shape":[9223372036854775808],"data_offsets":[0,4])"), "2^63"},
    {"shape_product_wraps_to_the_size",
     one_tensor(R"("dtype":"I8","shape":[4294967296,4294967296],"data_offsets":[0,0])", 0),
     "more elements"},
    {"bytes_wrap_to_the_size",
     one_tensor(R"("dtype":"F32","shape":[4611686018427387904],"data_offsets":[0,0])", 0), "2^64"},
    {"offsets_missing", one_tensor(R"("dtype":"I8","shape":[4])"), "\"data_offsets\" is missing"},
    {"offsets_of_three", one_tensor(R"("dtype":"I8","shape":[4],"data_offsets":[0,4,4])"), "pair"},
    {"offsets_negative", one_tensor(R"("dtype":"I8","shape":[4],"data_offsets":[-4,0])"), "-4"},
    {"offsets_backwards", one_tensor(R"("dtype":"I8","shape":[4],"data_offsets":[4,0])"),
     "end before they begin"},
    {"size_not_that_of_the_shape", one_tensor(R"("dtype":"F16","shape":[4],"data_offsets":[0,4])"),
     "hold 4 bytes but F16 [4] needs 8"},
    {"data_cut", one_tensor(R"("dtype":"I8","shape":[4],"data_offsets":[0,4])", 3), "truncated"},
    {"data_too_long", one_tensor(R"("dtype":"I8","shape":[4],"data_offsets":[0,4])", 5),
     "1 bytes too many"},
    {"gap_before_the_first", one_tensor(R"("dtype":"I8","shape":[4],"data_offsets":[1,5])", 5),
     "(gap)"},
    {"gap_between",
     safetensors_file(R"({"a":{"dtype":"I8","shape":[1],"data_offsets":[0,1]},)"
                      R"("b":{"dtype":"I8","shape":[1],"data_offsets":[2,3]}})",
                      "abc"),
     "tensor b: its bytes begin at 2"},
    {"overlap",
     safetensors_file(R"({"a":{"dtype":"I8","shape":[2],"data_offsets":[0,2]},)"
                      R"("b":{"dtype":"I8","shape":[2],"data_offsets":[1,3]}})",
                      "abc"),
     "(overlap)"},
};

INSTANTIATE_TEST_SUITE_P(Safetensors, SafetensorsBroken, testing::ValuesIn(kBroken),
                         [](const auto& tested) { return std::string(tested.param.name); });

TEST(Safetensors, WhatIsWrittenIsReadBackByThisAndTheIndependentReader) {
  std::vector<TensorEntry> tensors = {{"a.\"quoted\"", DType::kI8, {2, 3}, 0, 0},
                                      {"empty", DType::kF32, {0}, 0, 0},
                                      {"scalar", DType::kI64, {}, 0, 0}};
  assign_offsets(tensors);
  EXPECT_EQ(tensors[0].end, 6U);
  EXPECT_EQ(tensors[2].begin, 6U);
  EXPECT_EQ(tensors[2].end, 14U);
  const std::string header = serialize_safetensors_header(tensors, {{"format", "pt"}});
  EXPECT_EQ(header.size() % 8, 0U);
  const std::string file = header + "abcdef12345678";

  const SafetensorsHeader parsed = parse(file);
  EXPECT_EQ(parsed.data_begin, header.size());
  EXPECT_EQ(parsed.metadata.at("format"), "pt");
  const test::TemporaryFolder folder;
  test::write_file(folder / "x.safetensors", file);
  const auto read = test::read_safetensors(folder / "x.safetensors");
  ASSERT_EQ(read.size(), 3U);
  EXPECT_EQ(read[0], (test::RawTensor{"a.\"quoted\"", "I8", {2, 3}, "abcdef"}));
  EXPECT_EQ(read[2], (test::RawTensor{"scalar", "I64", {}, "12345678"}));
}

TEST(Safetensors, OffsetsThatOverflowAreRefusedByTensor) {
  constexpr int64_t kHuge = INT64_MAX;
  std::vector<TensorEntry> tensors = {{"a", DType::kF16, {kHuge}, 0, 0},
                                      {"b", DType::kI8, {kHuge}, 0, 0}};
  EXPECT_THAT(test::error_message(ErrorCode::kBadInput, [&] { assign_offsets(tensors); }),
              HasSubstr("tensor b"));
}

}  // namespace
}  // namespace llmq::formats
