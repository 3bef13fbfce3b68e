#include "formats/description.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "formats/error.h"
#include "formats/scheme.h"

namespace llmq::formats {
namespace {

/// Keys that are not tensors although their value may be a string.
constexpr std::array<std::string_view, 13> kMetadataKeys{
    "model_quant_type", "version",       "group_size",        "kv_cache_type",
    "kv_quant_type",    "fa_quant_type", "reduce_quant_type", "metadata",
    "optional",         "is_nzcasted",   "AtlasGMMPermute",   "indexer_quant_type",
    "w8a8sc_codec"};

std::string string_or_empty(const Json& value) {
  return value.is_string() ? value.get<std::string>() : "";
}

bool is_tensor_key(const std::string& key, const Json& value) {
  // "<attention module>.quant_type" stands beside an attention module's tensors.
  if (!value.is_string() || key.ends_with(".quant_type")) return false;
  return std::find(kMetadataKeys.begin(), kMetadataKeys.end(), key) == kMetadataKeys.end();
}

}  // namespace

std::string_view Description::tag_of(std::string_view tensor) const {
  for (const auto& [name, tag] : tensors) {
    if (name == tensor) return tag;
  }
  return {};
}

std::optional<std::filesystem::path> find_description(const std::filesystem::path& folder) {
  if (std::filesystem::exists(folder / kDescriptionFile)) return folder / kDescriptionFile;
  std::vector<std::filesystem::path> older;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(folder, error)) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with("quant_model_description_") && name.ends_with(".json"))
      older.push_back(entry.path());
  }
  if (older.size() > 1) {
    throw bad_input(fmt::format("{}: {} description files; engines refuse that, keep one",
                                folder.string(), older.size()));
  }
  if (older.empty()) return std::nullopt;
  return older.front();
}

Description read_description(const std::filesystem::path& path) {
  return parse_description(read_json_file(path), path.string());
}

Description parse_description(const Json& document, const std::string& origin) {
  if (!document.is_object()) throw bad_input(origin + ": is not a JSON object");
  Description description;
  const auto type = document.find("model_quant_type");
  if (type == document.end() || !type->is_string()) {
    throw bad_input(origin + ": the key \"model_quant_type\" is missing or not a string");
  }
  for (const auto& [key, value] : document.items()) {
    if (is_tensor_key(key, value)) {
      description.tensors.emplace_back(key, value.get<std::string>());
    } else if (key == "model_quant_type") {
      description.model_quant_type = value.get<std::string>();
    } else if (key == "version" && value.is_string()) {
      description.version = value.get<std::string>();
    } else if (key == "group_size") {
      if (!value.is_number_unsigned() || value.get<uint64_t>() > 65536) {
        throw bad_input(
            fmt::format("{}: group_size is {}, not a small whole number", origin, value.dump()));
      }
      description.group_size = value.get<int64_t>();
    } else if (key == "kv_quant_type" || key == "kv_cache_type") {
      if (value.is_string()) description.kv_quant_type = string_or_empty(value);
    } else if (key == "fa_quant_type") {
      description.fa_quant_type = string_or_empty(value);
    } else {
      description.other[key] = value;
    }
  }
  return description;
}

Json description_json(const Description& description) {
  Json document = Json::object();
  document["model_quant_type"] = description.model_quant_type;
  if (description.version) document["version"] = *description.version;
  document["group_size"] = description.group_size;
  if (!description.kv_quant_type.empty()) {
    document["kv_cache_type"] = description.kv_quant_type;
    document["kv_quant_type"] = description.kv_quant_type;
  }
  if (!description.fa_quant_type.empty()) document["fa_quant_type"] = description.fa_quant_type;
  for (const auto& [key, value] : description.other.items()) document[key] = value;
  for (const auto& [name, tag] : description.tensors) append_key(document, name, tag);
  return document;
}

}  // namespace llmq::formats
