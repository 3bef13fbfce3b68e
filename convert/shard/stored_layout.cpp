#include "convert/shard/stored_layout.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <set>
#include <unordered_map>
#include <utility>

#include "formats/architecture.h"
#include "formats/engine_names.h"
#include "formats/error.h"
#include "formats/scheme.h"

namespace llmq::convert {
namespace {

using formats::bad_input;
using formats::EngineName;
using formats::ExpectedTensor;
using formats::Scheme;
using formats::ShapeRule;
using formats::SliceRule;

std::string module_of(const std::string& tensor) {
  return tensor.substr(0, tensor.rfind('.'));
}

std::string suffix_of(const std::string& tensor) {
  const size_t dot = tensor.rfind('.');
  return dot == std::string::npos ? "" : tensor.substr(dot);
}

/// Whether a tensor of this name is one value for all inputs, which the members of a fused module
/// read together.
bool is_of_inputs(const std::string& tensor) {
  const std::string suffix = suffix_of(tensor);
  for (const formats::SchemeRow& scheme : formats::schemes()) {
    for (const formats::TensorRule& rule : scheme.tensors) {
      if (rule.suffix == suffix && rule.slice == SliceRule::kReplicated &&
          rule.shape == ShapeRule::kOne)
        return true;
    }
  }
  return false;
}

std::string weight_file_name(const ShardManifest& manifest) {
  const auto description = manifest.description();
  if (!description) return "model.safetensors";
  const Scheme scheme = formats::parse_scheme_tag(description->second.model_quant_type);
  return fmt::format("quant_model_weight_{}.safetensors", formats::scheme_row(scheme).quantize);
}

StoredLayout unchanged_layout(const ShardManifest& manifest, const ShardPlan& plan) {
  StoredLayout layout;
  for (size_t file = 0; file < manifest.files.size(); ++file) {
    const ManifestFile& described = manifest.files[file];
    StoredFile& stored =
        layout.files.emplace_back(StoredFile{described.name, described.metadata, {}});
    layout.places.emplace_back();
    for (size_t i = 0; i < described.tensors.size(); ++i) {
      const ManifestTensor& tensor = described.tensors[i];
      StoredPart part{tensor.name, tensor.dtype, plan.slice(tensor, plan.cuts[file][i], 0).shape,
                      {{file, i}}, {0},          {}};
      part.begins.push_back(part.size_bytes());
      layout.places.back().push_back({file, i, 0, false});
      stored.parts.push_back(std::move(part));
    }
  }
  return layout;
}

/// Puts all tensors into one file under an engine's names.
class FusedLayoutBuilder {
 public:
  FusedLayoutBuilder(const ShardManifest& manifest, const ShardPlan& plan)
      : manifest_(manifest), plan_(plan), names_(manifest.layout, plan.partition.config()) {
    layout_.layout = manifest.layout;
    layout_.files.push_back({weight_file_name(manifest), {}, {}});
    if (!manifest.files.empty()) layout_.files[0].metadata = manifest.files[0].metadata;
    const formats::ModelConfig& config = plan.partition.config();
    embedding_ =
        std::string(module_row(formats::architecture_of(config), formats::Role::kEmbedding).path);
    for (size_t file = 0; file < manifest.files.size(); ++file) {
      for (size_t i = 0; i < manifest.files[file].tensors.size(); ++i)
        places_[manifest.files[file].tensors[i].name] = {file, i};
    }
    if (manifest.layout == ShardLayout::kMindie) find_norms_with_bias();
    find_modules_apart();
  }

  StoredLayout build() {
    for (size_t file = 0; file < manifest_.files.size(); ++file) {
      layout_.places.emplace_back();
      for (const ManifestTensor& tensor : manifest_.files[file].tensors) add(tensor);
    }
    return std::move(layout_);
  }

 private:
  [[nodiscard]] const ManifestTensor& tensor_at(const ManifestPlace& place) const {
    return manifest_.files[place.file].tensors[place.tensor];
  }
  [[nodiscard]] const formats::TensorCut& cut_at(const ManifestPlace& place) const {
    return plan_.cuts[place.file][place.tensor];
  }
  [[nodiscard]] formats::Shape part_shape(const ManifestPlace& place) const {
    return plan_.slice(tensor_at(place), cut_at(place), 0).shape;
  }
  [[nodiscard]] std::string tag_of(const std::string& tensor) const {
    const auto tag = plan_.tags.find(tensor);
    return tag == plan_.tags.end() ? "FLOAT" : tag->second;
  }

