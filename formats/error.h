#pragma once

#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>

namespace llmq::formats {

/// Why an operation failed; the numeric value is the exit code of the program.
enum class ErrorCode : int {
  kUsage = 2,         ///< the command line asks for something that does not exist
  kBadInput = 3,      ///< a file or its content is not what it must be
  kIo = 4,            ///< the operating system refused, or the disk is full
  kMemory = 5,        ///< the work would not fit into the allowed memory
  kGate = 6,          ///< a conformance or accuracy gate failed
  kInternal = 70,     ///< a bug in llmq
  kInterrupted = 130  ///< stopped by a signal; can be resumed
};

/// Short stable name of a code for JSON output: "usage", "bad_input", "io", "memory", "gate",
/// "internal", "interrupted".
std::string_view error_code_name(ErrorCode code);

/// The one exception of the libraries. The message is a sentence for a person: what was wrong,
/// where, what to do. Libraries throw it and never print, abort or exit.
class Error : public std::runtime_error {
 public:
  Error(ErrorCode code, const std::string& message) : std::runtime_error(message), code_(code) {}

  [[nodiscard]] ErrorCode code() const { return code_; }

  /// The same error with "where: " put before its message; each layer adds what it knows (file,
  /// tensor, layer).
  [[nodiscard]] Error with_context(std::string_view where) const {
    return {code_, std::string(where) + ": " + what()};
  }

 private:
  ErrorCode code_;
};

/// Error{kBadInput, message}: the content of a file is wrong.
[[nodiscard]] inline Error bad_input(const std::string& message) {
  return {ErrorCode::kBadInput, message};
}

/// Error{kUsage, message}: the request is wrong.
[[nodiscard]] inline Error usage_error(const std::string& message) {
  return {ErrorCode::kUsage, message};
}

/// Error{kIo, "what: reason of errno"}; `saved_errno` is the errno of the failed call.
[[nodiscard]] Error io_error(const std::string& what, int saved_errno);

}  // namespace llmq::formats
