#include "formats/error.h"

#include <system_error>

namespace llmq::formats {

std::string_view error_code_name(ErrorCode code) {
  switch (code) {
    case ErrorCode::kUsage:
      return "usage";
    case ErrorCode::kBadInput:
      return "bad_input";
    case ErrorCode::kIo:
      return "io";
    case ErrorCode::kMemory:
      return "memory";
    case ErrorCode::kGate:
      return "gate";
    case ErrorCode::kInternal:
      return "internal";
    case ErrorCode::kInterrupted:
      return "interrupted";
  }
  return "internal";
}

Error io_error(const std::string& what, int saved_errno) {
  return {ErrorCode::kIo, what + ": " + std::generic_category().message(saved_errno)};
}

}  // namespace llmq::formats
