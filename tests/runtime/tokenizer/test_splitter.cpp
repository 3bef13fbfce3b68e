#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "runtime/tokenizer/splitter.h"
#include "tests/runtime/tokenizer/tokenizer_test_util.h"

namespace llmq::runtime {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

/// Pieces with the whole text at hand.
std::vector<std::string> pieces_of(const Splitter& splitter, const std::string& text) {
  std::vector<std::string> pieces;
  const auto state = splitter.new_state();
  for (size_t begin = 0; begin < text.size();) {
    const auto piece = splitter.next(text, begin, true, state.get());
    if (piece->keep) pieces.push_back(text.substr(begin, piece->end - begin));
    begin = piece->end;
  }
  return pieces;
}

/// Pieces when the text becomes visible one character at a time.
std::vector<std::string> pieces_by_character(const Splitter& splitter, const std::string& text) {
  std::vector<std::string> pieces;
  const auto state = splitter.new_state();
  size_t begin = 0;
  for (size_t end = 0; begin < text.size();) {
    const bool is_last = end == text.size();
    const auto visible = std::string_view(text).substr(0, end);
    while (begin < end) {
      const auto piece = splitter.next(visible, begin, is_last, state.get());
      if (!piece) break;
      if (piece->keep) pieces.push_back(text.substr(begin, piece->end - begin));
      begin = piece->end;
    }
    if (!is_last) end += decode_char(text, end).n_bytes;
  }
  return pieces;
}

class KnownPattern : public testing::TestWithParam<std::string_view> {};

TEST_P(KnownPattern, CutsAsTheRegularExpressionDoes) {
  const auto by_hand = new_known_splitter(GetParam());
  const auto by_regex = new_regex_splitter(GetParam(), GapRule::kKeep, false);
  ASSERT_NE(by_hand, nullptr);
  TextMaker maker(11);
  for (int i = 0; i < 3000; ++i) {
    const std::string text = maker.text(static_cast<int>(1 + maker.below(25)));
    ASSERT_EQ(pieces_of(*by_hand, text), pieces_of(*by_regex, text)) << text;
  }
}

TEST_P(KnownPattern, CutsTheSameWhenTheTextComesInPieces) {
  const auto by_hand = new_known_splitter(GetParam());
  const auto by_regex = new_regex_splitter(GetParam(), GapRule::kKeep, false);
  TextMaker maker(12);
  for (int i = 0; i < 300; ++i) {
    const std::string text = maker.text(12);
    const auto expected = pieces_of(*by_regex, text);
    ASSERT_EQ(pieces_by_character(*by_hand, text), expected) << text;
    ASSERT_EQ(pieces_by_character(*by_regex, text), expected) << text;
  }
}

INSTANTIATE_TEST_SUITE_P(All, KnownPattern,
                         testing::Values(kGpt2Pattern, kQwen2Pattern, kGpt4Pattern));

TEST(RegexSplitter, TreatsGapsByItsRule) {
  const std::string text = "a1b22c";
  const auto cut = [&](GapRule rule) {
    return pieces_of(*new_regex_splitter("\\d+", rule, false), text);
  };
  EXPECT_THAT(cut(GapRule::kKeep), ElementsAre("a", "1", "b", "22", "c"));
  EXPECT_THAT(cut(GapRule::kDrop), ElementsAre("1", "22"));
  EXPECT_THAT(cut(GapRule::kDropMatches), ElementsAre("a", "b", "c"));
  EXPECT_THAT(pieces_of(*new_regex_splitter(".", GapRule::kKeep, true), "a.b"),
              ElementsAre("a", ".", "b"));
}

TEST(RegexSplitter, TakesWhiteSpaceAsUnicodeDefinesIt) {
  // U+180E is a format character since Unicode 6.3; PCRE2's own \s has it.
  const auto splitter = new_regex_splitter("[\\s]+|\\S+", GapRule::kKeep, false);
  EXPECT_THAT(pieces_of(*splitter, "a\xE1\xA0\x8E\xC2\x85\xE3\x80\x80z"),
              ElementsAre("a\xE1\xA0\x8E", "\xC2\x85\xE3\x80\x80", "z"));
}

TEST(RegexSplitter, NeverTakesAnEmptyMatch) {
  EXPECT_THAT(pieces_of(*new_regex_splitter("x*", GapRule::kKeep, false), "axxb"),
              ElementsAre("a", "xx", "b"));
}

TEST(RegexSplitter, RefusesPatternsThatDoNotCompileOrAreTooLarge) {
  const auto refuse = [](const std::string& pattern) {
    return error_or_none([&] { new_regex_splitter(pattern, GapRule::kKeep, false); });
  };
  EXPECT_THAT(refuse("(a"), HasSubstr("does not compile"));
  EXPECT_THAT(refuse(std::string(100000, 'a')), HasSubstr("does not compile"));
  EXPECT_THAT(refuse(std::string(1000, '(') + std::string(1000, ')')),
              HasSubstr("does not compile"));
  EXPECT_THAT(refuse("((((a{1000}){1000}){1000}){1000}){1000}"), HasSubstr("does not compile"));
}

TEST(RegexSplitter, GivesUpOnAPatternThatExplodes) {
  const auto splitter = new_regex_splitter("(a+)+$", GapRule::kKeep, false);
  const std::string text = std::string(64, 'a') + "!b";
  EXPECT_THAT(error_or_none([&] { pieces_of(*splitter, text); }), HasSubstr("too much work"));
}

TEST(RegexSplitter, GoesBackOverALongRunOfSpaces) {
  const std::string pattern = R"(\s*[\r\n]+|\s+(?!\S)|\S+|\s+)";
  const auto splitter = new_regex_splitter(pattern, GapRule::kKeep, false);
  const std::string spaces(2'000'000, ' ');
  EXPECT_THAT(pieces_of(*splitter, spaces), ElementsAre(spaces));
}

TEST(PrefixCharSplitter, BeginsAPieceAtEachOccurrence) {
  const auto splitter = new_prefix_char_splitter(U'_');
  EXPECT_THAT(pieces_of(*splitter, "a_b__c"), ElementsAre("a", "_b", "_", "_c"));
  EXPECT_THAT(pieces_by_character(*splitter, "a_b__c"), ElementsAre("a", "_b", "_", "_c"));
}

TEST(MergePairs, AllowsCutsOnlyWhereNoMergedTokenReachesAcross) {
  MergePairs pairs(false);
  pairs.add_token("ab");
  pairs.add_token("b\xC3\xA9");
  for (const char32_t c : {U'a', U'b', U'c', U'\u00E9'}) pairs.add_known_char(c);
  const std::string text =
      "ab\xC3\xA9"
      "cax";
  EXPECT_FALSE(pairs.can_cut(text, 1));  // a|b
  EXPECT_FALSE(pairs.can_cut(text, 2));  // b|é
  EXPECT_TRUE(pairs.can_cut(text, 4));   // é|c
  EXPECT_TRUE(pairs.can_cut(text, 5));   // c|a
  EXPECT_FALSE(pairs.can_cut(text, 6));  // a|x, where x is no token
}

}  // namespace
}  // namespace llmq::runtime
