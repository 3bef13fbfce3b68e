#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "formats/error.h"
#include "runtime/model/emulation.h"

namespace llmq::runtime {
namespace {

using ::testing::HasSubstr;

TEST(Emulation, every_engine_has_one_name_and_the_specification_comes_first) {
  ASSERT_EQ(emulations().size(), 3U);
  EXPECT_EQ(emulations().front().emulation, Emulation::kSpec);
  for (const EmulationRow& row : emulations()) {
    EXPECT_EQ(parse_emulation(row.name), row.emulation);
    EXPECT_EQ(emulation_row(row.emulation).name, row.name);
  }
  EXPECT_EQ(parse_emulation("spec"), Emulation::kSpec);
  EXPECT_EQ(parse_emulation("mindie"), Emulation::kMindie);
  EXPECT_EQ(parse_emulation("vllm-ascend"), Emulation::kVllmAscend);
}

TEST(Emulation, the_engines_multiply_by_the_reciprocal_and_the_specification_divides) {
  EXPECT_FALSE(emulation_row(Emulation::kSpec).multiplies_by_reciprocal);
  EXPECT_TRUE(emulation_row(Emulation::kMindie).multiplies_by_reciprocal);
  EXPECT_TRUE(emulation_row(Emulation::kVllmAscend).multiplies_by_reciprocal);
}

TEST(Emulation, an_unknown_name_is_refused_with_the_names_there_are) {
  for (const char* wrong : {"", "Spec", "spec ", "vllm", "mindie2"}) {
    try {
      parse_emulation(wrong);
      ADD_FAILURE() << wrong << " was accepted";
    } catch (const formats::Error& error) {
      EXPECT_EQ(error.code(), formats::ErrorCode::kUsage);
      EXPECT_THAT(error.what(), HasSubstr(wrong));
      for (const char* name : {"spec", "mindie", "vllm-ascend"})
        EXPECT_THAT(error.what(), HasSubstr(name));
    }
  }
}

}  // namespace
}  // namespace llmq::runtime
