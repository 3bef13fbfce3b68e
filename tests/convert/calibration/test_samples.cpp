#include "convert/calibration/samples.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <string>
#include <vector>

#include "convert/calibration/builtin_set.h"
#include "formats/file.h"
#include "formats/json.h"
#include "tests/runtime/evaluate/evaluate_testing.h"
#include "tests/tools/test_files.h"

namespace llmq::convert {
namespace {

namespace fs = std::filesystem;
using formats::ErrorCode;
using runtime::ascii_tokenizer;
using runtime::error_of;
using test::TemporaryFolder;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::SizeIs;
using Windows = std::vector<std::vector<int32_t>>;

CalibrationTexts parse(std::string_view bytes, const std::string& file, int64_t max_samples = 0) {
  return parse_calibration(bytes, file, max_samples);
}

CalibrationTexts plain_text(std::string text) {
  return {.name = "book.txt", .texts = {std::move(text)}, .is_plain_text = true};
}

/// `n` digits, each of them one token of ascii_tokenizer, that tell where they were cut out.
std::string digits(size_t n) {
  std::string text;
  for (size_t i = 0; text.size() < n; ++i) text += std::to_string(i);
  return text.substr(0, n);
}

// --- files ------------------------------------------------------------------------------------

TEST(CalibrationFile, lines_give_inputs_pretokenized_before_prompt_and_strings_as_they_are) {
  const auto texts = parse(
      "{\"id\": 0, \"inputs_pretokenized\": \"first\\nline\", \"prompt\": \"no\"}\r\n"
      "\n  \t\n"
      "{\"prompt\": \"second\", \"ans\": 3}\n"
      "\"third \\u4f60\"\n"
      "{\"prompt\": \" \\n\"}",
      "sets/a.JSONL");
  EXPECT_EQ(texts.name, "sets/a.JSONL");
  EXPECT_FALSE(texts.is_plain_text);
  EXPECT_THAT(texts.texts, ElementsAre("first\nline", "second", "third \xE4\xBD\xA0"));
}

TEST(CalibrationFile, list_has_the_same_objects_and_strings) {
  const auto texts = parse(
      "\xEF\xBB\xBF[{\"prompt\": \"one\", \"ans\": \"x\"}, \"two\",\n {\"inputs_pretokenized\": "
      "\"three\"}]",
      "a.json");
  EXPECT_FALSE(texts.is_plain_text);
  EXPECT_THAT(texts.texts, ElementsAre("one", "two", "three"));
}

TEST(CalibrationFile, anything_else_is_one_running_text) {
  for (const char* name : {"a.txt", "a", "a.md", "jsonl"}) {
    const auto texts = parse("\xEF\xBB\xBF{\"prompt\": 1}\nbad \xFF bytes\n", name);
    EXPECT_TRUE(texts.is_plain_text);
    EXPECT_THAT(texts.texts, ElementsAre("{\"prompt\": 1}\nbad \xFF bytes\n"));
  }
}

// What comes behind the samples that are wanted is not even parsed.
TEST(CalibrationFile, reading_ends_behind_the_samples_that_are_wanted) {
  EXPECT_THAT(parse("\"a\"\n\n\"b\"\nbroken", "a.jsonl", 2).texts, ElementsAre("a", "b"));
  EXPECT_THAT(parse("[\"a\", \"b\", 3]", "a.json", 2).texts, ElementsAre("a", "b"));
  EXPECT_THAT(parse("\"a\"\n\"b\"", "a.jsonl", 5).texts, ElementsAre("a", "b"));
}

TEST(CalibrationFile, reads_from_disk_and_says_which_file_is_not_there) {
  const TemporaryFolder folder;
  const fs::path file = folder.path() / "samples.jsonl";
  formats::write_text_file(file, "{\"prompt\": \"hello\"}\n");
  const auto texts = read_calibration_file(file);
  EXPECT_EQ(texts.name, file.string());
  EXPECT_THAT(texts.texts, ElementsAre("hello"));
  EXPECT_THAT(error_of([&] { read_calibration_file(folder.path() / "none.jsonl"); }),
              HasSubstr("none.jsonl: no such file"));
  EXPECT_THAT(error_of([&] { read_calibration_file(folder.path()); }),
              HasSubstr("not a regular file"));
  formats::write_text_file(folder.path() / "empty.txt", "");
  EXPECT_THAT(error_of([&] { read_calibration_file(folder.path() / "empty.txt"); }),
              HasSubstr("empty.txt: no text to calibrate with"));
}

TEST(CalibrationFile, is_refused_by_its_size_before_it_is_read) {
  const TemporaryFolder folder;
  const fs::path file = folder.path() / "huge.txt";
  formats::write_text_file(file, "x");
  fs::resize_file(file, (uint64_t{256} << 20) + 1);  // a hole: takes no space
  EXPECT_THAT(
      error_of([&] { read_calibration_file(file); }),
      AllOf(HasSubstr("huge.txt: 268435457 bytes, more than the 268435456"), HasSubstr("cut it")));
}

struct BadFile {
  const char* name;
  std::string bytes;
  const char* message;
};

TEST(CalibrationFile, every_fault_is_named_with_its_place) {
  const std::string deep(65, '[');
  const std::vector<BadFile> files = {
      {"a.jsonl", "\"x\"\n{\"prompt\": ", "a.jsonl line 2: not valid JSON"},
      {"a.jsonl", "plain words", "a.jsonl line 1: not valid JSON"},
      {"a.jsonl", "{\"prompt\": \"bad \xFF byte\"}", "a.jsonl line 1: not valid JSON"},
      {"a.jsonl", "\n{\"text\": \"x\"}",
       "a.jsonl line 2: no key \"inputs_pretokenized\" or \"prompt\"; put the sample's text"},
      {"a.jsonl", "{\"prompt\": 3}", "a.jsonl line 1: \"prompt\" is not a string"},
      {"a.jsonl", "{\"prompt\": \"x\", \"inputs_pretokenized\": null}",
       "a.jsonl line 1: \"inputs_pretokenized\" is not a string"},
      {"a.jsonl", "\"x\"\n[\"y\"]", "a.jsonl line 2: neither a JSON object nor a string"},
      {"a.jsonl", "{\"prompt\": \"x\\u0000y\"}", "a.jsonl line 1: the text holds a zero byte"},
      {"a.jsonl", "{\"prompt\": \"x\", \"prompt\": \"y\"}", "appears twice in one object"},
      {"a.jsonl", "{\"prompt\": \"x\", \"y\": " + deep, "nested deeper than 64 levels"},
      {"a.jsonl", "\n \n", "a.jsonl: no text to calibrate with; give a file that has some"},
      {"a.jsonl", "", "a.jsonl: no text to calibrate with"},
      {"a.jsonl", "\"" + std::string(size_t{16} << 20, 'x') + "\"",
       "a.jsonl line 1: 16777218 bytes of JSON, more than the 16777216 allowed"},
      {"a.json", "{\"prompt\": \"x\"}", "a.json: not a JSON list of samples; give a list"},
      {"a.json", "[\"x\", 5]", "a.json sample 2: neither a JSON object nor a string"},
      {"a.json", "[\"x\", {}]", "a.json sample 2: no key"},
      {"a.json", "[\"x\"", "a.json: not valid JSON"},
      {"a.json", deep, "a.json: JSON nested deeper than 64 levels"},
      {"a.json", "[]", "a.json: no text to calibrate with"},
      {"a.json", "", "a.json: not valid JSON"},
      {"a.txt", std::string("one\ntwo\nx\0", 10),
       "a.txt line 3: a zero byte, so not text in UTF-8; save"},
      {"a.txt", " \n\t\r\n", "a.txt: no text to calibrate with; give a file that has some"},
  };
  for (const BadFile& file : files) {
    SCOPED_TRACE(file.bytes.substr(0, 60));
    EXPECT_THAT(error_of([&] { parse(file.bytes, file.name); }), HasSubstr(file.message));
  }
  EXPECT_THAT(error_of([] { parse("\"a\"", "a.jsonl", -1); }, ErrorCode::kUsage),
              HasSubstr("-1 calibration samples"));
}

// The files that the users of other tools bring along; the counts are their lines.
TEST(CalibrationFile, published_sets_are_read_whole) {
  const fs::path folder = test::test_data_folder() / "calibration";
  if (!fs::exists(folder)) GTEST_SKIP() << folder << " is absent; set LLMQ_TEST_DATA";
  int n_files = 0;
  for (const auto& entry : fs::directory_iterator(folder)) {
    if (entry.path().extension() != ".jsonl") continue;
    SCOPED_TRACE(entry.path().string());
    const std::string bytes = formats::read_text_file(entry.path());
    const auto texts = read_calibration_file(entry.path());
    size_t n_lines = 0;
    for (size_t pos = 0; pos < bytes.size(); ++n_lines) {
      pos = std::min(bytes.find('\n', pos), bytes.size() - 1) + 1;
    }
    EXPECT_EQ(texts.texts.size(), n_lines);
    const auto windows = calibration_windows(texts, ascii_tokenizer(), 256);
    EXPECT_EQ(windows.size(), n_lines);
    ++n_files;
  }
  EXPECT_GT(n_files, 0);
}

// --- windows ----------------------------------------------------------------------------------

TEST(CalibrationWindows, sample_is_what_the_tokenizer_gives_with_bos_cut_at_the_positions) {
  const std::string text = "The number 12 <s> and \n another.";
  for (const bool adds_bos : {true, false}) {
    const auto tokenizer = ascii_tokenizer(adds_bos);
    const CalibrationTexts texts{.name = "x", .texts = {text, "The second."}};
    const auto whole = tokenizer.encode(text, {.parse_special = true, .add_bos = adds_bos});
    const auto second = tokenizer.encode("The second.", {.add_bos = adds_bos});
    EXPECT_THAT(calibration_windows(texts, tokenizer, 1000), ElementsAre(whole, second));
    const std::vector<int32_t> head(whole.begin(), whole.begin() + 7);
    EXPECT_EQ(calibration_windows(texts, tokenizer, 7).front(), head);
    EXPECT_EQ(calibration_windows(texts, tokenizer, 1000, {.max_length = 7}).front(), head);
    // Positions bound what was asked for.
    EXPECT_EQ(calibration_windows(texts, tokenizer, 7, {.max_length = 900}).front(), head);
  }
}

TEST(CalibrationWindows, samples_of_less_than_two_tokens_are_left_out_and_not_counted) {
  const auto tokenizer = ascii_tokenizer(false);
  const CalibrationTexts texts{.name = "x", .texts = {"a", "bcd", "", "efg", "hij"}};
  const Windows expected = {tokenizer.encode("bcd", {}), tokenizer.encode("efg", {})};
  EXPECT_EQ(calibration_windows(texts, tokenizer, 100, {.n_samples = 2}), expected);
  EXPECT_THAT(calibration_windows(texts, tokenizer, 100), SizeIs(3));
  EXPECT_THAT(calibration_windows(texts, tokenizer, 100, {.n_samples = 50}), SizeIs(3));
  // With BOS, one character makes two tokens.
  EXPECT_THAT(calibration_windows(texts, ascii_tokenizer(true), 100), SizeIs(4));
}

TEST(CalibrationWindows, plain_text_gives_32_windows_of_512_tokens_evenly_from_its_start) {
  const auto tokenizer = ascii_tokenizer(true);
  const size_t n_tokens = 32 * 511 + 3200;  // 100 tokens between two windows
  const std::string text = digits(n_tokens);
  const auto windows = calibration_windows(plain_text(text), tokenizer, 4096);
  ASSERT_THAT(windows, SizeIs(32));
  for (size_t i = 0; i < windows.size(); ++i) {
    const auto expected =
        tokenizer.encode(std::string_view(text).substr(i * 611, 511), {.add_bos = true});
    ASSERT_EQ(windows[i], expected) << i;
  }
}

TEST(CalibrationWindows, plain_text_with_few_positions_gives_windows_of_that_length) {
  const auto tokenizer = ascii_tokenizer(false);
  const std::string text = digits(3000);
  const auto windows = calibration_windows(plain_text(text), tokenizer, 64);
  ASSERT_THAT(windows, SizeIs(32));
  for (size_t i = 0; i < windows.size(); ++i) {
    ASSERT_EQ(windows[i], tokenizer.encode(std::string_view(text).substr(i * 93, 64), {})) << i;
  }
}

TEST(CalibrationWindows, plain_text_that_is_too_short_is_used_whole) {
  const auto tokenizer = ascii_tokenizer(false);
  const std::string text = digits(1030);
  Windows windows = calibration_windows(plain_text(text), tokenizer, 4096);
  std::vector<int32_t> joined;
  for (const auto& window : windows) joined.insert(joined.end(), window.begin(), window.end());
  EXPECT_EQ(joined, tokenizer.encode(text, {}));
  ASSERT_THAT(windows, ElementsAre(SizeIs(512), SizeIs(512), SizeIs(6)));
  EXPECT_EQ(calibration_windows(plain_text(text), tokenizer, 4096, {.n_samples = 2}),
            Windows({windows[0], {joined.begin() + 515, joined.begin() + 1027}}));
  // What is left over is no window when it is one token.
  EXPECT_THAT(calibration_windows(plain_text(digits(513)), tokenizer, 4096),
              ElementsAre(SizeIs(512)));
}

// A text of many megabytes is not encoded as a whole; its parts begin where lines or characters do.
TEST(CalibrationWindows, large_plain_text_gives_windows_from_the_beginnings_of_its_parts) {
  const auto tokenizer = ascii_tokenizer(true);
  std::string text;
  for (int i = 0; text.size() < 200'000; ++i) text += "line " + std::to_string(i) + "\n";
  const CalibrationOptions options{.n_samples = 10, .max_length = 100};
  const auto windows = calibration_windows(plain_text(text), tokenizer, 4096, options);
  ASSERT_THAT(windows, SizeIs(10));
  const std::string first_line = tokenizer.decode(windows[0]).substr(0, 7);
  EXPECT_EQ(first_line, "line 0\n");
  for (size_t i = 0; i < windows.size(); ++i) {
    EXPECT_THAT(windows[i], SizeIs(100));
    EXPECT_EQ(windows[i].front(), 0);
    const std::string window = tokenizer.decode(windows[i]);
    EXPECT_TRUE(window.starts_with("line ")) << window;
    // At most a quarter of a part behind an even spread.
    const size_t found = text.find(window);
    const size_t part = text.size() / 10;
    ASSERT_NE(found, std::string::npos);
    EXPECT_GE(found, i * part);
    EXPECT_LE(found, i * part + part / 4);
  }
}

TEST(CalibrationWindows, large_text_without_lines_is_cut_between_characters) {
  const auto tokenizer = runtime::Tokenizer::from_json(formats::read_text_file(
      fs::path(LLMQ_TEST_SOURCE_DIR) / "runtime/tokenizer/goldens/small_byte_level.json"));
  std::string text = "a";  // so that parts of equal size begin inside a character
  for (int i = 0; i < 30'000; ++i) text += "\xE4\xBD\xA0";
  const CalibrationOptions options{.n_samples = 7, .max_length = 60};
  const auto windows = calibration_windows(plain_text(text), tokenizer, 4096, options);
  ASSERT_THAT(windows, SizeIs(7));
  const auto from_start = tokenizer.encode(text.substr(0, 601), {});
  const auto from_character = tokenizer.encode(text.substr(1, 600), {});
  EXPECT_EQ(windows[0], std::vector<int32_t>(from_start.begin(), from_start.begin() + 60));
  for (size_t i = 1; i < windows.size(); ++i) {
    EXPECT_EQ(windows[i],
              std::vector<int32_t>(from_character.begin(), from_character.begin() + 60));
  }
  // Bytes that are no UTF-8 are what they are for the tokenizer.
  const auto broken =
      calibration_windows(plain_text(std::string(90'000, '\x80')), tokenizer, 4096, options);
  ASSERT_THAT(broken, SizeIs(7));
  const auto replaced = tokenizer.encode(std::string(100, '\x80'), {});
  for (const auto& window : broken) {
    EXPECT_EQ(window, std::vector<int32_t>(replaced.begin(), replaced.begin() + 60));
  }
}

TEST(CalibrationWindows, builtin_set_gives_a_window_for_each_text) {
  const auto tokenizer = runtime::Tokenizer::from_json(formats::read_text_file(
      fs::path(LLMQ_TEST_SOURCE_DIR) / "runtime/tokenizer/goldens/small_byte_level.json"));
  const auto windows = calibration_windows(builtin_calibration(), tokenizer, 100'000);
  ASSERT_THAT(windows, SizeIs(builtin_calibration_texts().size()));
  for (size_t i = 0; i < windows.size(); ++i) {
    EXPECT_EQ(tokenizer.decode(windows[i], false), builtin_calibration_texts()[i]);
  }
}

TEST(CalibrationWindows, what_cannot_be_done_is_refused_in_one_sentence) {
  const auto tokenizer = ascii_tokenizer(true);
  const CalibrationTexts texts{.name = "mine.jsonl", .texts = {"abc"}};
  const auto refused = [&](int64_t max_positions, const CalibrationOptions& options) {
    return error_of([&] { calibration_windows(texts, tokenizer, max_positions, options); },
                    ErrorCode::kUsage);
  };
  EXPECT_THAT(refused(100, {.n_samples = -1}), HasSubstr("neither can be negative"));
  EXPECT_THAT(refused(100, {.max_length = -5}), HasSubstr("neither can be negative"));
  EXPECT_THAT(refused(100, {.max_length = 1}),
              HasSubstr("length of 1 tokens is too short; give at least 2"));
  EXPECT_THAT(refused(0, {}), HasSubstr("length of 0 tokens is too short"));

  const auto without_bos = ascii_tokenizer(false);
  const CalibrationTexts useless{.name = "mine.jsonl", .texts = {"a", "b"}};
  EXPECT_THAT(error_of([&] { calibration_windows(useless, without_bos, 100); }),
              HasSubstr("mine.jsonl: no sample has two tokens or more; give longer calibration"));
  EXPECT_THAT(error_of([&] { calibration_windows(plain_text("a"), without_bos, 100); }),
              HasSubstr("book.txt: no sample has two tokens or more"));
}

}  // namespace
}  // namespace llmq::convert
