#pragma once

#include <string>

#include "formats/json.h"

namespace llmq::convert {

/// The table that quant and convert print at their end, from their report: what each scheme took,
/// sizes, bits per weight, signal to noise, conformance, time and memory.
std::string summary_text(const formats::Json& report);

/// A rule table for verify.
std::string conformance_text(const formats::Json& conformance);

}  // namespace llmq::convert
