#include "convert/calibration/samples.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <span>
#include <utility>

#include "convert/calibration/builtin_set.h"
#include "formats/error.h"
#include "formats/file.h"
#include "formats/json.h"
#include "runtime/evaluate/text_pieces.h"
#include "runtime/tokenizer/unicode.h"

namespace llmq::convert {
namespace {

using formats::bad_input;
using formats::Json;

constexpr size_t kMaxFileBytes = size_t{256} << 20;
constexpr size_t kMaxLineBytes = size_t{16} << 20;
constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";
constexpr std::string_view kWhiteSpace = " \t\r\n\v\f";

constexpr int64_t kPlainTextWindows = 32;
constexpr int64_t kPlainTextLength = 512;
/// A text with more bytes than this for each token wanted is not encoded as a whole.
constexpr size_t kAmpleBytesPerToken = 32;
/// A text is cut behind this many bytes for each token wanted before it is encoded.
constexpr size_t kMaxBytesPerToken = 256;

bool is_blank(std::string_view text) {
  return text.find_first_not_of(kWhiteSpace) == std::string_view::npos;
}

std::string lower_extension(const std::filesystem::path& file) {
  std::string extension = file.extension().string();
  for (char& c : extension) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return extension;
}

std::string sample_text(Json sample, const std::string& where) {
  if (sample.is_string()) return std::move(sample.get_ref<std::string&>());
  if (!sample.is_object()) {
    throw bad_input(where + ": neither a JSON object nor a string");
  }
  for (const char* key : {"inputs_pretokenized", "prompt"}) {
    const auto found = sample.find(key);
    if (found == sample.end()) continue;
    if (!found->is_string()) throw bad_input(fmt::format("{}: \"{}\" is not a string", where, key));
    return std::move(found->get_ref<std::string&>());
  }
  throw bad_input(where +
                  ": no key \"inputs_pretokenized\" or \"prompt\"; put the sample's text under one "
                  "of them");
}

/// Adds a sample unless there is nothing in it to calibrate with.
void add_sample(std::string text, const std::string& where, std::vector<std::string>& texts) {
  if (text.find('\0') != std::string::npos) {
    throw bad_input(where + ": the text holds a zero byte; remove it");
  }
  if (!is_blank(text)) texts.push_back(std::move(text));
}

std::vector<std::string> parse_lines(std::string_view bytes, const std::string& origin,
                                     size_t max_samples) {
  std::vector<std::string> texts;
  int64_t n_lines = 0;
  while (!bytes.empty() && (max_samples == 0 || texts.size() < max_samples)) {
    const size_t end = std::min(bytes.find('\n'), bytes.size());
    const std::string_view line = bytes.substr(0, end);
    bytes.remove_prefix(std::min(end + 1, bytes.size()));
    ++n_lines;
    if (is_blank(line)) continue;
    const std::string where = fmt::format("{} line {}", origin, n_lines);
    Json sample = formats::parse_json(line, where, {.max_bytes = kMaxLineBytes});
    add_sample(sample_text(std::move(sample), where), where, texts);
  }
  return texts;
}

std::vector<std::string> parse_list(std::string_view bytes, const std::string& origin,
                                    size_t max_samples) {
  Json list = formats::parse_json(bytes, origin, {.max_bytes = kMaxFileBytes});
  if (!list.is_array()) {
    throw bad_input(origin +
                    ": not a JSON list of samples; give a list, or a .jsonl file with one sample "
                    "a line");
  }
  std::vector<std::string> texts;
  for (size_t i = 0; i < list.size() && (max_samples == 0 || texts.size() < max_samples); ++i) {
    const std::string where = fmt::format("{} sample {}", origin, i + 1);
    add_sample(sample_text(std::move(list[i]), where), where, texts);
  }
  return texts;
}

/// Where the character begins that begins at `pos` or behind it.
size_t next_char(std::string_view text, size_t pos) {
  // At most three bytes of a character follow its first in UTF-8; more of them are no text.
  const size_t limit = std::min(text.size(), pos + 3);
  while (pos < limit && !runtime::is_char_boundary(text, pos)) ++pos;
  return pos;
}

/// The first window of a text; empty where the text has no token.
std::vector<int32_t> first_window(std::string_view text, const runtime::Tokenizer& tokenizer,
                                  int64_t length) {
  // Bounds the time that a hostile "word" of many megabytes takes; no vocabulary has such tokens.
  const auto n_tokens = static_cast<size_t>(length);
  if (text.size() / kMaxBytesPerToken > n_tokens) {
    text = text.substr(0, next_char(text, n_tokens * kMaxBytesPerToken));
  }
  std::vector<int32_t> window;
  runtime::for_each_piece(text, tokenizer, {.context = length, .separator = {}},
                          [&](std::span<const int32_t> ids, size_t) {
                            window.assign(ids.begin(), ids.end());
                            return false;
                          });
  return window;
}

/// Where a part of a large text that may begin at `pos` does begin: behind the next line end where
/// there is one within `near_bytes`, else at the next character.
size_t part_begin(std::string_view text, size_t pos, size_t near_bytes) {
  if (pos == 0) return 0;
  const size_t line_end = text.substr(pos - 1, near_bytes).find('\n');
  if (line_end != std::string_view::npos) return pos + line_end;
  return next_char(text, pos);
}

/// Windows from the beginnings of `count` parts of equal size; the text between is never encoded.
std::vector<std::vector<int32_t>> windows_of_parts(std::string_view text,
                                                   const runtime::Tokenizer& tokenizer,
                                                   int64_t length, size_t count) {
  std::vector<std::vector<int32_t>> windows;
  const size_t part_bytes = text.size() / count;
  const size_t near_bytes = part_bytes / 4;
  for (size_t i = 0; i < count; ++i) {
    const size_t begin = part_begin(text, i * part_bytes, near_bytes);
    const size_t end =
        i + 1 < count ? part_begin(text, (i + 1) * part_bytes, near_bytes) : text.size();
    windows.push_back(first_window(text.substr(begin, end - begin), tokenizer, length));
  }
  return windows;
}

/// Windows at evenly spread tokens of a text that is encoded as a whole.
std::vector<std::vector<int32_t>> windows_of_ids(std::string_view text,
                                                 const runtime::Tokenizer& tokenizer,
                                                 int64_t length, size_t count) {
  const std::vector<int32_t> prefix = runtime::text_prefix(tokenizer);
  std::vector<int32_t> ids;
  runtime::for_each_piece(text, tokenizer, {.context = length, .separator = {}},
                          [&](std::span<const int32_t> window, size_t) {
                            const auto behind_prefix =
                                window.begin() + static_cast<std::ptrdiff_t>(prefix.size());
                            ids.insert(ids.end(), behind_prefix, window.end());
                            return true;
                          });
  const size_t n_new = static_cast<size_t>(length) - prefix.size();
  const size_t n_windows = std::min(count, (ids.size() + n_new - 1) / n_new);
  // At least n_new apart, unless the windows cover the text without a gap.
  const size_t step = std::max(n_new, n_windows == 0 ? 0 : ids.size() / n_windows);
  std::vector<std::vector<int32_t>> windows;
  for (size_t i = 0; i < n_windows; ++i) {
    const auto begin = ids.begin() + static_cast<std::ptrdiff_t>(i * step);
    const size_t n_ids = std::min(n_new, ids.size() - i * step);
    std::vector<int32_t>& window = windows.emplace_back(prefix);
    window.insert(window.end(), begin, begin + static_cast<std::ptrdiff_t>(n_ids));
  }
  return windows;
}

std::vector<std::vector<int32_t>> windows_of_text(std::string_view text,
                                                  const runtime::Tokenizer& tokenizer,
                                                  int64_t length, size_t count) {
  // Divided instead of multiplied, so that nothing overflows.
  const bool is_ample = text.size() / kAmpleBytesPerToken / count >= static_cast<size_t>(length);
  return is_ample ? windows_of_parts(text, tokenizer, length, count)
                  : windows_of_ids(text, tokenizer, length, count);
}

/// Tokens of a window at most.
int64_t window_length(const CalibrationTexts& texts, const runtime::Tokenizer& tokenizer,
                      int64_t max_positions, const CalibrationOptions& options) {
  if (options.n_samples < 0 || options.max_length < 0) {
    throw formats::usage_error(
        fmt::format("{} calibration samples of {} tokens were asked for; neither can be negative",
                    options.n_samples, options.max_length));
  }
  const int64_t usual = texts.is_plain_text ? kPlainTextLength : max_positions;
  const int64_t wanted = options.max_length > 0 ? options.max_length : usual;
  const int64_t length = std::min(wanted, max_positions);
  const auto n_prefix = static_cast<int64_t>(runtime::text_prefix(tokenizer).size());
  const int64_t least = std::max<int64_t>(n_prefix + 1, 2);
  if (length < least) {
    throw formats::usage_error(fmt::format(
        "a calibration length of {} tokens is too short; give at least {}", length, least));
  }
  return length;
}

}  // namespace

CalibrationTexts parse_calibration(std::string_view bytes, const std::filesystem::path& file,
                                   int64_t max_samples) {
  if (max_samples < 0) {
    throw formats::usage_error(fmt::format(
        "{} calibration samples were asked for; the number cannot be negative", max_samples));
  }
  const std::string origin = file.string();
  if (bytes.size() > kMaxFileBytes) {
    throw bad_input(fmt::format(
        "{}: {} bytes, more than the {} that a calibration file may have; cut it, a few hundred "
        "samples are enough",
        origin, bytes.size(), kMaxFileBytes));
  }
  if (bytes.starts_with(kByteOrderMark)) bytes.remove_prefix(kByteOrderMark.size());
  const auto n_wanted = static_cast<size_t>(max_samples);
  CalibrationTexts result{.name = origin, .texts = {}, .is_plain_text = false};
  if (const std::string extension = lower_extension(file); extension == ".jsonl") {
    result.texts = parse_lines(bytes, origin, n_wanted);
  } else if (extension == ".json") {
    result.texts = parse_list(bytes, origin, n_wanted);
  } else {
    result.is_plain_text = true;
    if (const size_t zero = bytes.find('\0'); zero != std::string_view::npos) {
      throw bad_input(fmt::format(
          "{} line {}: a zero byte, so not text in UTF-8; save the calibration text as UTF-8",
          origin,
          1 + std::count(bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(zero), '\n')));
    }
    if (!is_blank(bytes)) result.texts.emplace_back(bytes);
  }
  if (result.texts.empty()) {
    throw bad_input(origin +
                    ": no text to calibrate with; give a file that has some, or leave "
                    "-calib out to use the built-in set");
  }
  return result;
}

CalibrationTexts read_calibration_file(const std::filesystem::path& file, int64_t max_samples) {
  const formats::MappedFile mapped(file);
  const auto bytes = mapped.bytes();
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  return parse_calibration(text, file, max_samples);
}

CalibrationTexts builtin_calibration() {
  const auto texts = builtin_calibration_texts();
  return {.name = std::string(kBuiltinCalibrationName),
          .texts = {texts.begin(), texts.end()},
          .is_plain_text = false};
}

std::vector<std::vector<int32_t>> calibration_windows(const CalibrationTexts& texts,
                                                      const runtime::Tokenizer& tokenizer,
                                                      int64_t max_positions,
                                                      const CalibrationOptions& options) {
  const int64_t length = window_length(texts, tokenizer, max_positions, options);
  int64_t n_wanted = options.n_samples;
  if (n_wanted == 0) {
    n_wanted = texts.is_plain_text ? kPlainTextWindows : static_cast<int64_t>(texts.texts.size());
  }
  std::vector<std::vector<int32_t>> windows;
  for (const std::string& text : texts.texts) {
    const auto n_missing = static_cast<size_t>(n_wanted) - windows.size();
    if (n_missing == 0) break;
    try {
      std::vector<std::vector<int32_t>> of_text;
      if (texts.is_plain_text) {
        of_text = windows_of_text(text, tokenizer, length, n_missing);
      } else {
        of_text.push_back(first_window(text, tokenizer, length));
      }
      for (auto& window : of_text) {
        if (window.size() >= 2) windows.push_back(std::move(window));
      }
    } catch (const formats::Error& error) {
      throw error.with_context(texts.name);
    }
  }
  if (windows.empty()) {
    throw bad_input(texts.name +
                    ": no sample has two tokens or more; give longer calibration texts, or leave "
                    "-calib out to use the built-in set");
  }
  return windows;
}

}  // namespace llmq::convert
