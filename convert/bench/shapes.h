#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "formats/json.h"

namespace llmq::convert {

/// Names of the shapes that bench_shape knows, as --help lists them.
std::vector<std::string_view> bench_shape_names();

/// The config.json of a well-known model's shape: extents, heads and vocabulary, with room for
/// 131,072 positions and dtype bfloat16. Throws Error{kUsage} listing the names for another one.
formats::Json bench_shape(std::string_view name);

}  // namespace llmq::convert
