#pragma once

#include <span>
#include <string_view>

namespace llmq::convert {

/// Name and version of the built-in calibration set, as output and report show it. It changes with
/// every change of the texts or of their order, because the bytes that llmq writes depend on them.
inline constexpr std::string_view kBuiltinCalibrationName = "llmq-calibration-1";

/// The built-in calibration set: a few hundred short texts of the project's own writing in English,
/// Chinese, program code and chat (with a few in other languages), valid UTF-8, of some 30 to 250
/// words. The order is fixed and interleaves the kinds, so that the first n of them are a fair
/// choice for every n from 8 on. The texts live as long as the program. Thread-safe.
std::span<const std::string_view> builtin_calibration_texts();

}  // namespace llmq::convert
