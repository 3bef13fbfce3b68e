#include "formats/json.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "formats/error.h"

namespace llmq::formats {
namespace {

std::string error_of(std::string_view text) {
  try {
    parse_json(text, "x.json");
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kBadInput);
    return error.what();
  }
  return "no error";
}

TEST(Json, KeepsTheOrderOfKeys) {
  EXPECT_EQ(parse_json(R"({"z":1,"a":2})", "x").dump(), R"({"z":1,"a":2})");
}

TEST(Json, BuildsNestedValuesOfEveryKind) {
  const char* text = R"([null,true,-1,18446744073709551615,0.5,"s",{"a":[1,{"b":[]}],"c":{}},[]])";
  EXPECT_EQ(parse_json(text, "x").dump(), text);
  EXPECT_EQ(parse_json("7", "x"), 7);
}

TEST(Json, AnObjectOfManyKeysKeepsThemAll) {
  constexpr int kKeys = 150000;
  std::string text = "{";
  for (int i = 0; i < kKeys; ++i) {
    if (i > 0) text.append(",");
    text.append("\"k").append(std::to_string(i)).append("\":").append(std::to_string(i));
  }
  text.append("}");
  const Json value = parse_json(text, "x");
  ASSERT_EQ(value.size(), static_cast<size_t>(kKeys));
  int expected = 0;
  for (const auto& [key, number] : value.items()) {
    ASSERT_EQ(key.substr(1), std::to_string(expected));
    ASSERT_EQ(number, expected++);
  }
}

TEST(Json, RefusesDuplicateKeysByName) {
  EXPECT_THAT(error_of(R"({"a":{"b":1,"b":2}})"), testing::HasSubstr("\"b\" appears twice"));
}

TEST(Json, RefusesDeepNestingWithoutRecursion) {
  EXPECT_THAT(error_of(std::string(1 << 20, '[')), testing::HasSubstr("deeper than 64"));
}

TEST(Json, NamesTheFileAndByteOfASyntaxError) {
  EXPECT_THAT(error_of("{\"a\": }"), testing::StartsWith("x.json: not valid JSON at byte 7"));
  EXPECT_THAT(error_of("{} x"), testing::HasSubstr("not valid JSON"));
  EXPECT_THAT(error_of(""), testing::HasSubstr("not valid JSON"));
}

TEST(Json, RefusesInvalidUtf8) {
  EXPECT_THAT(error_of("\"\xff\""), testing::HasSubstr("not valid JSON"));
}

}  // namespace
}  // namespace llmq::formats
