#include "convert/shard/shard_plan.h"

#include <fmt/format.h>

#include <unordered_map>
#include <utility>

#include "formats/description.h"
#include "formats/dialect.h"
#include "formats/error.h"
#include "formats/file.h"
#include "formats/safetensors.h"

namespace llmq::convert {
namespace {

using formats::NamedCut;
using formats::Scheme;
namespace fs = std::filesystem;

/// Schemes of the linears of a manifest, by module.
class Schemes {
 public:
  Schemes(const ShardManifest& manifest, const fs::path& folder) {
    for (const ManifestFile& file : manifest.files) {
      for (const ManifestTensor& tensor : file.tensors) dtypes_[tensor.name] = tensor.dtype;
    }
    const auto path = formats::find_description(folder);
    if (!path) return;
    const formats::Description description = formats::read_description(*path);
    group_size_ = description.group_size;
    tags_.insert(description.tensors.begin(), description.tensors.end());
  }

  [[nodiscard]] formats::LinearScheme of(const std::string& module) const {
    const auto tag = tags_.find(module + ".weight");
    const auto dtype = dtypes_.find(module + ".weight");
    if (tag == tags_.end() || dtype == dtypes_.end()) return {};
    const Scheme scheme =
        formats::effective_scheme(formats::parse_scheme_tag(tag->second), dtype->second);
    // Only weight-only schemes have groups, whatever else the folder holds.
    return {scheme, formats::scheme_row(scheme).activation_bits == 16 ? group_size_ : 0};
  }

 private:
  int64_t group_size_ = 0;
  std::unordered_map<std::string, std::string> tags_;
  std::unordered_map<std::string, formats::DType> dtypes_;
};

std::map<std::string, std::string> metadata_of(const fs::path& path) {
  const formats::MappedFile file(path);
  return formats::parse_safetensors_header(file.bytes(), path.string()).metadata;
}

}  // namespace

formats::TensorSlice ShardPlan::slice(const ManifestTensor& tensor, const formats::TensorCut& cut,
                                      int64_t rank) const {
  return formats::slice_of(tensor.shape, cut, partition, rank);
}

ShardPlan make_shard_plan(const ShardManifest& manifest, const fs::path& folder) {
  formats::ModelConfig config = formats::read_model_config(folder);
  config.bare_names = manifest.bare_names;
  const formats::CutFinder finder(config, formats::EmbeddingCut::kVocabulary);
  const Schemes schemes(manifest, folder);
  ShardPlan plan{formats::Partition(config, manifest.tp), {}};
  std::vector<NamedCut> named;
  for (const ManifestFile& file : manifest.files) {
    std::vector<formats::TensorCut>& cuts = plan.cuts.emplace_back();
    for (const ManifestTensor& tensor : file.tensors) {
      const std::string linear = finder.linear_of(tensor.name);
      const formats::LinearScheme scheme =
          linear.empty() ? formats::LinearScheme{} : schemes.of(linear);
      cuts.push_back(finder.find(tensor.name, tensor.shape, scheme));
      named.push_back({tensor.name, cuts.back()});
    }
  }
  if (manifest.is_padded) formats::pad_to_fit(plan.partition, named);
  formats::check_fit(plan.partition, named);
  return plan;
}

ShardManifest manifest_of(const formats::Checkpoint& source, int64_t tp, bool is_padded) {
  ShardManifest manifest;
  manifest.tp = tp;
  manifest.is_padded = is_padded;
  manifest.bare_names = formats::has_bare_names(source);
  manifest.index_file = source.index_file();
  for (const std::string& name : source.files())
    manifest.files.push_back({name, metadata_of(source.folder() / name), {}});
  for (const formats::StoredTensor& tensor : source.tensors())
    manifest.files.at(tensor.file_index)
        .tensors.push_back({tensor.name, tensor.dtype, tensor.shape, 0});
  return manifest;
}

}  // namespace llmq::convert