  /// Why the tensors of two members cannot lie in one, or nothing.
  [[nodiscard]] std::optional<std::string> difference(const std::string& first,
                                                      const std::string& second) const {
    for (const std::string& name : {first, second}) {
      if (!places_.contains(name)) return fmt::format("there is no {}", name);
    }
    const ManifestPlace& a = places_.at(first);
    const ManifestPlace& b = places_.at(second);
    formats::Shape shape_a = part_shape(a);
    formats::Shape shape_b = part_shape(b);
    if (shape_a.size() != shape_b.size() || tensor_at(a).dtype != tensor_at(b).dtype ||
        tag_of(first) != tag_of(second) || cut_at(a).axis != cut_at(b).axis)
      return fmt::format("{} is {} {} {}, {} is {} {} {}", first, tag_of(first),
                         formats::dtype_name(tensor_at(a).dtype), formats::shape_string(shape_a),
                         second, tag_of(second), formats::dtype_name(tensor_at(b).dtype),
                         formats::shape_string(shape_b));
    if (shape_a.empty() || is_of_inputs(first)) return std::nullopt;
    shape_a[0] = shape_b[0] = 0;
    if (shape_a == shape_b) return std::nullopt;
    return fmt::format("{} and {} differ in their columns", first, second);
  }

  /// Fused modules whose members are not stored alike.
  void find_modules_apart() {
    for (const ManifestFile& file : manifest_.files) {
      for (const ManifestTensor& tensor : file.tensors) {
        const EngineName name = names_.find(tensor.name);
        const auto why = name.is_fused() ? why_apart(name) : std::nullopt;
        if (!why) continue;
        if (name.alone.empty()) {
          throw bad_input(fmt::format(
              "{}: the engine of layout {} loads it as part of {}, but {}; quantize the members "
              "alike, or choose another layout",
              tensor.name, formats::shard_layout_name(manifest_.layout), name.stored, *why));
        }
        apart_.insert(module_of(name.members.front()));
      }
    }
  }

  /// Every member is compared with the first one, which looks for all others.
  [[nodiscard]] std::optional<std::string> why_apart(const EngineName& name) const {
    if (name.place > 0) return difference(name.members.front(), name.members[name.place]);
    for (const std::string& member : name.members) {
      if (!places_.contains(member)) return fmt::format("there is no {}", member);
    }
    return std::nullopt;
  }

  /// Norms before linears with static activations, which the engine runs with a bias.
  void find_norms_with_bias() {
    const formats::ModelConfig& config = plan_.partition.config();
    const auto expected = expected_tensors(formats::architecture_of(config), config);
    std::set<std::pair<int64_t, formats::Role>> fed;
    for (const ExpectedTensor& tensor : expected) {
      const std::string tag = tag_of(tensor.module + ".weight");
      if (tensor.row->fed_by && tensor.layer >= 0 && (tag == "W8A8" || tag == "W8A8S"))
        fed.emplace(tensor.layer, *tensor.row->fed_by);
    }
    for (const ExpectedTensor& tensor : expected) {
      const bool has_bias = places_.contains(tensor.module + ".bias") ||
                            places_.contains(tensor.module + ".module.bias");
      if (!tensor.is_bias && !has_bias && fed.contains({tensor.layer, tensor.row->role}))
        norms_with_bias_.insert(tensor.module);
    }
  }

  void add(const ManifestTensor& tensor) {
    EngineName name = names_.find(tensor.name);
    if (name.is_fused() && apart_.contains(module_of(name.members.front()))) {
      name = {name.alone, {tensor.name}, 0, name.alone, false};
    }
    const std::string module = module_of(tensor.name);
    // Beside the norm that runs, the one that was wrapped has a name of its own.
    if (places_.contains(module + ".module.weight") && name.stored != tensor.name)
      name.stored = fmt::format("{}.ori{}", module_of(name.stored), suffix_of(tensor.name));
    const bool is_shared = name.is_fused() && is_of_inputs(tensor.name);
    const size_t part = part_of(name, is_shared);
    layout_.places.back().push_back(
        {0, part, is_shared ? 0 : name.place, is_shared && name.place > 0});
    if (suffix_of(tensor.name) == ".weight" && norms_with_bias_.contains(module))
      add_zeros(module_of(name.stored) + ".bias", tensor);
  }

