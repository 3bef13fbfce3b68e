#include "convert/pipeline/side_files.h"

#include <algorithm>
#include <array>
#include <string_view>

namespace llmq::convert {
namespace {

constexpr uint64_t kMaxSideFileBytes = uint64_t{256} << 20;

constexpr std::array<std::string_view, 9> kExtensions{
    ".json", ".py", ".txt", ".jinja", ".tiktoken", ".md", ".model", ".jsonl", ".cu"};
constexpr std::array<std::string_view, 4> kPlainNames{"LICENSE", "NOTICE", "LICENSE.txt",
                                                      "USE_POLICY.md"};

/// Written anew, or describing other weights than those written.
constexpr std::array<std::string_view, 8> kLeftOut{
    "config.json",      "quantize_config.json", "quant_config.json",   "hf_quant_config.json",
    "llmq_report.json", "llmq_stats.json",      "adapter_config.json", "quantization_config.json"};

bool is_side_file(const std::string& name) {
  const auto is = [&](std::string_view other) { return name == other; };
  if (std::any_of(kLeftOut.begin(), kLeftOut.end(), is)) return false;
  const bool is_index = name.ends_with(".json") && name.find(".index.") != std::string::npos;
  if (is_index || name.starts_with("quant_model_description")) return false;
  if (std::any_of(kPlainNames.begin(), kPlainNames.end(), is)) return true;
  return std::any_of(kExtensions.begin(), kExtensions.end(),
                     [&](std::string_view extension) { return name.ends_with(extension); });
}

}  // namespace

std::vector<std::string> side_files(const std::filesystem::path& source) {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(source)) {
    const std::string name = entry.path().filename().string();
    std::error_code error;  // of a link that leads nowhere
    const bool is_file = entry.is_regular_file(error) && !error;
    if (is_file && is_side_file(name) && entry.file_size() <= kMaxSideFileBytes)
      names.push_back(name);
  }
  std::sort(names.begin(), names.end());
  return names;
}

}  // namespace llmq::convert
