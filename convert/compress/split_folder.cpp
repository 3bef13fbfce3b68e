#include "convert/compress/split_folder.h"

#include <fmt/format.h>

#include <algorithm>
#include <unordered_map>
#include <utility>

#include "convert/compress/compressed_matrix.h"
#include "convert/shard/weight_files.h"
#include "formats/description.h"
#include "formats/dialect.h"
#include "formats/error.h"
#include "formats/file.h"
#include "formats/model_config.h"
#include "formats/scheme.h"

namespace llmq::convert {
namespace {

using formats::Json;
using formats::Scheme;
using formats::StoredTensor;
namespace fs = std::filesystem;

/// Tags of the description of a folder.
std::unordered_map<std::string, std::string> tags_of(const fs::path& folder) {
  const auto path = formats::find_description(folder);
  if (!path)
    throw formats::bad_input(
        fmt::format("{}: has no {}", folder.string(), formats::kDescriptionFile));
  const formats::Description description = formats::read_description(*path);
  return {description.tensors.begin(), description.tensors.end()};
}

std::map<std::string, std::string> metadata_of(const fs::path& path) {
  const formats::MappedFile file(path);
  return formats::parse_safetensors_header(file.bytes(), path.string()).metadata;
}

bool is_description(const std::string& file) {
  return file.starts_with("quant_model_description") && file.ends_with(".json");
}

std::string compressed_config(const fs::path& path) {
  const Json changes{{"torch_dtype", "float16"},
                     {"quantize", formats::scheme_row(Scheme::kW8A8SC).quantize}};
  return formats::rewrite_config(formats::read_json_file(path), changes, {}).dump(2) + "\n";
}

/// The description of compressed weights: index and info beside each of them, and the codec.
std::string compressed_description(const fs::path& path, const std::set<std::string>& coded,
                                   quant::W8A8scCodec codec) {
  formats::Description description = formats::read_description(path);
  const std::string tag(formats::scheme_row(Scheme::kW8A8SC).tag);
  description.model_quant_type = tag;
  description.other[std::string(kCodecKey)] = quant::codec_mark(codec);
  std::vector<std::pair<std::string, std::string>> tensors;
  for (auto& [name, old_tag] : description.tensors) {
    if (!coded.contains(name)) {
      tensors.emplace_back(std::move(name), std::move(old_tag));
      continue;
    }
    tensors.emplace_back(name, tag);
    tensors.emplace_back(index_name(name), tag);
    tensors.emplace_back(info_name(name), tag);
  }
  description.tensors = std::move(tensors);
  return formats::description_json(description).dump(2) + "\n";
}

}  // namespace

std::string compressed_file_name(const std::string& name) {
  const std::string from = "w8a8s";
  const size_t at = name.find(from);
  const bool is_scheme =
      at != std::string::npos && name.compare(at, from.size() + 1, "w8a8sc") != 0;
  return is_scheme ? name.substr(0, at) + "w8a8sc" + name.substr(at + from.size()) : name;
}

SplitFolder::SplitFolder(const fs::path& folder)
    : folder_(folder), manifest_(read_manifest(folder)) {
  const Json document = manifest_json(manifest_);
  fingerprint_ = manifest_fingerprint(document);
  ranks_.reserve(static_cast<size_t>(manifest_.tp));
  for (int64_t rank = 0; rank < manifest_.tp; ++rank) {
    check_shard_note(folder_ / rank_folder(manifest_.layout, rank, manifest_.tp), document, rank);
    open_rank(rank);
  }
}

void SplitFolder::open_rank(int64_t rank) {
  const fs::path inside = rank_folder(manifest_.layout, rank, manifest_.tp);
  const formats::Checkpoint& checkpoint =
      ranks_.emplace_back(formats::Checkpoint::open(folder_ / inside));
  const auto tags = tags_of(folder_ / inside);
  const size_t first = files_.size();
  for (const std::string& name : checkpoint.files()) {
    files_.push_back({rank,
                      inside / name,
                      inside / compressed_file_name(name),
                      {},
                      metadata_of(folder_ / inside / name)});
  }
  for (const StoredTensor& tensor : checkpoint.tensors()) {
    const auto tag = tags.find(tensor.name);
    // A 16-bit weight is float whatever its tag.
    const bool is_coded = tag != tags.end() && is_compressible(tensor.name, tag->second) &&
                          formats::effective_scheme(Scheme::kW8A8S, tensor.dtype) != Scheme::kFloat;
    files_[first + tensor.file_index].tensors.push_back({&tensor, is_coded});
    if (is_coded) coded_.insert(tensor.name);
  }
  if (checkpoint.index_file()) indexes_.push_back(inside / *checkpoint.index_file());
}

std::vector<std::string> SplitFolder::other_files() const {
  std::vector<std::string> paths;
  for (const auto& entry : fs::recursive_directory_iterator(folder_)) {
    if (!entry.is_regular_file()) continue;
    const std::string path = entry.path().lexically_relative(folder_);
    const bool is_weight = std::any_of(files_.begin(), files_.end(),
                                       [&](const SplitFile& file) { return file.split == path; });
    const bool is_index = std::find(indexes_.begin(), indexes_.end(), path) != indexes_.end();
    if (!is_weight && !is_index) paths.push_back(path);
  }
  std::sort(paths.begin(), paths.end());
  return paths;
}

void SplitFolder::write_texts(const fs::path& to, CompressedNote& note) const {
  for (const std::string& path : other_files()) {
    const std::string file = fs::path(path).filename();
    const bool is_config = file == "config.json";
    fs::create_directories((to / path).parent_path());
    if (!is_config && !is_description(file)) {
      formats::copy_file_synced(folder_ / path, to / path);
      continue;
    }
    const std::string name = fs::path(path).parent_path() / compressed_file_name(file);
    note.replaced.push_back({path, name, formats::read_text_file(folder_ / path)});
    formats::write_text_file(
        to / name, is_config ? compressed_config(folder_ / path)
                             : compressed_description(folder_ / path, coded_, note.codec));
  }
}

void SplitFolder::write_indexes(
    const fs::path& to, const std::map<std::string, std::vector<formats::TensorEntry>>& entries,
    CompressedNote& note) const {
  for (const std::string& path : indexes_) {
    const fs::path inside = fs::path(path).parent_path();
    WeightIndex index;
    for (const SplitFile& file : files_) {
      if (fs::path(file.name).parent_path() == inside)
        index.add(fs::path(file.name).filename(), entries.at(file.name));
    }
    const std::string name = inside / compressed_file_name(fs::path(path).filename());
    index.write(to / name);
    note.replaced.push_back({path, name, formats::read_text_file(folder_ / path)});
  }
}

}  // namespace llmq::convert
