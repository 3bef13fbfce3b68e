#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "convert/calibration/builtin_set.h"
#include "convert/calibration/builtin_texts.h"
#include "convert/calibration/samples.h"
#include "runtime/tokenizer/unicode.h"

namespace llmq::convert {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

/// Share of the characters that are CJK ideographs (U+4E00 to U+9FFF).
double ideograph_share(std::string_view text) {
  size_t n_ideographs = 0;
  size_t n_chars = 0;
  for (size_t pos = 0; pos < text.size(); ++n_chars) {
    const auto decoded = runtime::decode_char(text, pos);
    n_ideographs += decoded.code_point >= 0x4E00 && decoded.code_point <= 0x9FFF ? 1 : 0;
    pos += decoded.n_bytes;
  }
  return static_cast<double>(n_ideographs) / static_cast<double>(n_chars);
}

size_t n_chars(std::string_view text) {
  return static_cast<size_t>(std::count_if(text.begin(), text.end(), [](char c) {
    return (static_cast<unsigned char>(c) & 0xC0U) != 0x80U;
  }));
}

/// Kind of each text, by the list that it came from.
std::map<std::string_view, std::string> kinds_of_texts() {
  std::map<std::string_view, std::string> kinds;
  for (const auto text : builtin_english()) kinds[text] = "english";
  for (const auto text : builtin_chinese()) kinds[text] = "chinese";
  for (const auto text : builtin_code_first()) kinds[text] = "code";
  for (const auto text : builtin_code_second()) kinds[text] = "code";
  for (const auto text : builtin_chat()) kinds[text] = "chat";
  return kinds;
}

/// FNV-1a over all texts in order, each with a zero byte behind it.
uint64_t fingerprint() {
  uint64_t hash = 0xcbf29ce484222325U;
  const auto add = [&](char c) { hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3U; };
  for (const auto text : builtin_calibration_texts()) {
    for (const char c : text) add(c);
    add('\0');
  }
  return hash;
}

TEST(BuiltinCalibrationSet, has_a_few_hundred_texts_of_every_kind_and_none_twice) {
  const auto texts = builtin_calibration_texts();
  EXPECT_EQ(texts.size(), 240U);
  EXPECT_EQ(std::set<std::string_view>(texts.begin(), texts.end()).size(), texts.size());
  EXPECT_EQ(builtin_english().size(), 80U);
  EXPECT_EQ(builtin_chinese().size(), 60U);
  EXPECT_EQ(builtin_code_first().size() + builtin_code_second().size(), 50U);
  EXPECT_EQ(builtin_chat().size(), 50U);
}

TEST(BuiltinCalibrationSet, texts_are_valid_utf8_without_space_at_their_ends_and_of_useful_length) {
  for (const auto text : builtin_calibration_texts()) {
    SCOPED_TRACE(std::string(text.substr(0, 60)));
    for (size_t pos = 0; pos < text.size();) {
      const auto decoded = runtime::decode_char(text, pos);
      std::string encoded;
      runtime::append_utf8(decoded.code_point, encoded);
      ASSERT_EQ(text.substr(pos, decoded.n_bytes), encoded);
      pos += decoded.n_bytes;
    }
    EXPECT_EQ(text.find_first_not_of(" \n\t"), 0U);
    EXPECT_EQ(text.find_last_not_of(" \n\t"), text.size() - 1);
    EXPECT_GE(n_chars(text), 90U);
    EXPECT_LE(n_chars(text), 1100U);
    EXPECT_EQ(text.find('\r'), std::string_view::npos);
    EXPECT_THAT(std::string(text), Not(HasSubstr("://")));
  }
}

TEST(BuiltinCalibrationSet, lists_hold_the_kind_that_they_are_named_for) {
  for (const auto text : builtin_english()) EXPECT_LT(ideograph_share(text), 0.01) << text;
  for (const auto text : builtin_chinese()) EXPECT_GT(ideograph_share(text), 0.1) << text;
  int n_marked = 0;
  for (const auto text : builtin_chat()) n_marked += text.starts_with("<|im_start|>") ? 1 : 0;
  EXPECT_GE(n_marked, 15);
  EXPECT_LE(n_marked, 35);
}

TEST(BuiltinCalibrationSet, every_beginning_has_the_kinds_in_the_proportions_of_the_whole) {
  const auto texts = builtin_calibration_texts();
  const auto kinds = kinds_of_texts();
  std::map<std::string, size_t> totals;
  for (const auto text : texts) ++totals[kinds.at(text)];
  ASSERT_EQ(totals.size(), 4U);
  std::map<std::string, size_t> seen;
  for (size_t n = 1; n <= texts.size(); ++n) {
    ++seen[kinds.at(texts[n - 1])];
    for (const auto& [kind, total] : totals) {
      const double due = static_cast<double>(n * total) / static_cast<double>(texts.size());
      // Of four kinds, each is at most one text ahead of or behind its share.
      EXPECT_LE(std::abs(static_cast<double>(seen[kind]) - due), 1.0) << kind << " of " << n;
    }
  }
}

TEST(BuiltinCalibrationSet, comes_under_its_name_and_in_its_order) {
  const CalibrationTexts set = builtin_calibration();
  EXPECT_EQ(set.name, "llmq-calibration-1");
  EXPECT_FALSE(set.is_plain_text);
  const auto texts = builtin_calibration_texts();
  ASSERT_EQ(set.texts.size(), texts.size());
  EXPECT_TRUE(std::equal(texts.begin(), texts.end(), set.texts.begin()));
}

// A changed text changes every checkpoint that is made without -calib: give the set a new name.
TEST(BuiltinCalibrationSet, texts_change_only_together_with_the_name) {
  EXPECT_EQ(kBuiltinCalibrationName, "llmq-calibration-1");
  EXPECT_EQ(fingerprint(), 0xe5649c1175d0cb22U);
}

}  // namespace
}  // namespace llmq::convert
