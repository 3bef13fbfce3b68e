#include "formats/checkpoint.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "formats/error.h"
#include "formats/json.h"
#include "formats/safetensors.h"

namespace llmq::formats {
namespace {

constexpr std::string_view kIndexSuffix = ".safetensors.index.json";
constexpr std::string_view kWeightSuffix = ".safetensors";

std::vector<std::string> names_ending_in(const std::filesystem::path& folder,
                                         std::string_view suffix) {
  std::vector<std::string> names;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(folder, error)) {
    const std::string name = entry.path().filename().string();
    if (name.ends_with(suffix)) names.push_back(name);
  }
  if (error) throw bad_input(folder.string() + ": " + error.message());
  std::sort(names.begin(), names.end());
  return names;
}

std::string joined(const std::vector<std::string>& names) {
  return fmt::format("{}", fmt::join(names, ", "));
}

/// A file name from an index may only name an entry of the folder itself.
void check_inside(const std::string& name, const std::string& origin) {
  const std::filesystem::path path(name);
  if (name.empty() || path.is_absolute() || path.has_parent_path() || name == ".." || name == "." ||
      name.find('\0') != std::string::npos) {
    throw bad_input(fmt::format(
        "{}: names the weight file \"{}\", which is outside the folder; refused", origin, name));
  }
}

/// weight_map of an index: tensor name → file name, in the index's order.
std::vector<std::pair<std::string, std::string>> read_weight_map(
    const std::filesystem::path& path) {
  const Json index = read_json_file(path);
  const std::string origin = path.string();
  if (!index.is_object() || !index.contains("weight_map") || !index["weight_map"].is_object()) {
    throw bad_input(origin + ": has no \"weight_map\" object");
  }
  std::vector<std::pair<std::string, std::string>> map;
  for (const auto& [tensor, file] : index["weight_map"].items()) {
    if (!file.is_string())
      throw bad_input(fmt::format("{}: tensor {}: its file is not a string", origin, tensor));
    check_inside(file.get<std::string>(), origin);
    map.emplace_back(tensor, file.get<std::string>());
  }
  return map;
}

[[noreturn]] void throw_no_weights(const std::filesystem::path& folder) {
  if (!names_ending_in(folder, ".bin").empty()) {
    throw bad_input(folder.string() +
                    ": holds PyTorch .bin weights and no .safetensors file; save the model as "
                    "safetensors first "
                    "(a pickle is never executed)");
  }
  throw bad_input(folder.string() +
                  ": holds no .safetensors file; give the folder of a Hugging Face model");
}

}  // namespace

Checkpoint Checkpoint::open(const std::filesystem::path& folder) {
  if (!std::filesystem::is_directory(folder)) {
    throw bad_input(folder.string() + ": no such folder; give the folder of a Hugging Face model");
  }
  Checkpoint checkpoint;
  checkpoint.folder_ = folder;
  const std::vector<std::string> indexes = names_ending_in(folder, kIndexSuffix);
  if (indexes.size() > 1) {
    throw bad_input(
        fmt::format("{}: several index files ({}); keep the one that belongs to the weights",
                    folder.string(), joined(indexes)));
  }
  if (!indexes.empty()) {
    checkpoint.index_file_ = indexes.front();
    checkpoint.add_indexed_files();
    return checkpoint;
  }
  const std::vector<std::string> files = names_ending_in(folder, kWeightSuffix);
  if (files.empty()) throw_no_weights(folder);
  if (files.size() > 1) {
    throw bad_input(
        fmt::format("{}: {} weight files ({}, ...) but no *{}; add the index of the model",
                    folder.string(), files.size(), files.front(), kIndexSuffix));
  }
  checkpoint.add_file(files.front());
  return checkpoint;
}

Checkpoint Checkpoint::open_file(const std::filesystem::path& folder, const std::string& name) {
  Checkpoint checkpoint;
  checkpoint.folder_ = folder;
  checkpoint.add_file(name);
  return checkpoint;
}

Checkpoint Checkpoint::of_views(Checkpoint stored, std::vector<StoredTensor> tensors) {
  stored.by_name_.clear();
  stored.tensors_ = std::move(tensors);
  for (size_t i = 0; i < stored.tensors_.size(); ++i) {
    if (!stored.by_name_.emplace(stored.tensors_[i].name, i).second) {
      throw bad_input(fmt::format("{}: tensor {} is there twice", stored.folder_.string(),
                                  stored.tensors_[i].name));
    }
  }
  return stored;
}

void Checkpoint::add_indexed_files() {
  const std::filesystem::path index_path = folder_ / *index_file_;
  const auto weight_map = read_weight_map(index_path);
  std::set<std::string> files;
  for (const auto& [tensor, file] : weight_map) files.insert(file);
  for (const std::string& file : files) {
    if (!std::filesystem::exists(folder_ / file)) {
      throw bad_input(
          fmt::format("{}: names the weight file {}, which is missing; download it again",
                      index_path.string(), file));
    }
    add_file(file);
  }
  for (const auto& [tensor, file] : weight_map) {
    const StoredTensor* stored = find(tensor);
    if (stored == nullptr || file_names_[stored->file_index] != file) {
      throw bad_input(
          fmt::format("{}: says that tensor {} is in {}, but it is not there; index and weights do "
                      "not belong together",
                      index_path.string(), tensor, file));
    }
  }
  if (tensors_.size() != weight_map.size()) {
    std::set<std::string_view> indexed;
    for (const auto& [tensor, file] : weight_map) indexed.insert(tensor);
    for (const StoredTensor& tensor : tensors_) {
      if (indexed.contains(tensor.name)) continue;
      throw bad_input(
          fmt::format("{}: tensor {} of {} is not in the index; index and weights do not belong "
                      "together",
                      index_path.string(), tensor.name, file_names_[tensor.file_index]));
    }
  }
}

void Checkpoint::add_file(const std::string& name) {
  const size_t file_index = mapped_.size();
  mapped_.emplace_back(folder_ / name);
  file_names_.push_back(name);
  const std::span<const std::byte> bytes = mapped_.back().bytes();
  const std::string origin = (folder_ / name).string();
  const SafetensorsHeader header = parse_safetensors_header(bytes, origin);
  for (const TensorEntry& entry : header.tensors) {
    if (!by_name_.emplace(entry.name, tensors_.size()).second) {
      throw bad_input(fmt::format("{}: tensor {} is also in {}; one of them does not belong here",
                                  origin, entry.name,
                                  file_names_[tensors_[by_name_[entry.name]].file_index]));
    }
    tensors_.push_back({entry.name, entry.dtype, entry.shape,
                        bytes.subspan(header.data_begin + entry.begin, entry.size_bytes()),
                        file_index});
  }
}

const StoredTensor* Checkpoint::find(std::string_view name) const {
  const auto it = by_name_.find(std::string(name));
  return it == by_name_.end() ? nullptr : &tensors_[it->second];
}

const StoredTensor& Checkpoint::at(std::string_view name) const {
  if (const StoredTensor* tensor = find(name)) return *tensor;
  throw bad_input(fmt::format("{}: tensor {} is missing; the checkpoint is incomplete",
                              folder_.string(), name));
}

uint64_t Checkpoint::size_bytes() const {
  uint64_t total = 0;
  for (const StoredTensor& tensor : tensors_) total += tensor.bytes.size();
  return total;
}

}  // namespace llmq::formats
