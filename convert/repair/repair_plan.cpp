#include "convert/repair/repair_plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <unordered_map>

#include "convert/pipeline/tensor_bytes.h"
#include "convert/repair/tensor_repairs.h"
#include "formats/dialect.h"
#include "formats/error.h"
#include "formats/model_config.h"

namespace llmq::convert {
namespace {

using formats::DType;
using formats::Json;
using formats::Scheme;
using formats::StoredTensor;
namespace fs = std::filesystem;

constexpr std::string_view kWeightPrefix = "quant_model_weight_";
constexpr std::string_view kOlderPrefix = "quant_model_description_";

/// The scheme that config.json calls `quantize`; nothing for another word.
std::optional<Scheme> scheme_called(const std::string& quantize) {
  for (const formats::SchemeRow& row : formats::schemes()) {
    if (row.is_linear && row.scheme != Scheme::kFloat && row.quantize == quantize)
      return row.scheme;
  }
  return std::nullopt;
}

/// Reads the description, or begins one where config.json says what the folder is.
void open_description(RepairPlan& plan, const RepairRequest& request, const std::string& quantize) {
  plan.description_file = formats::kDescriptionFile;
  if (const auto path = formats::find_description(request.source)) {
    plan.description = formats::read_description(*path);
    plan.description_file = path->filename().string();
    return;
  }
  const std::optional<Scheme> scheme = scheme_called(quantize);
  if (!scheme) {
    throw formats::bad_input(fmt::format(
        "{}: has no {} and config.json no quantize, so it is no quantized folder; --repair is for "
        "those",
        request.source.string(), formats::kDescriptionFile));
  }
  if (*scheme == Scheme::kW4A16) {
    throw formats::bad_input(
        fmt::format("{}: has no {}, which alone says how its int4 codes are "
                    "packed",
                    request.source.string(), formats::kDescriptionFile));
  }
  plan.description.model_quant_type = formats::scheme_row(*scheme).tag;
  plan.description.version = "1.0.0";
  plan.note("description", "written anew from config.json's quantize and the tensors",
            std::string(formats::kDescriptionFile));
}

DType model_dtype_of(const RepairPlan& plan, const RepairRequest& request, DType configured) {
  if (request.dtype) return *request.dtype;
  if (configured != DType::kF32) return configured;
  for (const StoredTensor& tensor : plan.checkpoint.tensors()) {
    const bool is_half = tensor.dtype == DType::kF16 || tensor.dtype == DType::kBF16;
    if (is_half && tensor.shape.size() == 2) return tensor.dtype;
  }
  return DType::kF16;
}

/// The description's other keys: group_size as the scales have it, C8 under both of its keys.
void repair_metadata(RepairPlan& plan, const fs::path& source) {
  formats::Description& description = plan.description;
  for (const RepairedTensor& tensor : plan.tensors) {
    const std::string& name = tensor.source->name;
    const bool is_grouped = name.ends_with(".weight_scale") && tensor.shape.size() == 2 &&
                            tensor.shape[1] > 1 && description.version.has_value();
    if (!is_grouped) continue;
    const StoredTensor* weight =
        plan.checkpoint.find(name.substr(0, name.size() - std::string_view("_scale").size()));
    // Groups of packed codes lie beside rows of whole length.
    if (weight == nullptr || weight->shape.size() != 2) continue;
    const int64_t group_size = formats::group_size_of(tensor.shape, weight->shape[1]);
    if (description.group_size != group_size) {
      plan.note("description",
                fmt::format("group_size {} became {}, as the scales have it",
                            description.group_size, group_size),
                "group_size");
      description.group_size = group_size;
    }
    break;
  }
  const bool has_kv =
      std::any_of(plan.tensors.begin(), plan.tensors.end(), [](const RepairedTensor& tensor) {
        return tensor.source->name.ends_with(".kv_cache_scale");
      });
  if (!has_kv) return;
  const auto path = formats::find_description(source);
  const Json document = path ? formats::read_json_file(*path) : Json::object();
  for (const char* key : {"kv_cache_type", "kv_quant_type"}) {
    if (document.value(key, Json()) == "C8") continue;
    plan.note("description", "C8 for the scales of keys and values", key);
  }
  description.kv_quant_type = "C8";
}

/// Engines of vLLM look up the head's tag also where the head is tied.
void add_tied_head(RepairPlan& plan, const formats::ModelConfig& config) {
  const std::string head = "lm_head.weight";
  const bool is_there = plan.checkpoint.find(head) != nullptr;
  if (!config.tie_word_embeddings || config.may_lack_head() || is_there ||
      !plan.description.tag_of(head).empty())
    return;
  plan.description.tensors.emplace_back(head, "FLOAT");
  plan.note("description", "added the key of the tied head, FLOAT", head);
}

/// Whether `quantize` names the type. Older tools call every type with int8 weights and activations
/// w8a8.
bool names_type(const std::string& quantize, std::string_view type) {
  return quantize == type || (quantize == "w8a8" && (type == "w8a8_mix" || type == "w8a8_dynamic"));
}

/// What MindIE reads beside `quantize`, with the other keys that are there.
Json grouping_of(const RepairPlan& plan, const Json& present, bool is_retyped) {
  const bool is_own = present.is_object() && !present.contains("quant_method");
  Json grouping = is_own ? present : Json::object();
  grouping["group_size"] = plan.description.group_size;
  if (!plan.description.kv_quant_type.empty())
    grouping["kv_quant_type"] = plan.description.kv_quant_type;
  if (!plan.description.fa_quant_type.empty())
    grouping["fa_quant_type"] = plan.description.fa_quant_type;
  if (is_retyped) grouping.erase("pdmix");
  return grouping;
}

void repair_config(RepairPlan& plan, const Json& document, const RepairRequest& request) {
  const std::string dtype(formats::torch_dtype_name(plan.model_dtype));
  const std::string type(
      formats::scheme_row(formats::parse_scheme_tag(plan.description.model_quant_type)).quantize);
  Json changes = Json::object();
  std::vector<std::string> removed;
  const auto value_of = [&](const char* key) { return document.value(key, Json()); };
  const Json written = value_of("torch_dtype");
  if (written != dtype && written != "torch." + dtype) changes["torch_dtype"] = dtype;
  if (document.contains("dtype") && value_of("dtype") != dtype) changes["dtype"] = dtype;
  const Json quantize = value_of("quantize");
  const std::string named = quantize.is_string() ? quantize.get<std::string>() : "";
  const bool is_named = request.to ? named == type : names_type(named, type);
  if (!is_named) changes["quantize"] = type;
  const Json present = value_of("quantization_config");
  const Json grouping = grouping_of(plan, present, request.to.has_value());
  if (present != grouping) changes["quantization_config"] = grouping;
  if (document.contains("compression_config")) removed.emplace_back("compression_config");
  for (const auto& [key, value] : changes.items()) {
    const std::string before = document.contains(key) ? document[key].dump() : "absent";
    plan.note("config", fmt::format("{}: {} became {}", key, before, value.dump()), key);
  }
  for (const std::string& key : removed)
    plan.note("config", "took out what another tool left", key);
  plan.config = formats::rewrite_config(document, changes, removed);
}

/// A name in which the type stands, with another type: "quant_model_weight_w8a8_mix-00001-of-...".
std::string retyped(const std::string& name, std::string_view prefix, std::string_view from,
                    std::string_view to) {
  const std::string old = fmt::format("{}{}", prefix, from);
  if (!name.starts_with(old) || name.size() <= old.size()) return name;
  const char next = name[old.size()];
  if (next != '.' && next != '-') return name;
  return fmt::format("{}{}{}", prefix, to, name.substr(old.size()));
}

void repair_names(RepairPlan& plan, const RepairRequest& request) {
  const std::string_view from = formats::scheme_row(Scheme::kW8A8Mix).quantize;
  const auto rename = [&](std::string& name, const std::string& to) {
    if (name == to) return;
    plan.note("file", fmt::format("{} became {}", name, to), to);
    name = to;
  };
  if (request.to) {
    const std::string_view to = formats::scheme_row(*request.to).quantize;
    for (std::string& file : plan.files) rename(file, retyped(file, kWeightPrefix, from, to));
    if (plan.index_file)
      rename(*plan.index_file, retyped(*plan.index_file, kWeightPrefix, from, to));
    rename(plan.description_file, retyped(plan.description_file, kOlderPrefix, from, to));
  }
  if (request.engine == Engine::kVllmAscend)
    rename(plan.description_file, std::string(formats::kDescriptionFile));
  // Older releases of MindIE look for the type that config.json names, and for w8a8 where that is a
  // variant of it.
  const std::string quantize = plan.config.value("quantize", "");
  const bool is_older = plan.description_file.starts_with(kOlderPrefix);
  const bool is_variant = quantize.starts_with("w8a8_") &&
                          plan.description_file == fmt::format("{}w8a8.json", kOlderPrefix);
  if (request.engine == Engine::kMindIe && is_older && !is_variant)
    rename(plan.description_file, fmt::format("{}{}.json", kOlderPrefix, quantize));
  for (const auto& entry : fs::directory_iterator(request.source)) {
    const std::string name = entry.path().filename().string();
    const bool is_second = name.starts_with(kOlderPrefix) && name.ends_with(".json") &&
                           fs::exists(request.source / formats::kDescriptionFile);
    if (is_second) plan.note("file", "left out, as engines want one description", name);
  }
}

/// How far engines' rounding moves a scale of weights at most, relative to its value.
double largest_rounding(const StoredTensor& scale, DType dtype) {
  const std::vector<float> stored = rounded_floats(scale.bytes, scale.dtype, DType::kF32);
  const std::vector<float> rounded = rounded_floats(scale.bytes, scale.dtype, dtype);
  double largest = 0;
  for (size_t i = 0; i < stored.size(); ++i) {
    const double value = stored[i];
    largest = std::max(largest, std::abs(rounded[i] - value) / std::abs(value));
  }
  return largest;
}

/// Codes are rounded for scales of the model's dtype, to which engines round them when they load.
void warn_of_scales(RepairPlan& plan, const std::unordered_map<std::string, std::string>& tags) {
  double largest = 0;
  for (const RepairedTensor& tensor : plan.tensors) {
    const StoredTensor& source = *tensor.source;
    const auto tag = tags.find(source.name);
    const bool is_scale = source.name.ends_with(".weight_scale") && tag != tags.end() &&
                          formats::is_weight_float(source.dtype) && tag->second != "FLOAT";
    if (is_scale && formats::scheme_row(formats::parse_scheme_tag(tag->second)).rounds_weight_scale)
      largest = std::max(largest, largest_rounding(source, plan.model_dtype));
  }
  if (largest == 0) return;
  plan.warnings.push_back(
      fmt::format("engines round the scales of weights to {} and move them by up to {:.2g} of "
                  "their value; the float model quantized for that dtype has codes that fit",
                  formats::torch_dtype_name(plan.model_dtype), largest));
}

void warn_of_limits(RepairPlan& plan, const RepairRequest& request) {
  const std::unordered_map<std::string, std::string> tags(plan.description.tensors.begin(),
                                                          plan.description.tensors.end());
  if (request.dtype) warn_of_scales(plan, tags);
  const bool has_int4 =
      std::any_of(tags.begin(), tags.end(), [](const auto& tag) { return tag.second == "W4A16"; });
  if (request.engine == Engine::kVllmAscend && has_int4)
    plan.warnings.emplace_back("vllm-ascend does not load linears of W4A16; MindIE does");
}

}  // namespace

void RepairPlan::note(const std::string& name, const std::string& detail,
                      const std::string& place) {
  for (Repair& repair : repairs) {
    if (repair.name != name || repair.detail != detail) continue;
    repair.where.push_back(place);
    return;
  }
  repairs.push_back({name, detail, {place}});
}

RepairPlan make_repair_plan(const RepairRequest& request, quant::ThreadTeam& team) {
  RepairPlan plan;
  plan.checkpoint = formats::Checkpoint::open(request.source);
  const fs::path config_path = request.source / "config.json";
  const Json document = formats::read_json_file(config_path);
  formats::ModelConfig config = formats::parse_model_config(document, config_path.string());
  config.bare_names = formats::has_bare_names(plan.checkpoint);
  open_description(plan, request, config.quantize);
  plan.model_dtype = model_dtype_of(plan, request, config.torch_dtype);
  plan.files = plan.checkpoint.files();
  plan.index_file = plan.checkpoint.index_file();
  for (const StoredTensor& tensor : plan.checkpoint.tensors())
    plan.tensors.push_back({&tensor, tensor.dtype, tensor.shape, std::nullopt});
  repair_tags(plan);
  if (request.engine == Engine::kVllmAscend) add_tied_head(plan, config);
  if (request.to) repair_scheme(plan, *request.to);
  repair_shapes(plan);
  repair_dtypes(plan, request.dtype.has_value(), team);
  repair_metadata(plan, request.source);
  repair_config(plan, document, request);
  repair_names(plan, request);
  warn_of_limits(plan, request);
  return plan;
}

}  // namespace llmq::convert