  /// The part of a stored name, made where it is new.
  size_t part_of(const EngineName& name, bool is_shared) {
    std::vector<StoredPart>& parts = layout_.files[0].parts;
    if (const auto it = part_indexes_.find(name.stored); it != part_indexes_.end()) {
      if (!name.is_fused()) throw bad_input(fmt::format("{} is stored twice", name.stored));
      return it->second;
    }
    part_indexes_[name.stored] = parts.size();
    StoredPart part;
    part.name = name.stored;
    part.tag = tag_of(name.members.front());
    for (const std::string& member : name.members) {
      part.members.push_back(places_.at(member));
      const formats::Shape shape = part_shape(part.members.back());
      part.dtype = tensor_at(part.members.back()).dtype;
      part.begins.push_back(part.end() + formats::tensor_size_bytes(part.dtype, shape));
      if (part.members.size() == 1) {
        part.shape = shape;
      } else if (!part.shape.empty()) {
        part.shape[0] += shape[0];
      }
      if (is_shared) break;
    }
    if (name.stacks_experts && !is_shared) stack(part);
    const bool has_more = manifest_.layout == ShardLayout::kMindie &&
                          name.members.front() == embedding_ + ".weight" && !part.shape.empty();
    if (has_more) ++part.shape[0];
    parts.push_back(std::move(part));
    return parts.size() - 1;
  }

  void stack(StoredPart& part) const {
    const int64_t n_experts = plan_.partition.config().n_experts;
    if (part.shape.empty()) part.shape = {static_cast<int64_t>(part.members.size())};
    part.shape[0] /= n_experts;
    part.shape.insert(part.shape.begin(), n_experts);
  }

  void add_zeros(const std::string& name, const ManifestTensor& like) {
    StoredPart part;
    part.name = name;
    part.dtype = like.dtype;
    part.shape = like.shape;
    part.tag = "FLOAT";
    layout_.files[0].parts.push_back(std::move(part));
  }

  const ShardManifest& manifest_;
  const ShardPlan& plan_;
  formats::EngineNames names_;
  StoredLayout layout_;
  std::string embedding_;
  std::unordered_map<std::string, ManifestPlace> places_;
  std::unordered_map<std::string, size_t> part_indexes_;
  std::set<std::string> apart_;  // first members' modules
  std::set<std::string> norms_with_bias_;
};

}  // namespace

std::string StoredLayout::file_name(size_t file, int64_t rank) const {
  return layout == ShardLayout::kVllm ? vllm_weight_file(rank) : files.at(file).name;
}

StoredLayout make_stored_layout(const ShardManifest& manifest, const ShardPlan& plan) {
  if (manifest.layout == ShardLayout::kHf) return unchanged_layout(manifest, plan);
  return FusedLayoutBuilder(manifest, plan).build();
}

void check_shared_values(const formats::Checkpoint& source, const ShardManifest& manifest,
                         const StoredLayout& layout) {
  for (size_t file = 0; file < manifest.files.size(); ++file) {
    for (size_t i = 0; i < manifest.files[file].tensors.size(); ++i) {
      const StoredPlace& place = layout.places[file][i];
      if (!place.is_shared) continue;
      const std::string& name = manifest.files[file].tensors[i].name;
      const ManifestPlace& first = layout.part(place).members.front();
      const std::string& stored = manifest.files[first.file].tensors[first.tensor].name;
      const auto& ours = source.at(name).bytes;
      const auto& theirs = source.at(stored).bytes;
      if (std::equal(ours.begin(), ours.end(), theirs.begin(), theirs.end())) continue;
      throw bad_input(fmt::format(
          "{} and {} differ, but the engine of layout {} loads both as the one {}; quantize the "
          "linears together, or choose --layout hf",
          stored, name, formats::shard_layout_name(layout.layout), layout.part(place).name));
    }
  }
}

formats::Description stored_description(const ShardManifest& manifest, const StoredLayout& layout) {
  formats::Description description = manifest.description().value().second;
  if (layout.layout == ShardLayout::kHf) return description;
  std::vector<std::pair<std::string, std::string>> tensors;
  std::set<std::string> names;
  const auto add = [&](const std::string& name, const std::string& tag) {
    if (names.insert(name).second) tensors.emplace_back(name, tag);
  };
  std::set<std::string> stored;
  for (const ManifestFile& file : manifest.files) {
    for (const ManifestTensor& tensor : file.tensors) stored.insert(tensor.name);
  }
  const formats::EngineNames engine(layout.layout, manifest.config());
  const bool keeps_names = layout.layout == ShardLayout::kVllm;
  for (const auto& [name, tag] : description.tensors) {
    if (keeps_names) add(name, tag);
  }
  for (const StoredFile& file : layout.files) {
    for (const StoredPart& part : file.parts) add(part.name, part.tag);
  }
  // What other tools name without storing it, as a tied head.
  for (const auto& [name, tag] : description.tensors) {
    if (!stored.contains(name)) add(engine.find(name).stored, tag);
  }
  description.tensors = std::move(tensors);
  return description;
}

}  // namespace llmq::convert
