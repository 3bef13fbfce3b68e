#include "convert/shard/rank_part.h"

#include <fmt/format.h>

#include <string>
#include <utility>
#include <vector>

#include "convert/shard/shard_plan.h"
#include "convert/shard/stored_layout.h"
#include "formats/error.h"
#include "formats/scheme.h"

namespace llmq::convert {
namespace {

using formats::bad_input;
using formats::StoredTensor;

constexpr std::string_view kWeight = ".weight";

std::vector<int64_t> padded_heads(const formats::Partition& partition, int64_t rank) {
  std::vector<int64_t> heads;
  int64_t head = 0;
  for (const formats::SliceRun& run : partition.runs(formats::Extent::kQuery, rank)) {
    for (int64_t i = 0; i < run.n / partition.config().head_dim; ++i, ++head) {
      if (run.source_begin == formats::SliceRun::kZeros) heads.push_back(head);
    }
  }
  return heads;
}

/// Finds the tensors of the whole model in what a rank stores.
class PartViews {
 public:
  PartViews(const formats::Checkpoint& stored, const ShardManifest& manifest, int64_t rank)
      : stored_(stored),
        manifest_(manifest),
        rank_(rank),
        plan_(make_shard_plan(manifest)),
        layout_(make_stored_layout(manifest, plan_)) {}

  [[nodiscard]] const ShardPlan& plan() const { return plan_; }
  [[nodiscard]] auto& compressed() { return compressed_; }

  std::vector<StoredTensor> make() {
    std::vector<StoredTensor> views;
    for (size_t file = 0; file < manifest_.files.size(); ++file) {
      for (size_t i = 0; i < manifest_.files[file].tensors.size(); ++i)
        add(manifest_.files[file].tensors[i], {file, i}, views);
    }
    return views;
  }

 private:
  void add(const ManifestTensor& tensor, const ManifestPlace& at,
           std::vector<StoredTensor>& views) {
    const StoredPlace& place = layout_.places[at.file][at.tensor];
    const StoredPart& part = layout_.part(place);
    const StoredTensor& stored = stored_.at(part.name);
    if (is_compressed(part)) return add_compressed(tensor, place, part, views);
    if (stored.dtype != part.dtype || stored.shape != part.shape) {
      throw bad_input(
          fmt::format("{} is {} {}, but the manifest makes it {} {}", part.name,
                      formats::dtype_name(stored.dtype), formats::shape_string(stored.shape),
                      formats::dtype_name(part.dtype), formats::shape_string(part.shape)));
    }
    const uint64_t begin = part.begins[place.member];
    views.push_back({tensor.name, tensor.dtype,
                     plan_.slice(tensor, plan_.cuts[at.file][at.tensor], rank_).shape,
                     stored.bytes.subspan(begin, part.begins[place.member + 1] - begin),
                     stored.file_index});
  }

  [[nodiscard]] bool is_compressed(const StoredPart& part) const {
    return part.name.ends_with(kWeight) && stored_.find(module_of(part.name) + ".index") != nullptr;
  }

  /// The three tensors of the whole matrix, and which of its rows are meant.
  void add_compressed(const ManifestTensor& tensor, const StoredPlace& place,
                      const StoredPart& part, std::vector<StoredTensor>& views) {
    const std::string module = module_of(tensor.name);
    for (const std::string suffix : {".weight", ".index", ".info"}) {
      StoredTensor view = stored_.at(module_of(part.name) + suffix);
      view.name = module + suffix;
      views.push_back(std::move(view));
    }
    const auto row_bytes = part.shape.at(1);
    compressed_[module] = {part.shape.at(0),
                           static_cast<int64_t>(part.begins[place.member]) / row_bytes};
  }

  static std::string module_of(const std::string& tensor) {
    return tensor.substr(0, tensor.rfind('.'));
  }

  const formats::Checkpoint& stored_;
  const ShardManifest& manifest_;
  int64_t rank_;
  ShardPlan plan_;
  StoredLayout layout_;
  std::map<std::string, runtime::CompressedPlace, std::less<>> compressed_;
};

}  // namespace

runtime::RankPart open_rank_part(const std::filesystem::path& folder, const ShardManifest& manifest,
                                 int64_t rank) {
  formats::Checkpoint stored = open_rank(folder, manifest, rank);
  PartViews views(stored, manifest, rank);
  std::vector<StoredTensor> tensors = views.make();
  const formats::Partition& partition = views.plan().partition;
  auto description = manifest.description();
  if (description) {
    for (auto& [tensor, tag] : description->second.tensors) {
      const size_t dot = tensor.rfind('.');
      if (tensor.ends_with(kWeight) && views.compressed().contains(tensor.substr(0, dot)))
        tag = formats::scheme_row(formats::Scheme::kW8A8SC).tag;
    }
  }
  return {.config = manifest.config(),
          .own_config = formats::rank_config(partition),
          .padded_heads = padded_heads(partition, rank),
          .description =
              description ? std::make_unique<formats::Description>(std::move(description->second))
                          : nullptr,
          .checkpoint = formats::Checkpoint::of_views(std::move(stored), std::move(tensors)),
          .embedding = manifest.layout == ShardLayout::kMindie ? formats::EmbeddingCut::kHidden
                                                               : formats::EmbeddingCut::kVocabulary,
          .compressed = std::move(views.compressed())};
}

}  // namespace llmq::convert
