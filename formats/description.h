#pragma once

#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "formats/json.h"

namespace llmq::formats {

/// quant_model_description.json: which scheme each tensor of a quantized checkpoint has. A flat
/// object whose tensor keys map to scheme tags, beside a few metadata keys.
struct Description {
  std::string model_quant_type = "FLOAT";  ///< tag of the model's main scheme
  std::optional<std::string> version;      ///< "1.0.0"; absent in files of older tools ("0.0.0")
  int64_t group_size = 0;                  ///< 0: per channel
  std::string kv_quant_type;               ///< "C8" or empty
  std::string fa_quant_type;               ///< "FAQuant" or empty
  /// Tensor name → scheme tag, in file order.
  std::vector<std::pair<std::string, std::string>> tensors;
  /// Every other key (metadata, optional, reduce_quant_type, ...), kept as it is.
  Json other = Json::object();

  /// Tag of a tensor; empty when the file has no such key.
  [[nodiscard]] std::string_view tag_of(std::string_view tensor) const;
};

/// File name that engines look for.
inline constexpr std::string_view kDescriptionFile = "quant_model_description.json";

/// The description file of a folder: kDescriptionFile, or the older
/// quant_model_description_{type}.json. Nothing when there is none. Throws Error{kBadInput} when
/// several of the older kind lie there.
std::optional<std::filesystem::path> find_description(const std::filesystem::path& folder);

/// Reads a description file. Throws Error{kBadInput} naming the key that is not what it must be.
/// Values of unknown keys that are no strings are tolerated.
Description read_description(const std::filesystem::path& path);

/// The description in a document; `origin` names it in errors. Throws as read_description.
Description parse_description(const Json& document, const std::string& origin);

/// The JSON document of a description: metadata first, then the tensors in their order.
Json description_json(const Description& description);

}  // namespace llmq::formats
