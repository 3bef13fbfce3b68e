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
