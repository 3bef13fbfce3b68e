#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/tokenizer/tokenizer.h"

namespace llmq::convert {

/// Where calibration texts came from and what they are.
struct CalibrationTexts {
  std::string name;                ///< the file as it was given, or the built-in set's name
  std::vector<std::string> texts;  ///< one text a sample, UTF-8 (invalid bytes are possible)
  bool is_plain_text = false;      ///< one running text, to be cut into windows
};

/// Reads a calibration file; its extension (in any case) says how:
/// - `.jsonl`: one sample a line, an object whose `inputs_pretokenized`, else `prompt`, is the text
///   (other keys are ignored), or a string. White-space lines are skipped. With `max_samples` above
///   0, reading ends behind that many samples.
/// - `.json`: a list of such objects or strings.
/// - anything else: plain text, one string with `is_plain_text`.
/// A UTF-8 byte order mark is dropped. Throws Error{kBadInput} that names file and line (for
/// `.json` the sample's number) when there is no such file, it is larger than 256 MiB, a line is
/// larger than 16 MiB, JSON is malformed or nested too deeply, a sample lacks the keys, a text
/// holds zero bytes (UTF-16, or no text at all), or nothing but white space is there; Error{kIo}
/// when it cannot be read; Error{kUsage} when `max_samples` is negative. Thread-safe.
CalibrationTexts read_calibration_file(const std::filesystem::path& file, int64_t max_samples = 0);

/// The built-in set (builtin_set.h) as such texts.
CalibrationTexts builtin_calibration();

/// read_calibration_file of a file's content; `file` gives extension and name.
CalibrationTexts parse_calibration(std::string_view bytes, const std::filesystem::path& file,
                                   int64_t max_samples = 0);

/// How calibration texts become windows of tokens.
struct CalibrationOptions {
  /// Windows at most; 0: all samples, or 32 windows of a plain text.
  int64_t n_samples = 0;
  /// Tokens of a window at most, BOS included; 0: min(512, max_positions) for plain text, else
  /// max_positions. Never more than max_positions.
  int64_t max_length = 0;
};

/// Token ids to calibrate with, one list a forward pass, each beginning with BOS where the
/// tokenizer adds one; special tokens in the texts are parsed; CRLF and CR are read as LF. Every
/// list has at least two ids and at most the length that `options` says, all ids below
/// vocab_size().
///
/// Samples give one list each, in order, cut at the length; those of less than two ids (BOS
/// included) are left out and do not count as one of `n_samples`. A plain text gives disjoint
/// windows of that length that begin evenly spread over it, the first at its start; where it is too
/// short for so many, as many full windows as it has and the rest as a shorter one.
///
/// `max_positions`: positions that the model can take, at least 2. Throws Error{kUsage} when an
/// option is negative or the length leaves no room for a token behind BOS, Error{kBadInput} when no
/// sample is usable, and what the tokenizer throws. Thread-safe.
std::vector<std::vector<int32_t>> calibration_windows(const CalibrationTexts& texts,
                                                      const runtime::Tokenizer& tokenizer,
                                                      int64_t max_positions,
                                                      const CalibrationOptions& options = {});

}  // namespace llmq::convert
