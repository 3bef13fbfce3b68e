#include "convert/verify/conformance.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>

#include "convert/verify/compressed_rules.h"
#include "convert/verify/folder_view.h"
#include "convert/verify/tensor_rules.h"
#include "formats/dialect.h"
#include "formats/error.h"

namespace llmq::convert {
namespace {

using formats::Json;
using formats::StoredTensor;

bool is_tied_head(const FolderView& folder, const std::string& name) {
  const auto& architecture = formats::architecture_of(folder.config());
  const formats::ModuleRow* head = formats::find_module_row(architecture, formats::Role::kHead);
  return folder.config().tie_word_embeddings && head != nullptr &&
         name == formats::module_path(*head, -1) + ".weight";
}

RuleResult rule_description(const FolderView& folder) {
  RuleResult result{"description-covers-tensors"};
  if (!folder.description()) {
    result.detail = "a float folder; there is no description file";
    if (!folder.config().quantize.empty()) {
      fail(result, fmt::format("config.json says quantize \"{}\", but there is no {}",
                               folder.config().quantize, formats::kDescriptionFile));
    }
    return result;
  }
  for (const StoredTensor& tensor : folder.checkpoint().tensors()) {
    if (folder.tag_of(tensor.name).empty())
      fail(result, fmt::format("tensor {} is not in the description", tensor.name));
  }
  const formats::Description& description = *folder.description();
  int64_t n_unstored = 0;
  for (const auto& [name, tag] : description.tensors) {
    if (folder.checkpoint().find(name) != nullptr) continue;
    ++n_unstored;
    // Older tools list what they do not store, also the head that is tied; engines look up tags
    // only.
    if (!description.version || is_tied_head(folder, name)) continue;
    fail(result, fmt::format("the description names tensor {}, which no weight file holds", name));
  }
  if (!result.ok) return result;
  result.detail = fmt::format("{} tensors", folder.checkpoint().tensors().size());
  if (n_unstored > 0) result.detail += fmt::format(", {} keys without a tensor", n_unstored);
  if (!description.version) result.detail += ", no version (0.0.0)";
  return result;
}

/// The tensor of a row of the table, also under the name of a wrapped norm.
const StoredTensor* find_stored(const FolderView& folder, const formats::ExpectedTensor& tensor) {
  const bool is_norm = tensor.row->n_in == formats::Extent::kOne && folder.description();
  if (!is_norm) return folder.checkpoint().find(tensor.name);
  return formats::find_norm_tensor(folder.checkpoint(), tensor.module,
                                   tensor.is_bias ? ".bias" : ".weight");
}

/// The tensors of the table that are neither there nor tied to one that is.
void require_expected_tensors(const FolderView& folder, RuleResult& result) {
  const auto expected =
      formats::expected_tensors(formats::architecture_of(folder.config()), folder.config());
  for (const formats::ExpectedTensor& tensor : expected) {
    const StoredTensor* stored = find_stored(folder, tensor);
    if (stored == nullptr) {
      if (tensor.is_required) fail(result, fmt::format("tensor {} is missing", tensor.name));
      continue;
    }
    const std::string_view tag = folder.tag_of(stored->name);
    const bool is_float =
        tag.empty() || tag == "FLOAT" || stored->name != tensor.name ||
        formats::effective_scheme(formats::Scheme::kW8A8, stored->dtype) == formats::Scheme::kFloat;
    if (is_float && stored->shape != tensor.shape) {
      fail(result,
           fmt::format("tensor {} has shape {}, config.json asks for {}", tensor.name,
                       formats::shape_string(stored->shape), formats::shape_string(tensor.shape)));
    }
  }
}

RuleResult rule_scheme_tensors(const FolderView& folder) {
  RuleResult result{"scheme-tensors"};
  require_expected_tensors(folder, result);
  std::map<std::string_view, int> counts;
  int64_t n_untagged = 0;
  for (const LinearView& linear : folder.linears()) {
    try {
      check_scheme_tensors(folder, linear, result);
    } catch (const formats::Error& error) {
      fail(result, fmt::format("{}: {}", linear.module, error.what()));
    }
    ++counts[formats::scheme_row(linear.scheme).tag];
    const std::string_view tag = folder.tag_of(linear.module + ".weight");
    if (linear.scheme == formats::Scheme::kFloat && !tag.empty() && tag != "FLOAT") ++n_untagged;
  }
  if (result.ok) {
    for (const auto& [tag, count] : counts) {
      result.detail +=
          fmt::format("{}{} linears {}", result.detail.empty() ? "" : ", ", count, tag);
    }
    if (n_untagged > 0)
      result.detail += fmt::format(" ({} of them float in spite of their tag)", n_untagged);
  }
  return result;
}

/// Linears of one layer and expert that engines load as one matrix.
using GroupKey = std::tuple<int64_t, int64_t, formats::FusedGroup>;

std::map<GroupKey, std::vector<const LinearView*>> fused_groups(const FolderView& folder) {
  std::map<GroupKey, std::vector<const LinearView*>> groups;
  for (const LinearView& linear : folder.linears()) {
    groups[{linear.expected->layer, linear.expected->expert, linear.expected->row->group}]
        .push_back(&linear);
  }
  return groups;
}

RuleResult rule_fused_groups(const FolderView& folder) {
  RuleResult result{"fused-groups"};
  size_t n_groups = 0;
  for (const auto& [key, linears] : fused_groups(folder)) {
    if (linears.size() < 2) continue;
    ++n_groups;
    for (const LinearView* linear : linears) {
      if (linear->scheme != linears.front()->scheme) {
        fail(result,
             fmt::format("{} is {} but {} is {}; engines load them as one matrix",
                         linears.front()->module, formats::scheme_row(linears.front()->scheme).tag,
                         linear->module, formats::scheme_row(linear->scheme).tag));
      }
      for (const char* suffix : {".input_scale", ".input_offset"}) {
        const StoredTensor* first = folder.checkpoint().find(linears.front()->module + suffix);
        const StoredTensor* other = folder.checkpoint().find(linear->module + suffix);
        if (first == nullptr || other == nullptr || std::ranges::equal(first->bytes, other->bytes))
          continue;
        fail(result, fmt::format("{}{} differs from that of {}", linear->module, suffix,
                                 linears.front()->module));
      }
    }
  }
  if (result.ok) result.detail = fmt::format("{} groups", n_groups);
  return result;
}

/// Whether `quantize` of config.json (empty: absent) goes with the description's type. Older tools
/// call every type with int8 weights and activations w8a8.
bool names_type(const std::string& quantize, const std::string& type) {
  if (quantize.empty() || quantize == type) return true;
  return quantize == "w8a8" && (type == "w8a8_mix" || type == "w8a8_dynamic");
}

RuleResult rule_config(const FolderView& folder) {
  RuleResult result{"config-coherent"};
  const Json& config = folder.config_document();
  const auto left_over = config.find("quantization_config");
  if (left_over != config.end() && left_over->is_object() && left_over->contains("quant_method")) {
    fail(result,
         "config.json still has the quantization_config of another tool; engines would follow it");
  }
  if (!folder.description()) {
    if (result.ok) result.detail = "float folder";
    return result;
  }
  if (!config.contains("torch_dtype")) fail(result, "config.json has no torch_dtype");
  if (folder.model_dtype() == formats::DType::kF32)
    fail(result, "torch_dtype float32; engines run float16 or bfloat16");
  std::string quantize = folder.description()->model_quant_type;
  std::transform(quantize.begin(), quantize.end(), quantize.begin(),
                 [](unsigned char c) { return std::tolower(c); });
  if (!names_type(folder.config().quantize, quantize)) {
    fail(result, fmt::format("config.json says quantize \"{}\", the description \"{}\"",
                             folder.config().quantize, quantize));
  }
  if (result.ok) {
    const bool is_other = !folder.config().quantize.empty() && folder.config().quantize != quantize;
    result.detail = fmt::format("quantize {}{}, torch_dtype {}", quantize,
                                is_other ? " (config.json says w8a8)" : "",
                                formats::torch_dtype_name(folder.model_dtype()));
  }
  return result;
}

RuleResult rule_index(const FolderView& folder) {
  RuleResult result{"index-coherent"};
  const formats::Checkpoint& checkpoint = folder.checkpoint();
  if (!checkpoint.index_file()) {
    result.detail = "one weight file, no index";
    return result;
  }
  // Opening the folder has compared every name; the total is left.
  const Json index = formats::read_json_file(checkpoint.folder() / *checkpoint.index_file());
  const auto metadata = index.find("metadata");
  const bool has_metadata = metadata != index.end() && metadata->is_object();
  const Json total = has_metadata ? metadata->value("total_size", Json()) : Json();
  if (total.is_number_unsigned() && total.get<uint64_t>() != checkpoint.size_bytes()) {
    fail(result, fmt::format("{} says total_size {}, the files hold {}", *checkpoint.index_file(),
                             total.dump(), checkpoint.size_bytes()));
  }
  if (result.ok) result.detail = fmt::format("{} files", checkpoint.files().size());
  return result;
}

}  // namespace

std::vector<RuleResult> check_conformance(const std::filesystem::path& folder_path,
                                          const std::optional<std::filesystem::path>& source,
                                          quant::ThreadTeam& team) {
  if (is_compressed_folder(folder_path)) {
    if (!source) return check_compressed(folder_path, team);
    throw formats::bad_input(folder_path.string() +
                             ": compressed parts are not compared with a float source; compare the "
                             "W8A8S folder that they were made of");
  }
  const FolderView folder(folder_path);
  std::vector<RuleResult> rules;
  rules.push_back(rule_description(folder));
  rules.push_back(rule_scheme_tensors(folder));
  rules.push_back(rule_fused_groups(folder));
  rules.push_back(rule_attention_scales(folder));
  for (RuleResult& rule : check_values(folder, team)) rules.push_back(std::move(rule));
  rules.push_back(rule_config(folder));
  rules.push_back(rule_index(folder));
  if (source) {
    for (RuleResult& rule : check_against_source(folder, *source, team))
      rules.push_back(std::move(rule));
  }
  return rules;
}

Json conformance_json(const std::vector<RuleResult>& rules) {
  Json list = Json::array();
  bool ok = true;
  for (const RuleResult& rule : rules) {
    ok = ok && rule.ok;
    list.push_back({{"name", rule.name}, {"ok", rule.ok}, {"detail", rule.detail}});
  }
  return {{"ok", ok}, {"rules", list}};
}

}  // namespace llmq::convert
