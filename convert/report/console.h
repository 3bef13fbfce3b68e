#pragma once

#include <chrono>
#include <mutex>
#include <string>
#include <string_view>

#include "formats/error.h"
#include "formats/json.h"

namespace llmq::convert {

enum class LogLevel : uint8_t { kQuiet, kWarning, kInfo, kDebug };

/// What progress counts.
enum class ProgressUnit : uint8_t { kBytes, kTokens };

/// Everything the program says. Results go to stdout (one JSON document with --json), all else to
/// stderr. Thread-safe.
class Console {
 public:
  Console(bool json, LogLevel level);

  /// Says nothing at all: for ranks that compute the same as another one.
  void mute() { muted_ = true; }

  [[nodiscard]] bool is_json() const { return json_; }

  void warn(std::string_view sentence);
  void info(std::string_view sentence);
  void debug(std::string_view sentence);

  /// The command's result: `document` with --json, else `text`.
  void result(const formats::Json& document, std::string_view text);

  /// Part of a text that is being made, shown on stdout at once. Nothing with --json.
  void stream(std::string_view text);

  /// An error: the sentence on stderr, and {"error": ...} on stdout with --json.
  void error(formats::ErrorCode code, std::string_view sentence);

  /// Shows progress: on a terminal one line rewritten in place with rate and time left, in a pipe a
  /// plain line at most every few seconds.
  void progress(std::string_view what, uint64_t done, uint64_t total,
                ProgressUnit unit = ProgressUnit::kBytes);

  /// Ends the progress line.
  void end_progress();

 private:
  void line(std::string_view prefix, std::string_view text);

  using Clock = std::chrono::steady_clock;
  std::mutex mutex_;
  bool json_;
  LogLevel level_;
  bool is_terminal_;
  bool muted_ = false;
  bool line_open_ = false;
  Clock::time_point started_;
  Clock::time_point last_shown_;
  uint64_t started_at_ = 0;  // done when the progress line began
  bool in_progress_ = false;
};

/// "1.50 GB", "123.5 MB", "870 B": three or four digits (powers of 1000).
std::string bytes_text(uint64_t size_bytes);

/// "3.2s", "1m 20s", "2h 5m". `seconds` is 0 or more.
std::string seconds_text(double seconds);

}  // namespace llmq::convert
