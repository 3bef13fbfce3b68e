#include <gtest/gtest.h>
#include <utf8proc.h>

#include <set>

#include "runtime/tokenizer/normalizer.h"
#include "tests/runtime/tokenizer/tokenizer_test_util.h"

namespace llmq::runtime {
namespace {

constexpr const char* kMark = "\xEF\xBF\xBD";

std::string utf8(char32_t code_point) {
  std::string text;
  append_utf8(code_point, text);
  return text;
}

/// NFC by the library's own routine, an implementation apart from the one under test.
std::string nfc_reference(const std::string& text) {
  auto* result = utf8proc_NFC(reinterpret_cast<const utf8proc_uint8_t*>(text.c_str()));
  std::string out(reinterpret_cast<const char*>(result));
  std::free(result);
  return out;
}

TEST(Utf8Repair, ReplacesEachMaximalPrefixOnceAsTheUnicodeStandardRecommends) {
  // The example of the standard's section 3.9, "U+FFFD Substitution of Maximal Subparts".
  const std::string bytes = "\x61\xF1\x80\x80\xE1\x80\xC2\x62\x80\x63\x80\xBF\x64";
  const std::string m = kMark;
  EXPECT_EQ(repair_utf8(bytes), "a" + m + m + m + "b" + m + "c" + m + m + "d");
  EXPECT_EQ(repair_utf8("\xC0\xAF\xE0\x80\xBF\xF0\x81\x82\x41"),
            m + m + m + m + m + m + m + m + "A");
  EXPECT_EQ(repair_utf8("\xED\xA0\x80"), m + m + m) << "surrogates are not characters";
  EXPECT_EQ(repair_utf8("\xF4\x90\x80\x80"), m + m + m + m) << "beyond U+10FFFF";
  EXPECT_EQ(repair_utf8("x\xE2\x96"), "x" + m) << "cut off at the end";
}

TEST(Utf8Repair, LeavesValidTextAlone) {
  TextMaker maker(1);
  for (int i = 0; i < 50; ++i) {
    const std::string text = maker.text(40);
    EXPECT_EQ(repair_utf8(text), text);
  }
}

TEST(Utf8Repair, GivesTheSameWhereverTheInputIsCut) {
  TextMaker maker(2);
  for (int i = 0; i < 200; ++i) {
    const std::string bytes = maker.bytes(20) + maker.text(3) + maker.bytes(5);
    Utf8Repair repair;
    std::string out;
    for (size_t pos = 0; pos < bytes.size();) {
      const size_t n = 1 + maker.below(4);
      repair.feed(std::string_view(bytes).substr(pos, n), out);
      pos += n;
    }
    repair.finish(out);
    EXPECT_EQ(out, repair_utf8(bytes));
  }
}

TEST(Unicode, EncodesAndDecodesEveryScalarValue) {
  for (char32_t c = 0; c <= 0x10FFFF; ++c) {
    if (c >= 0xD800 && c <= 0xDFFF) continue;
    const std::string text = utf8(c);
    const DecodedChar decoded = decode_char(text, 0);
    ASSERT_EQ(decoded.code_point, c);
    ASSERT_EQ(decoded.n_bytes, text.size());
    ASSERT_EQ(repair_utf8(text), text);
  }
}

TEST(Unicode, KnowsTheWhiteSpaceProperty) {
  std::set<char32_t> spaces;
  for (char32_t c = 0; c <= 0x10FFFF; ++c) {
    if (char_class(c) == CharClass::kSpace) spaces.insert(c);
  }
  // PropList.txt, White_Space
  const std::set<char32_t> expected = {0x09,   0x0A,   0x0B,   0x0C,   0x0D,   0x20,   0x85,
                                       0xA0,   0x1680, 0x2000, 0x2001, 0x2002, 0x2003, 0x2004,
                                       0x2005, 0x2006, 0x2007, 0x2008, 0x2009, 0x200A, 0x2028,
                                       0x2029, 0x202F, 0x205F, 0x3000};
  EXPECT_EQ(spaces, expected);
}

TEST(ByteLevelAlphabet, IsReversibleAndKeepsPrintableAscii) {
  std::set<std::string> seen;
  for (size_t byte = 0; byte < 256; ++byte) {
    const std::string& letter = byte_level_alphabet()[byte];
    EXPECT_TRUE(seen.insert(letter).second);
    EXPECT_EQ(byte_level_to_bytes(letter), std::string(1, static_cast<char>(byte)));
  }
  EXPECT_EQ(byte_level_alphabet()[' '], "\xC4\xA0");   // Ġ
  EXPECT_EQ(byte_level_alphabet()['\n'], "\xC4\x8A");  // Ċ
  EXPECT_EQ(byte_level_alphabet()['A'], "A");
  EXPECT_EQ(byte_level_to_bytes("a b"), std::nullopt);
}

TEST(Nfc, NeverChangesOrCombinesABoundaryCharacter) {
  for (char32_t c = 1; c <= 0x10FFFF; ++c) {
    if (c >= 0xD800 && c <= 0xDFFF) continue;
    if (is_nfc_boundary(c)) {
      ASSERT_EQ(nfc_reference(utf8(c)), utf8(c)) << std::hex << uint32_t{c};
      ASSERT_EQ(utf8proc_get_property(static_cast<utf8proc_int32_t>(c))->combining_class, 0);
    }
    // Whatever a character decomposes into: what follows its first part may combine backwards.
    std::array<utf8proc_int32_t, 32> parts{};
    int boundary = 0;
    const auto n = utf8proc_decompose_char(static_cast<utf8proc_int32_t>(c), parts.data(), 32,
                                           UTF8PROC_DECOMPOSE, &boundary);
    for (utf8proc_ssize_t i = 1; i < n; ++i) {
      ASSERT_FALSE(is_nfc_boundary(static_cast<char32_t>(parts[static_cast<size_t>(i)])));
    }
  }
}

TEST(Nfc, AgreesWithTheLibraryOnEveryCharacterInContext) {
  const Normalizer nfc = Normalizer::nfc();
  for (char32_t c = 1; c <= 0x2FFFF; ++c) {
    if (c >= 0xD800 && c <= 0xDFFF) continue;
    const std::string text = "e" + utf8(c) + "\xCC\x81\xCC\xA3" + utf8(c) + " x" + utf8(c);
    ASSERT_EQ(nfc.apply(text), nfc_reference(text)) << std::hex << uint32_t{c};
  }
}

TEST(Nfc, GivesTheSameWhereverTheTextIsCut) {
  TextMaker maker(3);
  for (int i = 0; i < 300; ++i) {
    const std::string text = maker.text(30);
    const auto steps = Normalizer::nfc().new_steps();
    std::string out;
    for (size_t pos = 0; pos < text.size();) {
      size_t end = std::min(text.size(), pos + 1 + maker.below(5));
      while (!is_char_boundary(text, end)) ++end;
      steps[0]->feed(std::string_view(text).substr(pos, end - pos), out);
      pos = end;
    }
    steps[0]->finish(out);
    EXPECT_EQ(out, nfc_reference(text));
  }
}

TEST(Nfc, SortsALongRunOfMarksInBearableTime) {
  std::string marks = "a";
  for (int i = 0; i < 200000; ++i)
    marks += i % 2 == 0 ? "\xCC\x81" : "\xCC\xA3";  // quadratic: minutes
  const std::string result = Normalizer::nfc().apply(marks);
  std::string expected = "\xE1\xBA\xA1";  // a with dot below takes the first mark of that class
  for (int i = 1; i < 100000; ++i) expected += "\xCC\xA3";
  for (int i = 0; i < 100000; ++i) expected += "\xCC\x81";
  EXPECT_EQ(result, expected);
}

TEST(Normalizer, ReplacesAStringAlsoWhereItIsCut) {
  const auto normalizer = Normalizer::parse(formats::parse_json(
      R"({"type":"Replace","pattern":{"String":"aab"},"content":"<>"})", "test"));
  EXPECT_EQ(normalizer.apply("aaabxaabaab aa"), "a<>x<><> aa");
  const auto steps = normalizer.new_steps();
  std::string out;
  for (const char c : std::string("aaabxaabaab aa")) steps[0]->feed(std::string(1, c), out);
  steps[0]->finish(out);
  EXPECT_EQ(out, "a<>x<><> aa");
}

TEST(Normalizer, PrependsOnlyToTextThatIsThere) {
  const auto normalizer =
      Normalizer::parse(formats::parse_json(R"({"type":"Prepend","prepend":"_"})", "test"));
  EXPECT_EQ(normalizer.apply(""), "");
  EXPECT_EQ(normalizer.apply("x"), "_x");
}

}  // namespace
}  // namespace llmq::runtime
