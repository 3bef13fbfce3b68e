#include "convert/arguments.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace llmq::convert {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

Arguments translate(std::vector<std::string> words) {
  words.insert(words.begin(), "llmq");
  std::vector<const char*> argv;
  argv.reserve(words.size());
  for (const std::string& word : words) argv.push_back(word.c_str());
  return translate_arguments(static_cast<int>(argv.size()), argv.data());
}

TEST(Arguments, OneDashOrTwoAndEitherSeparatorAreTheSameOption) {
  for (const char* spelling : {"-model_path", "--model_path", "-model-path", "--model-path",
                               "--MODEL_PATH", "-Model-Path"}) {
    EXPECT_THAT(translate({spelling, "x"}).words, ElementsAre("--model-path", "x")) << spelling;
  }
}

TEST(Arguments, ValuesAreNeverChanged) {
  EXPECT_THAT(
      translate({"quant", "-src", "/A_b/C-D", "-disable_names", "model.layers_0.*,X_Y"}).words,
      ElementsAre("quant", "--src", "/A_b/C-D", "--disable-names", "model.layers_0.*,X_Y"));
}

TEST(Arguments, ValueAfterAnEqualsSignStaysWithItsOption) {
  EXPECT_THAT(translate({"-save_path=/A_b=c"}).words, ElementsAre("--save-path=/A_b=c"));
  EXPECT_THAT(translate({"--recipe="}).words, ElementsAre("--recipe="));
}

TEST(Arguments, NumbersLoneDashesAndLongerRunsOfDashesAreNotOptions) {
  EXPECT_THAT(translate({"--fraction", "-0.5", "-", "--", "---x", "-1", ""}).words,
              ElementsAre("--fraction", "-0.5", "-", "--", "---x", "-1", ""));
}

TEST(Arguments, ShortOptionsKeepTheirOneDash) {
  EXPECT_THAT(translate({"-h", "--h"}).words, ElementsAre("-h", "-h"));
}

// A mark stands before the text, so that the parser takes it for what it is.
TEST(Arguments, FreeTextMayBeginWithADashOrBeEmpty) {
  const auto text = [](const std::string& words) { return kTextMark + words; };
  EXPECT_THAT(translate({"--input_texts", "-src is an option", "--split", "--"}).words,
              ElementsAre("--input-texts", text("-src is an option"), "--split", text("--")));
  EXPECT_THAT(translate({"--input_texts=-x", "-n", "3"}).words,
              ElementsAre("--input-texts", text("-x"), "-n", "3"));
  EXPECT_THAT(translate({"--split="}).words, ElementsAre("--split", text("")));
  EXPECT_THAT(translate({"--split", ""}).words, ElementsAre("--split", text("")));
  EXPECT_THAT(translate({"--input_texts"}).words, ElementsAre("--input-texts"));
}

TEST(Arguments, OptionsOfOtherToolsAreTakenOutWithTheirValueAndExplained) {
  for (const std::string name :
       {"device_type", "device", "use_devices", "msmodelslim_path", "scenario", "config_path"}) {
    const Arguments arguments = translate({"quant", "--" + name, "value", "-src", "x"});
    EXPECT_THAT(arguments.words, ElementsAre("quant", "--src", "x")) << name;
    std::string spelled = name;
    for (char& c : spelled) c = c == '_' ? '-' : c;
    ASSERT_EQ(arguments.notes.size(), 1U) << name;
    EXPECT_THAT(arguments.notes[0], HasSubstr("--" + spelled + " is not needed"));
  }
}

TEST(Arguments, OptionsOfOtherToolsMayCarryTheirValueBehindAnEqualsSign) {
  EXPECT_THAT(translate({"--device=npu", "SRC"}).words, ElementsAre("SRC"));
}

TEST(Arguments, TrustRemoteCodeIsAFlagInOneToolAndTakesAWordInAnother) {
  EXPECT_THAT(translate({"-trust_remote_code", "-src", "x"}).words, ElementsAre("--src", "x"));
  EXPECT_THAT(translate({"--trust_remote_code", "True", "-src", "x"}).words,
              ElementsAre("--src", "x"));
  EXPECT_THAT(translate({"convert", "-trust_remote_code", "SRC", "DST"}).words,
              ElementsAre("convert", "SRC", "DST"));
  EXPECT_THAT(translate({"-src", "x", "-trust_remote_code"}).words, ElementsAre("--src", "x"));
}

TEST(Arguments, AnOptionWithoutItsValueDoesNotSwallowTheNextOption) {
  EXPECT_THAT(translate({"--device", "-src", "x"}).words, ElementsAre("--src", "x"));
}

TEST(Arguments, NoWordsAreNoWords) {
  EXPECT_THAT(translate({}).words, IsEmpty());
  EXPECT_THAT(translate_arguments(0, nullptr).words, IsEmpty());
}

TEST(CanonicalOption, IsLowerCaseWithDashes) {
  EXPECT_EQ(canonical_option("Part_File_SIZE"), "part-file-size");
  EXPECT_EQ(canonical_option("w-sym"), "w-sym");
  EXPECT_EQ(canonical_option(""), "");
}

}  // namespace
}  // namespace llmq::convert
