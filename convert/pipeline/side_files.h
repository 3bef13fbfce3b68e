#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace llmq::convert {

/// Files of the source that go along with the weights: tokenizer, generation and chat
/// configuration, python code (copied, never executed), licence and readme. Not weights, float
/// indexes, configurations of other quantizers, or what llmq writes itself. Names inside the
/// folder, sorted; only regular files of at most 256 MiB.
std::vector<std::string> side_files(const std::filesystem::path& source);

}  // namespace llmq::convert
