#include "convert/report/console.h"

#include <fmt/format.h>
#include <unistd.h>

#include <array>
#include <cmath>
#include <cstdio>

namespace llmq::convert {
namespace {

constexpr auto kTerminalInterval = std::chrono::milliseconds(200);
constexpr auto kPipeInterval = std::chrono::seconds(5);

/// Names come from files: control characters and escape sequences in them must not reach a
/// terminal.
std::string printable(std::string_view text) {
  std::string result(text);
  for (char& c : result) {
    const auto byte = static_cast<unsigned char>(c);
    if ((byte < 0x20 && c != '\n' && c != '\t') || byte == 0x7f) c = '?';
  }
  return result;
}

std::string amount_text(uint64_t amount, ProgressUnit unit) {
  return unit == ProgressUnit::kTokens ? fmt::format("{} tokens", amount) : bytes_text(amount);
}

}  // namespace

Console::Console(bool json, LogLevel level)
    : json_(json), level_(level), is_terminal_(::isatty(STDERR_FILENO) != 0) {}

void Console::line(std::string_view prefix, std::string_view text) {
  if (muted_) return;
  const std::scoped_lock lock(mutex_);
  if (line_open_) fmt::print(stderr, "\n");
  line_open_ = false;
  fmt::print(stderr, "{}{}\n", prefix, printable(text));
}

void Console::warn(std::string_view sentence) {
  if (level_ >= LogLevel::kWarning) line("warning: ", sentence);
}

void Console::info(std::string_view sentence) {
  if (level_ >= LogLevel::kInfo) line("", sentence);
}

void Console::debug(std::string_view sentence) {
  if (level_ >= LogLevel::kDebug) line("debug: ", sentence);
}

void Console::result(const formats::Json& document, std::string_view text) {
  if (muted_) return;
  end_progress();
  const std::scoped_lock lock(mutex_);
  if (json_) {
    const std::string dumped =
        document.dump(2, ' ', false, formats::Json::error_handler_t::replace);
    std::fwrite(dumped.data(), 1, dumped.size(), stdout);
    std::fputc('\n', stdout);
  } else {
    const std::string shown = printable(text);
    std::fwrite(shown.data(), 1, shown.size(), stdout);
  }
  std::fflush(stdout);
}

void Console::stream(std::string_view text) {
  if (muted_) return;
  const std::scoped_lock lock(mutex_);
  if (json_ || text.empty()) return;
  const std::string shown = printable(text);
  std::fwrite(shown.data(), 1, shown.size(), stdout);
  std::fflush(stdout);
}

void Console::error(formats::ErrorCode code, std::string_view sentence) {
  line("error: ", sentence);
  if (!json_) return;
  result({{"error", {{"code", formats::error_code_name(code)}, {"message", sentence}}}}, "");
}

void Console::progress(std::string_view what, uint64_t done, uint64_t total, ProgressUnit unit) {
  if (muted_ || level_ < LogLevel::kInfo || total == 0) return;
  const std::scoped_lock lock(mutex_);
  const Clock::time_point now = Clock::now();
  if (!in_progress_) {
    in_progress_ = true;
    started_ = now;
    last_shown_ = now;
    started_at_ = done;
    return;
  }
  const bool is_due = now - last_shown_ >= (is_terminal_ ? Clock::duration(kTerminalInterval)
                                                         : Clock::duration(kPipeInterval));
  if (!is_due) return;
  last_shown_ = now;
  const double seconds = std::chrono::duration<double>(now - started_).count();
  const double rate = static_cast<double>(done - started_at_) / std::max(seconds, 1e-9);
  const double left = rate > 0 ? static_cast<double>(total - done) / rate : 0;
  const std::string text = fmt::format(
      "{} {:3.0f}%  {} of {}  {}/s  {} left", what,
      100.0 * static_cast<double>(done) / static_cast<double>(total), amount_text(done, unit),
      amount_text(total, unit), amount_text(static_cast<uint64_t>(rate), unit), seconds_text(left));
  fmt::print(stderr, "{}{}{}", is_terminal_ ? "\r\033[K" : "", text, is_terminal_ ? "" : "\n");
  std::fflush(stderr);
  line_open_ = is_terminal_;
}

void Console::end_progress() {
  const std::scoped_lock lock(mutex_);
  in_progress_ = false;
  if (!line_open_) return;
  fmt::print(stderr, "\r\033[K");
  line_open_ = false;
}

std::string bytes_text(uint64_t size_bytes) {
  constexpr std::array<const char*, 5> kUnits{"B", "kB", "MB", "GB", "TB"};
  double value = static_cast<double>(size_bytes);
  size_t unit = 0;
  // What would be rounded to 1000 belongs to the next unit.
  while (value >= (unit == 0 ? 1000.0 : 999.95) && unit + 1 < kUnits.size()) {
    value /= 1000;
    ++unit;
  }
  return unit == 0 ? fmt::format("{} B", size_bytes)
                   : fmt::format("{:.{}f} {}", value, value < 99.995 ? 2 : 1, kUnits.at(unit));
}

std::string seconds_text(double seconds) {
  if (seconds < 59.95) return fmt::format("{:.1f}s", seconds);
  const auto whole = std::llround(seconds);
  if (whole < 3600) return fmt::format("{}m {}s", whole / 60, whole % 60);
  return fmt::format("{}h {}m", whole / 3600, whole % 3600 / 60);
}

}  // namespace llmq::convert
