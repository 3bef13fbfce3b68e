#include "convert/shard/shard_plan.h"

#include <fmt/format.h>

#include <unordered_map>
#include <utility>

#include "formats/description.h"
#include "formats/dialect.h"
#include "formats/error.h"
#include "formats/file.h"
#include "formats/json.h"
#include "formats/safetensors.h"

namespace llmq::convert {
namespace {

using formats::NamedCut;
using formats::Scheme;
namespace fs = std::filesystem;

/// Schemes of the linears of a manifest, by module.
class Schemes {
 public:
  Schemes(const ShardManifest& manifest, const std::unordered_map<std::string, std::string>& tags,
          int64_t group_size)
      : group_size_(group_size), tags_(tags) {
    for (const ManifestFile& file : manifest.files) {
      for (const ManifestTensor& tensor : file.tensors) dtypes_[tensor.name] = tensor.dtype;
    }
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
  const std::unordered_map<std::string, std::string>& tags_;
  std::unordered_map<std::string, formats::DType> dtypes_;
};

/// How engines share the embedding, and what they pad whatever the number of ranks.
struct LayoutCuts {
  formats::EmbeddingCut embedding = formats::EmbeddingCut::kVocabulary;
  formats::ExtentMultiples multiples;
};

LayoutCuts cuts_of(ShardLayout layout) {
  // vLLM's vocabulary is a multiple of this.
  constexpr int64_t kVllmVocabularyMultiple = 64;
  switch (layout) {
    case ShardLayout::kHf:
      return {};
    case ShardLayout::kMindie:
      return {formats::EmbeddingCut::kHidden, {}};
    case ShardLayout::kVllm:
      return {formats::EmbeddingCut::kVocabulary,
              {{formats::Extent::kVocabulary, kVllmVocabularyMultiple}}};
  }
  throw formats::Error(formats::ErrorCode::kInternal, "unknown layout");
}

/// The key of config.json that says an extent which may be padded.
std::string_view config_key(formats::Extent extent) {
  switch (extent) {
    case formats::Extent::kVocabulary:
      return "vocab_size";
    case formats::Extent::kIntermediate:
      return "intermediate_size";
    case formats::Extent::kMoeIntermediate:
      return "moe_intermediate_size";
    case formats::Extent::kSharedIntermediate:
      return "shared_expert_intermediate_size";
    default:
      throw formats::Error(formats::ErrorCode::kInternal, "an extent that is never padded");
  }
}

std::map<std::string, std::string> metadata_of(const fs::path& path) {
  const formats::MappedFile file(path);
  return formats::parse_safetensors_header(file.bytes(), path.string()).metadata;
}

}  // namespace

formats::TensorSlice ShardPlan::slice(const ManifestTensor& tensor, const formats::TensorCut& cut,
                                      int64_t rank) const {
  return formats::slice_of(tensor.shape, cut, partition, rank);
}

ShardPlan make_shard_plan(const ShardManifest& manifest) {
  const formats::ModelConfig config = manifest.config();
  const LayoutCuts layout = cuts_of(manifest.layout);
  const formats::CutFinder finder(config, layout.embedding);
  const auto description = manifest.description();
  ShardPlan plan{formats::Partition(config, manifest.tp, layout.multiples), {}, {}};
  if (description)
    plan.tags.insert(description->second.tensors.begin(), description->second.tensors.end());
  const Schemes schemes(manifest, plan.tags, description ? description->second.group_size : 0);
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

std::map<std::string, int64_t> padded_config_sizes(const ShardPlan& plan) {
  std::map<std::string, int64_t> sizes;
  for (const auto& [extent, size] : plan.partition.padded())
    sizes[std::string(config_key(extent))] = size;
  return sizes;
}

ShardManifest manifest_of(const formats::Checkpoint& source, const ShardOptions& options) {
  ShardManifest manifest;
  manifest.tp = options.tp;
  manifest.layout = options.layout;
  manifest.is_padded = options.pad;
  manifest.bare_names = formats::has_bare_names(source);
  manifest.index_file = source.index_file();
  for (const std::string& name : source.files())
    manifest.files.push_back({name, metadata_of(source.folder() / name), {}});
  for (const formats::StoredTensor& tensor : source.tensors())
    manifest.files.at(tensor.file_index)
        .tensors.push_back({tensor.name, tensor.dtype, tensor.shape, 0});
  std::vector<std::string> originals{"config.json"};
  if (const auto description = formats::find_description(source.folder()))
    originals.push_back(description->filename());
  if (source.index_file()) originals.push_back(*source.index_file());
  for (const std::string& name : originals)
    manifest.originals[name] = formats::read_text_file(source.folder() / name);
  return manifest;
}

}  // namespace llmq::convert
