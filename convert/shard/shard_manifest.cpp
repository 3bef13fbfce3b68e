#include "convert/shard/shard_manifest.h"

#include <fmt/format.h>

#include <zlib.h>

#include <set>

#include "formats/error.h"

namespace llmq::convert {
namespace {

using formats::bad_input;
using formats::Json;
namespace fs = std::filesystem;

constexpr int64_t kVersion = 1;
constexpr int64_t kMaxRanks = 1024;
constexpr std::string_view kDescriptionStem = "quant_model_description";

std::string hexadecimal(uint32_t value) {
  return fmt::format("{:08x}", value);
}

Json tensor_json(const ManifestTensor& tensor) {
  return {{"name", tensor.name},
          {"dtype", formats::dtype_name(tensor.dtype)},
          {"shape", tensor.shape},
          {"crc32", tensor.crc32}};
}

Json file_json(const ManifestFile& file) {
  Json tensors = Json::array();
  for (const ManifestTensor& tensor : file.tensors) tensors.push_back(tensor_json(tensor));
  return {{"name", file.name}, {"metadata", file.metadata}, {"tensors", std::move(tensors)}};
}

/// A name from a file may only name an entry of the folder itself.
std::string checked_name(const std::string& name) {
  const fs::path path(name);
  const bool is_plain = path.has_filename() && path.filename() == path && name != "." &&
                        name != ".." && name.find('\0') == std::string::npos;
  if (!is_plain) throw bad_input(fmt::format("names the file \"{}\", outside the folder", name));
  return name;
}

ManifestTensor parse_tensor(const Json& json) {
  ManifestTensor tensor{json.at("name").get<std::string>(),
                        formats::parse_dtype(json.at("dtype").get<std::string>()),
                        json.at("shape").get<formats::Shape>(), json.at("crc32").get<uint32_t>()};
  formats::tensor_size_bytes(tensor.dtype, tensor.shape);
  return tensor;
}

ManifestFile parse_file(const Json& json) {
  ManifestFile file;
  file.name = checked_name(json.at("name").get<std::string>());
  if (!file.name.ends_with(".safetensors"))
    throw bad_input(fmt::format("names the weight file \"{}\", no safetensors file", file.name));
  for (const auto& [key, value] : json.at("metadata").items())
    file.metadata[key] = value.get<std::string>();
  for (const Json& tensor : json.at("tensors")) file.tensors.push_back(parse_tensor(tensor));
  return file;
}

std::string checked_index(const std::string& name) {
  if (!name.ends_with(".index.json"))
    throw bad_input(fmt::format("names the index \"{}\", no .index.json file", name));
  return checked_name(name);
}

/// Only texts that say how weights are read are restored from the manifest.
std::string checked_original(const std::string& name, const ShardManifest& manifest) {
  const bool is_description = name.starts_with(kDescriptionStem) && name.ends_with(".json");
  if (name != "config.json" && !is_description && manifest.index_file != name)
    throw bad_input(fmt::format("has an original of \"{}\", which it must not", name));
  return checked_name(name);
}

ShardManifest parse_manifest(const Json& document) {
  if (document.at("version").get<int64_t>() != kVersion) {
    throw bad_input(fmt::format("is of version {}; this program reads version {}",
                                document.at("version").dump(), kVersion));
  }
  if (document.at("fingerprint").get<std::string>() != manifest_fingerprint(document))
    throw bad_input("does not have the fingerprint of its content; it was changed or is damaged");
  ShardManifest manifest;
  manifest.tp = document.at("tp").get<int64_t>();
  if (manifest.tp < 1 || manifest.tp > kMaxRanks)
    throw bad_input(fmt::format("says tp {}, which is not from 1 to {}", manifest.tp, kMaxRanks));
  manifest.layout = formats::parse_shard_layout(document.at("layout").get<std::string>());
  manifest.is_padded = document.at("is_padded").get<bool>();
  manifest.bare_names = document.at("bare_names").get<bool>();
  if (!document.at("index_file").is_null())
    manifest.index_file = checked_index(document.at("index_file").get<std::string>());
  for (const auto& [key, size] : document.at("padded").items())
    manifest.padded[key] = size.get<int64_t>();
  for (const auto& [name, text] : document.at("originals").items())
    manifest.originals[checked_original(name, manifest)] = text.get<std::string>();
  std::set<std::string> names;
  std::set<std::string> tensors;
  for (const Json& file : document.at("files")) {
    manifest.files.push_back(parse_file(file));
    if (!names.insert(manifest.files.back().name).second)
      throw bad_input(fmt::format("names the file {} twice", manifest.files.back().name));
    for (const ManifestTensor& tensor : manifest.files.back().tensors) {
      if (!tensors.insert(tensor.name).second)
        throw bad_input(fmt::format("names the tensor {} twice", tensor.name));
    }
  }
  return manifest;
}

}  // namespace

formats::ModelConfig ShardManifest::config() const {
  const auto text = originals.find("config.json");
  if (text == originals.end())
    throw bad_input(fmt::format("{}: has no config.json among its originals", kShardManifestFile));
  formats::ModelConfig config =
      formats::parse_model_config(formats::parse_json(text->second, text->first), text->first);
  config.bare_names = bare_names;
  return config;
}

std::optional<std::pair<std::string, formats::Description>> ShardManifest::description() const {
  for (const auto& [name, text] : originals) {
    if (!name.starts_with(kDescriptionStem)) continue;
    return std::pair(name, formats::parse_description(formats::parse_json(text, name), name));
  }
  return std::nullopt;
}

std::string rank_folder(ShardLayout layout, int64_t rank, int64_t tp) {
  switch (layout) {
    case ShardLayout::kHf:
      return fmt::format("rank-{}", rank);
    case ShardLayout::kMindie:
      return fmt::format("part{}-of-{}", rank, tp);
    case ShardLayout::kVllm:
      return "";
  }
  throw formats::Error(formats::ErrorCode::kInternal,
                       fmt::format("no folder of rank {} of {}", rank, tp));
}

std::string shard_note_file(ShardLayout layout, int64_t rank) {
  return layout == ShardLayout::kVllm ? fmt::format("llmq_shard-rank-{}.json", rank)
                                      : "llmq_shard.json";
}

std::string vllm_weight_file(int64_t rank) {
  return fmt::format("model-rank-{}-part-0.safetensors", rank);
}

std::string manifest_fingerprint(const Json& document) {
  Json content = document;
  content.erase("fingerprint");
  const std::string text = content.dump();
  return hexadecimal(static_cast<uint32_t>(
      crc32_z(crc32(0, nullptr, 0), reinterpret_cast<const Bytef*>(text.data()), text.size())));
}

Json manifest_json(const ShardManifest& manifest) {
  Json files = Json::array();
  for (const ManifestFile& file : manifest.files) files.push_back(file_json(file));
  Json document{{"version", kVersion},
                {"tp", manifest.tp},
                {"layout", formats::shard_layout_name(manifest.layout)},
                {"is_padded", manifest.is_padded},
                {"padded", Json(manifest.padded)},
                {"bare_names", manifest.bare_names},
                {"index_file", manifest.index_file ? Json(*manifest.index_file) : Json(nullptr)},
                {"originals", Json(manifest.originals)},
                {"files", std::move(files)}};
  document["fingerprint"] = manifest_fingerprint(document);
  return document;
}

ShardManifest read_manifest(const fs::path& folder) {
  const fs::path path = folder / kShardManifestFile;
  if (!fs::exists(path)) {
    throw bad_input(fmt::format("{}: has no {}; give a folder that llmq shard wrote",
                                folder.string(), kShardManifestFile));
  }
  const Json document = formats::read_json_file(path);
  try {
    return parse_manifest(document);
  } catch (const formats::Error& error) {
    throw error.with_context(path.string());
  } catch (const Json::exception& error) {
    throw bad_input(fmt::format("{}: is no manifest of shards: {}", path.string(), error.what()));
  }
}

Json shard_note(const Json& manifest, int64_t rank) {
  return {{"version", kVersion},
          {"rank", rank},
          {"tp", manifest.at("tp")},
          {"layout", manifest.at("layout")},
          {"fingerprint", manifest.at("fingerprint")}};
}

void check_shard_note(const fs::path& rank_path, const Json& manifest, int64_t rank) {
  if (!fs::is_directory(rank_path)) {
    throw bad_input(fmt::format("{}: the folder of rank {} is missing; bring all {} together",
                                rank_path.string(), rank, manifest.at("tp").get<int64_t>()));
  }
  const ShardLayout layout = formats::parse_shard_layout(manifest.at("layout").get<std::string>());
  const fs::path path = rank_path / shard_note_file(layout, rank);
  const Json note = formats::read_json_file(path);
  const Json wanted = shard_note(manifest, rank);
  if (note == wanted) return;
  for (const auto& [key, value] : wanted.items()) {
    const Json found = note.is_object() && note.contains(key) ? note[key] : Json(nullptr);
    if (found == value) continue;
    throw bad_input(
        fmt::format("{}: its {} is {}, but the manifest asks for {}; the shards are not of one run",
                    path.string(), key, found.dump(), value.dump()));
  }
}

formats::Checkpoint open_rank(const fs::path& folder, const ShardManifest& manifest, int64_t rank) {
  return manifest.layout == ShardLayout::kVllm
             ? formats::Checkpoint::open_file(folder, vllm_weight_file(rank))
             : formats::Checkpoint::open(folder / rank_folder(manifest.layout, rank, manifest.tp));
}

}  // namespace llmq::convert
