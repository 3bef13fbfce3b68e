#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "runtime/evaluate/text_pieces.h"
#include "tests/runtime/evaluate/evaluate_testing.h"

namespace llmq::runtime {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using Pieces = std::vector<std::vector<int32_t>>;

Pieces pieces_of(std::string_view text, const Tokenizer& tokenizer, const PieceOptions& options) {
  Pieces pieces;
  for_each_piece(text, tokenizer, options, [&](std::span<const int32_t> ids, size_t end_byte) {
    EXPECT_LE(end_byte, text.size());
    pieces.emplace_back(ids.begin(), ids.end());
    return true;
  });
  return pieces;
}

std::vector<int32_t> encode(const Tokenizer& tokenizer, std::string_view text) {
  return tokenizer.encode(text, {.add_bos = tokenizer.adds_bos()});
}

// Longer than what an encoder gets at once, with words across every border.
std::string long_text() {
  std::string text;
  for (int i = 0; i < 8000; ++i) text += " the number " + std::to_string(i) + "\n";
  return text;
}

TEST(TextPieces, windows_without_bos_are_the_ids_of_the_whole_text_in_order) {
  const Tokenizer tokenizer = ascii_tokenizer(false);
  const std::string text = long_text();
  const std::vector<int32_t> whole = encode(tokenizer, text);
  std::vector<int32_t> joined;
  const Pieces pieces = pieces_of(text, tokenizer, {.context = 100, .separator = {}});
  for (size_t i = 0; i < pieces.size(); ++i) {
    if (i + 1 < pieces.size()) {
      ASSERT_EQ(pieces[i].size(), 100U);
    }
    joined.insert(joined.end(), pieces[i].begin(), pieces[i].end());
  }
  EXPECT_EQ(joined, whole);
  EXPECT_EQ(pieces.size(), (whole.size() + 99) / 100);
}

TEST(TextPieces, every_window_begins_with_bos_where_the_tokenizer_adds_it) {
  const Tokenizer tokenizer = ascii_tokenizer(true);
  const Pieces pieces = pieces_of("abcdefg", tokenizer, {.context = 4, .separator = {}});
  std::vector<int32_t> joined;
  ASSERT_EQ(pieces.size(), 3U);
  for (const auto& piece : pieces) {
    EXPECT_EQ(piece.front(), 0);
    joined.insert(joined.end(), piece.begin() + 1, piece.end());
  }
  EXPECT_EQ(pieces[0].size(), 4U);
  EXPECT_EQ(pieces[2].size(), 2U);
  EXPECT_EQ(joined, tokenizer.encode("abcdefg", {}));
}

TEST(TextPieces, a_text_that_fills_its_windows_has_no_window_of_bos_alone) {
  const Pieces pieces = pieces_of("abcdef", ascii_tokenizer(true), {.context = 4, .separator = {}});
  EXPECT_EQ(pieces.size(), 2U);
}

TEST(TextPieces, parts_are_stripped_and_encoded_each_on_its_own) {
  const Tokenizer tokenizer = ascii_tokenizer(true);
  const std::string text = "  The first\n<|end|>\t the second \xC2\xA0\xE3\x80\x80<|end|>";
  EXPECT_THAT(pieces_of(text, tokenizer, {.context = 50, .separator = "<|end|>"}),
              ElementsAre(encode(tokenizer, "The first"), encode(tokenizer, "the second")));
}

TEST(TextPieces, empty_parts_are_skipped_and_the_separator_is_taken_as_it_is) {
  const Tokenizer tokenizer = ascii_tokenizer(false);
  EXPECT_THAT(pieces_of("||a||  ||b", tokenizer, {.context = 9, .separator = "||"}),
              ElementsAre(encode(tokenizer, "a"), encode(tokenizer, "b")));
  EXPECT_THAT(pieces_of("a\\nb\nc", tokenizer, {.context = 9, .separator = "\\n"}),
              ElementsAre(encode(tokenizer, "a"), encode(tokenizer, "b\nc")));
}

TEST(TextPieces, a_part_is_cut_at_the_context) {
  const Tokenizer tokenizer = ascii_tokenizer(true);
  const std::string text = long_text();
  std::vector<int32_t> whole = encode(tokenizer, text.substr(1, text.size() - 2));
  whole.resize(20000);
  EXPECT_THAT(pieces_of(text, tokenizer, {.context = 20000, .separator = "#"}), ElementsAre(whole));
}

TEST(TextPieces, line_ends_of_all_systems_read_the_same) {
  const Tokenizer tokenizer = ascii_tokenizer(true);
  const std::string unix_text = long_text() + "\n\nthe end\n\n\nof it";
  const auto with_ends = [](const std::string& text, const std::string& line_end) {
    std::string out;
    for (const char c : text) out += c == '\n' ? line_end : std::string(1, c);
    return out;
  };
  for (const auto& separator :
       {std::optional<std::string>(), std::optional<std::string>("99\n"),
        std::optional<std::string>("\n\n"), std::optional<std::string>("7")}) {
    const Pieces want = pieces_of(unix_text, tokenizer, {.context = 50, .separator = separator});
    EXPECT_GT(want.size(), 1U);
    for (const std::string line_end : {"\r\n", "\r"}) {
      const std::string text = with_ends(unix_text, line_end);
      EXPECT_EQ(pieces_of(text, tokenizer, {.context = 50, .separator = separator}), want);
      if (!separator || *separator == with_ends(*separator, line_end)) continue;
      const std::string same = with_ends(*separator, line_end);
      EXPECT_EQ(pieces_of(text, tokenizer, {.context = 50, .separator = same}), want);
    }
  }
}

TEST(TextPieces, a_line_end_may_be_cut_where_a_slice_ends) {
  const Tokenizer tokenizer = ascii_tokenizer(true);
  for (size_t n = 65532; n <= 65538; ++n) {
    std::string before;
    while (before.size() < n) before += "ab ";
    before.resize(n, 'x');
    const PieceOptions options{.context = 200000, .separator = {}};
    EXPECT_EQ(pieces_of(before + "\r\n\r\nend", tokenizer, options),
              pieces_of(before + "\n\nend", tokenizer, options));
  }
}

TEST(TextPieces, bytes_that_are_no_utf8_are_not_taken_for_white_space) {
  const Tokenizer tokenizer = ascii_tokenizer(false);
  // A space of three bytes without its last, and a continuation byte alone.
  const std::string text = "\xE3\x80 a b \x85";
  EXPECT_THAT(pieces_of(text, tokenizer, {.context = 9, .separator = "#"}),
              ElementsAre(tokenizer.encode(text, {})));
}

TEST(TextPieces, the_sink_can_end_the_text) {
  for (const auto& separator : {std::optional<std::string>(), std::optional<std::string>("0")}) {
    int n = 0;
    for_each_piece(long_text(), ascii_tokenizer(), {.context = 10, .separator = separator},
                   [&](std::span<const int32_t>, size_t) { return ++n < 3; });
    EXPECT_EQ(n, 3);
  }
}

TEST(TextPieces, options_that_leave_nothing_to_score_are_refused) {
  const auto sink = [](std::span<const int32_t>, size_t) { return true; };
  const Tokenizer tokenizer = ascii_tokenizer();
  const auto refusal = [&](const PieceOptions& options) {
    return error_of([&] { for_each_piece("abc", tokenizer, options, sink); },
                    formats::ErrorCode::kUsage);
  };
  EXPECT_THAT(refusal({.context = 1, .separator = {}}), HasSubstr("at least 2"));
  EXPECT_THAT(refusal({.context = 8, .separator = ""}), HasSubstr("empty"));
}

TEST(TextPieces, tokenizers_that_differ_in_tokens_or_bos_are_told_apart) {
  const Tokenizer with_bos = ascii_tokenizer(true);
  EXPECT_NO_THROW(check_same_tokenizer(with_bos, ascii_tokenizer(true), "The text"));
  EXPECT_THAT(error_of([&] { check_same_tokenizer(with_bos, ascii_tokenizer(false), ""); }),
              HasSubstr("begin a text"));
  const auto with_merges = [](const std::string& merges) {
    return Tokenizer::from_json(
        R"({"model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "c": 2, "ab": 3, "bc": 4},
            "merges": [)" +
        merges + "]}}");
  };
  const Tokenizer other = with_merges(R"("a b", "b c")");
  EXPECT_THAT(error_of([&] { check_same_tokenizer(with_bos, other, ""); }), HasSubstr("id 0"));
  const Tokenizer other_order = with_merges(R"("b c", "a b")");
  EXPECT_NO_THROW(check_same_tokenizer(other, other_order, "ab"));
  EXPECT_THAT(error_of([&] { check_same_tokenizer(other, other_order, "abc"); }),
              HasSubstr("different ids"));
}

}  // namespace
}  // namespace llmq::runtime
