#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

#include "runtime/tokenizer/bpe.h"
#include "tests/runtime/tokenizer/tokenizer_test_util.h"

namespace llmq::runtime {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

BpeSpec letters(const std::string& characters,
                const std::vector<std::pair<std::string, std::string>>& merges) {
  BpeSpec spec;
  for (const char c : characters) {
    spec.vocabulary.emplace_back(std::string(1, c), static_cast<int32_t>(spec.vocabulary.size()));
  }
  std::map<std::string, int32_t> seen(spec.vocabulary.begin(), spec.vocabulary.end());
  for (const auto& [left, right] : merges) {
    const auto id = static_cast<int32_t>(spec.vocabulary.size());
    if (seen.emplace(left + right, id).second) spec.vocabulary.emplace_back(left + right, id);
  }
  spec.merges = merges;
  return spec;
}

std::vector<int32_t> encode(const Bpe& bpe, std::string_view word) {
  BpeScratch scratch(16);
  std::vector<int32_t> ids;
  bpe.encode_word(word, scratch, ids);
  return ids;
}

/// The definition: look for the best pair in the whole word again after each merge.
std::vector<int32_t> encode_by_definition(const BpeSpec& spec, const std::string& word) {
  std::vector<std::string> parts;
  for (const char c : word) parts.emplace_back(1, c);
  std::map<std::pair<std::string, std::string>, size_t> ranks;
  for (size_t i = 0; i < spec.merges.size(); ++i) ranks[spec.merges[i]] = i;
  for (;;) {
    size_t best = spec.merges.size();
    size_t where = 0;
    for (size_t i = 0; i + 1 < parts.size(); ++i) {
      const auto found = ranks.find({parts[i], parts[i + 1]});
      if (found == ranks.end() || found->second >= best) continue;
      best = found->second;
      where = i;
    }
    if (best == spec.merges.size()) break;
    parts[where] += parts[where + 1];
    parts.erase(parts.begin() + static_cast<std::ptrdiff_t>(where) + 1);
  }
  const std::map<std::string, int32_t> ids(spec.vocabulary.begin(), spec.vocabulary.end());
  std::vector<int32_t> result;
  for (const auto& part : parts) result.push_back(ids.at(part));
  return result;
}

TEST(Bpe, MergesAsTheDefinitionSaysInShortAndLongWords) {
  TextMaker maker(21);
  for (int round = 0; round < 40; ++round) {
    std::vector<std::pair<std::string, std::string>> merges;
    std::vector<std::string> tokens = {"a", "b", "c"};
    for (int i = 0; i < 12; ++i) {
      merges.emplace_back(tokens[maker.below(tokens.size())], tokens[maker.below(tokens.size())]);
      tokens.push_back(merges.back().first + merges.back().second);
    }
    const BpeSpec spec = letters("abc", merges);
    const Bpe bpe(spec);
    for (const size_t n : {1U, 2U, 5U, 20U, 47U, 48U, 49U, 50U, 200U, 500U}) {
      std::string word;
      for (size_t i = 0; i < n; ++i) word.push_back("abc"[maker.below(3)]);
      ASSERT_EQ(encode(bpe, word), encode_by_definition(spec, word)) << word;
    }
  }
}

TEST(Bpe, MergesALongRunOfOneLetter) {
  const BpeSpec spec = letters("a", {{"a", "a"}, {"aa", "aa"}, {"aaaa", "aaaa"}});
  const auto ids = encode(Bpe(spec), std::string(1'000'003, 'a'));
  ASSERT_EQ(ids.size(), 125'002U);  // 8 · 125,000 + 2 + 1
  EXPECT_EQ(ids.front(), 3);
  EXPECT_EQ(ids[ids.size() - 2], 1);
  EXPECT_EQ(ids.back(), 0);
}

TEST(Bpe, RemembersWordsWithoutMixingThemUp) {
  const BpeSpec spec = letters("abcd", {{"a", "b"}, {"c", "d"}, {"ab", "cd"}});
  const Bpe bpe(spec);
  BpeScratch scratch(4);  // so few slots that words drive each other out
  TextMaker maker(22);
  for (int i = 0; i < 5000; ++i) {
    std::string word;
    for (size_t n = 1 + maker.below(40); n > 0; --n) word.push_back("abcd"[maker.below(4)]);
    std::vector<int32_t> ids = {-7};
    bpe.encode_word(word, scratch, ids);
    auto expected = encode_by_definition(spec, word);
    expected.insert(expected.begin(), -7);
    ASSERT_EQ(ids, expected);
  }
}

TEST(Bpe, TakesAWholeTokenWhereMergesAreIgnored) {
  BpeSpec spec = letters("abc", {{"b", "c"}, {"a", "b"}});
  spec.vocabulary.emplace_back("abc", 9);
  EXPECT_THAT(encode(Bpe(spec), "abc"), ElementsAre(0, 3));
  spec.ignore_merges = true;
  EXPECT_THAT(encode(Bpe(spec), "abc"), ElementsAre(9));
  EXPECT_THAT(encode(Bpe(spec), "abca"), ElementsAre(0, 3, 0));
}

TEST(Bpe, FallsBackFromCharactersToBytesToUnknown) {
  BpeSpec spec = letters("ab", {});
  EXPECT_THAT(encode(Bpe(spec), "axyb"), ElementsAre(0, 1)) << "dropped without an unk_token";
  spec.vocabulary.emplace_back("<unk>", 7);
  spec.unk_token = "<unk>";
  EXPECT_THAT(encode(Bpe(spec), "axyb"), ElementsAre(0, 7, 7, 1));
  spec.fuse_unk = true;
  EXPECT_THAT(encode(Bpe(spec), "axyb"), ElementsAre(0, 7, 1));
  spec.vocabulary.emplace_back("<0x78>", 8);
  EXPECT_THAT(encode(Bpe(spec), "axyb"), ElementsAre(0, 7, 1)) << "byte_fallback is off";
  spec.byte_fallback = true;
  EXPECT_THAT(encode(Bpe(spec), "axyyxb"), ElementsAre(0, 8, 7, 8, 1));
}

TEST(Bpe, RefusesMergesThatTheVocabularyCannotMake) {
  BpeSpec spec = letters("ab", {});
  spec.merges = {{"a", "b"}};
  EXPECT_THAT(error_or_none([&] { Bpe bpe(spec); }), HasSubstr("needs the token \"ab\""));
  spec.merges = {{"a", "z"}};
  EXPECT_THAT(error_or_none([&] { Bpe bpe(spec); }), HasSubstr("needs the token"));
  spec.merges.clear();
  spec.unk_token = "<unk>";
  EXPECT_THAT(error_or_none([&] { Bpe bpe(spec); }), HasSubstr("unk_token"));
}

TEST(Bpe, CountsTokensThatNoMergeMakes) {
  BpeSpec spec = letters("abc", {{"a", "b"}, {"b", "c"}});
  EXPECT_THAT(Bpe(spec).unreachable_ids(), ElementsAre());
  spec.merges.pop_back();
  EXPECT_THAT(Bpe(spec).unreachable_ids(), ElementsAre(4));
}

TEST(Bpe, CutsByMergePairsChangeNothing) {
  TextMaker maker(23);
  const BpeSpec spec =
      letters("abcdef", {{"a", "b"}, {"ab", "c"}, {"d", "e"}, {"c", "d"}, {"e", "e"}});
  const Bpe bpe(spec);
  for (int i = 0; i < 500; ++i) {
    std::string word;
    for (size_t n = 1 + maker.below(60); n > 0; --n) word.push_back("abcdef"[maker.below(6)]);
    std::vector<int32_t> by_pieces;
    BpeScratch scratch(16);
    size_t begin = 0;
    for (size_t pos = 1; pos <= word.size(); ++pos) {
      if (pos < word.size() && !bpe.merge_pairs().can_cut(word, pos)) continue;
      bpe.encode_word(std::string_view(word).substr(begin, pos - begin), scratch, by_pieces);
      begin = pos;
    }
    ASSERT_EQ(by_pieces, encode(bpe, word)) << word;
  }
}

}  // namespace
}  // namespace llmq::runtime
