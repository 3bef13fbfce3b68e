#include "runtime/model/generation_config.h"

#include <fmt/format.h>

#include <string>

#include "formats/error.h"
#include "formats/json.h"

namespace llmq::runtime {
namespace {

using formats::Json;

int32_t token_id(const Json& value, const char* key, const std::string& origin) {
  constexpr int64_t kMost = INT32_MAX;
  const bool is_id = value.is_number_integer() && value.get<double>() >= 0 &&
                     value.get<double>() <= static_cast<double>(kMost);
  if (!is_id) {
    throw formats::bad_input(
        fmt::format("{}: \"{}\" holds {}, which is not a token id", origin, key, value.dump()));
  }
  return value.get<int32_t>();
}

/// An id, a list of ids, or nothing where the key is absent or null.
std::optional<std::vector<int32_t>> token_ids(const Json& document, const char* key,
                                              const std::string& origin) {
  const auto found = document.find(key);
  if (found == document.end() || found->is_null()) return std::nullopt;
  std::vector<int32_t> ids;
  if (found->is_array()) {
    for (const Json& item : *found) ids.push_back(token_id(item, key, origin));
  } else {
    ids.push_back(token_id(*found, key, origin));
  }
  return ids;
}

}  // namespace

GenerationConfig read_generation_config(const std::filesystem::path& folder,
                                        const formats::ModelConfig& config) {
  GenerationConfig result{config.eos_token_ids, config.bos_token_id};
  const std::filesystem::path file = folder / "generation_config.json";
  if (!std::filesystem::exists(file)) return result;
  const std::string origin = file.string();
  const Json document = formats::read_json_file(file);
  if (!document.is_object()) throw formats::bad_input(origin + ": is not a JSON object");
  if (const auto stop_ids = token_ids(document, "eos_token_id", origin))
    result.stop_ids = *stop_ids;
  const auto bos = token_ids(document, "bos_token_id", origin);
  if (bos && !bos->empty()) result.bos_token_id = bos->front();
  return result;
}

}  // namespace llmq::runtime
