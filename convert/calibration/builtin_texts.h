#pragma once

#include <span>
#include <string_view>

namespace llmq::convert {

// The texts of the built-in calibration set by kind, valid UTF-8 without a line end at the end.
// They live as long as the program. Whoever changes one gives the set a new name
// (kBuiltinCalibrationName).

std::span<const std::string_view> builtin_english();
std::span<const std::string_view> builtin_chinese();
std::span<const std::string_view> builtin_code_first();
std::span<const std::string_view> builtin_code_second();
std::span<const std::string_view> builtin_chat();

}  // namespace llmq::convert
