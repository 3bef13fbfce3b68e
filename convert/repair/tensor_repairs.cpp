#include "convert/repair/tensor_repairs.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <string_view>
#include <unordered_map>
#include <unordered_set>

#include "convert/pipeline/tensor_bytes.h"
#include "convert/verify/folder_view.h"
#include "formats/error.h"
#include "quant/static_w8a8.h"

namespace llmq::convert {
namespace {

using formats::DType;
using formats::Scheme;
using formats::StoredTensor;

using Tags = std::unordered_map<std::string, std::string>;

/// Parameters that stand beside the codes of a linear.
constexpr std::array<std::string_view, 8> kParameters{
    ".input_scale",  ".input_offset",  ".quant_bias", ".deq_scale",
    ".weight_scale", ".weight_offset", ".index",      ".info"};
/// Those that only static activations need.
constexpr std::array<std::string_view, 4> kStaticParameters{".input_scale", ".input_offset",
                                                            ".quant_bias", ".deq_scale"};

struct SplitName {
  std::string module;
  std::string suffix;  ///< with its dot
};

SplitName split_name(const std::string& name) {
  const size_t dot = name.rfind('.');
  if (dot == std::string::npos) return {name, ""};
  return {name.substr(0, dot), name.substr(dot)};
}

template <typename List>
bool contains(const List& list, std::string_view suffix) {
  return std::find(list.begin(), list.end(), suffix) != list.end();
}

Tags tags_of(const formats::Description& description) {
  return {description.tensors.begin(), description.tensors.end()};
}

/// The scheme whose tensors the module holds, the folder's main scheme where that fits.
Scheme scheme_by_tensors(const RepairPlan& plan, const std::string& module) {
  const auto has = [&](const char* suffix) {
    return plan.checkpoint.find(module + suffix) != nullptr;
  };
  const Scheme main = formats::parse_scheme_tag(plan.description.model_quant_type);
  const bool is_static = has(".deq_scale");
  const bool has_weight_scale = has(".weight_scale");
  if (is_static == formats::has_tensor(main, ".deq_scale") &&
      has(".index") == formats::has_tensor(main, ".index")) {
    if (main == Scheme::kW8A8 || has_weight_scale == formats::has_tensor(main, ".weight_scale"))
      return main;
  }
  if (is_static && has_weight_scale) return Scheme::kW8A8;
  if (!is_static && has_weight_scale && main != Scheme::kFloat)
    return formats::scheme_row(main).activation_bits == 8 ? Scheme::kW8A8Dynamic : Scheme::kW8A16;
  throw formats::bad_input(fmt::format(
      "{}.weight: the description has no tag for it and its tensors fit no scheme; add the tag",
      module));
}

std::string tag_of_module(const RepairPlan& plan, const Tags& tags, const std::string& module) {
  const auto is_quantized = [&](const std::string& name) {
    const auto found = tags.find(name);
    return found != tags.end() && found->second != "FLOAT" ? found->second : std::string();
  };
  std::string tag = is_quantized(module + ".weight");
  for (const std::string_view suffix : kParameters) {
    if (tag.empty()) tag = is_quantized(module + std::string(suffix));
  }
  if (!tag.empty()) return tag;
  const StoredTensor* weight = plan.checkpoint.find(module + ".weight");
  if (weight == nullptr || weight->dtype != DType::kI8) return "FLOAT";
  return std::string(formats::scheme_row(scheme_by_tensors(plan, module)).tag);
}

std::string missing_tag(const RepairPlan& plan, const Tags& tags, const StoredTensor& tensor) {
  const auto [module, suffix] = split_name(tensor.name);
  if (suffix == ".kv_cache_scale" || suffix == ".kv_cache_offset") return "C8";
  const bool is_attention = split_name(module).suffix.starts_with(".fa_");
  if (is_attention && (suffix == ".scale" || suffix == ".offset")) return "FAQuant";
  if (formats::is_weight_float(tensor.dtype) && !contains(kParameters, suffix)) return "FLOAT";
  return tag_of_module(plan, tags, module);
}

/// The scheme that the repaired description gives a module's weight; float without one.
Scheme scheme_of(const Tags& tags, const std::string& module) {
  const auto tag = tags.find(module + ".weight");
  return tag == tags.end() ? Scheme::kFloat : formats::parse_scheme_tag(tag->second);
}

RepairedTensor* find_repaired(std::unordered_map<std::string, size_t>& places, RepairPlan& plan,
                              const std::string& name) {
  const auto place = places.find(name);
  return place == places.end() ? nullptr : &plan.tensors[place->second];
}

std::vector<float> decoded_deq_scale(const StoredTensor& tensor) {
  if (formats::is_weight_float(tensor.dtype))
    return rounded_floats(tensor.bytes, tensor.dtype, DType::kF32);
  if (tensor.dtype != DType::kI64) {
    throw formats::bad_input(fmt::format("tensor {} is {}, neither float32 nor int64", tensor.name,
                                         formats::dtype_name(tensor.dtype)));
  }
  std::vector<float> values(tensor.bytes.size() / sizeof(int64_t));
  for (size_t i = 0; i < values.size(); ++i) {
    int64_t bits = 0;
    std::memcpy(&bits, tensor.bytes.data() + i * sizeof bits, sizeof bits);
    values[i] = quant::narrow_deq_scale(bits);
  }
  return values;
}

/// A linear with static activations, and what becomes of the tensors that follow from others.
struct StaticLinear {
  std::string module;
  RepairedTensor* deq_scale = nullptr;
  RepairedTensor* quant_bias = nullptr;
  RepairedTensor* input_scale = nullptr;
  RepairedTensor* input_offset = nullptr;
  RepairedTensor* bias = nullptr;
  const StoredTensor* weight_scale = nullptr;
  const StoredTensor* weight = nullptr;
  bool is_derived = false;  ///< deq_scale and quant_bias are computed anew
};

/// Values of a float tensor after its cast; `changed` is set where they are not those stored.
std::vector<float> cast_values(const RepairedTensor& tensor, bool& changed) {
  const StoredTensor& source = *tensor.source;
  std::vector<float> values = rounded_floats(source.bytes, source.dtype, tensor.dtype);
  if (tensor.dtype != source.dtype &&
      values != rounded_floats(source.bytes, source.dtype, DType::kF32))
    changed = true;
  return values;
}

/// The scale as engines use it must have a reciprocal.
void check_input_scale(const StaticLinear& linear, float scale) {
  const DType dtype = linear.input_scale->dtype;
  if (scale > 0 && std::isfinite(scale) && std::isfinite(quant::rounded_reciprocal(scale, dtype)))
    return;
  throw formats::bad_input(fmt::format("tensor {} becomes {} in {}; quantize the float model again",
                                       linear.input_scale->source->name, scale,
                                       formats::dtype_name(dtype)));
}

/// The bias that quant_bias holds, for a linear whose bias is not stored.
std::vector<float> folded_bias(const StaticLinear& linear, const std::vector<float>& deq_scale,
                               double offset, const std::vector<int64_t>& sums) {
  const std::vector<double> stored = tensor_values(*linear.quant_bias->source);
  std::vector<float> bias(stored.size());
  for (size_t i = 0; i < bias.size(); ++i) {
    const double exact = stored[i] + offset * static_cast<double>(sums[i]);
    bias[i] = static_cast<float>(exact * static_cast<double>(deq_scale[i]));
  }
  return bias;
}

/// What deq_scale and quant_bias are derived from must be of the linear's `n` outputs.
void check_extents(const StaticLinear& linear, int64_t n) {
  const StoredTensor& weight = *linear.weight;
  if (weight.shape.size() != 2 || weight.dtype != DType::kI8 || weight.shape[0] != n) {
    throw formats::bad_input(fmt::format(
        "tensor {}: its codes cannot be read, so that quant_bias cannot be derived for another "
        "dtype; convert the folder that it was made from",
        weight.name));
  }
  const StoredTensor* bias = linear.bias != nullptr ? linear.bias->source : nullptr;
  for (const StoredTensor* tensor : {linear.weight_scale, linear.quant_bias->source, bias}) {
    if (tensor == nullptr || formats::shape_elements(tensor->shape) == n) continue;
    throw formats::bad_input(fmt::format("tensor {} has shape {}, the linear has {} outputs",
                                         tensor->name, formats::shape_string(tensor->shape), n));
  }
}

void derive_again(StaticLinear& linear, float old_input_scale, float input_scale,
                  const std::vector<float>& bias, std::vector<float>& deq_scale) {
  const StoredTensor& weight = *linear.weight;
  const auto n = static_cast<int64_t>(deq_scale.size());
  check_extents(linear, n);
  const double offset = tensor_values(*linear.input_offset->source).at(0);
  const std::vector<int64_t> sums = quant::code_sums(
      {reinterpret_cast<const int8_t*>(weight.bytes.data()), weight.bytes.size()}, n);
  std::vector<float> weight_scale(deq_scale.size());
  if (linear.weight_scale != nullptr) {
    const std::vector<double> stored = tensor_values(*linear.weight_scale);
    weight_scale.assign(stored.begin(), stored.end());
  } else {
    for (size_t i = 0; i < weight_scale.size(); ++i)
      weight_scale[i] = deq_scale[i] / old_input_scale;
  }
  const std::vector<float> biases =
      linear.bias != nullptr ? bias : folded_bias(linear, deq_scale, offset, sums);
  const quant::StaticTensors derived =
      quant::static_tensors({input_scale, static_cast<float>(offset)}, weight_scale, sums, biases);
  deq_scale = derived.deq_scale;
  const auto bytes = std::as_bytes(std::span(derived.quant_bias));
  linear.quant_bias->bytes.emplace(bytes.begin(), bytes.end());
  linear.is_derived = true;
}

/// deq_scale, and quant_bias where a cast changes what it follows from.
void repair_static_linear(StaticLinear& linear, DType deq_dtype) {
  const StoredTensor& stored = *linear.deq_scale->source;
  std::vector<float> deq_scale = decoded_deq_scale(stored);
  const bool is_complete = linear.quant_bias != nullptr && linear.input_scale != nullptr &&
                           linear.input_offset != nullptr && linear.weight != nullptr;
  const auto is_one = [](const RepairedTensor* tensor) {
    return formats::shape_elements(tensor->source->shape) == 1;
  };
  if (is_complete && is_one(linear.input_scale) && is_one(linear.input_offset) &&
      formats::is_weight_float(linear.input_scale->source->dtype)) {
    bool changed = stored.dtype != DType::kF32 && stored.dtype != DType::kI64;
    const float input_scale = cast_values(*linear.input_scale, changed).at(0);
    std::vector<float> bias;
    if (linear.bias != nullptr) bias = cast_values(*linear.bias, changed);
    if (linear.input_scale->dtype != linear.input_scale->source->dtype)
      check_input_scale(linear, input_scale);
    if (changed) {
      const auto old = static_cast<float>(tensor_values(*linear.input_scale->source).at(0));
      try {
        derive_again(linear, old, input_scale, bias, deq_scale);
      } catch (const formats::Error& error) {
        throw error.with_context(linear.module);
      }
    }
  }
  if (stored.dtype == deq_dtype && !linear.is_derived) return;
  linear.deq_scale->dtype = deq_dtype;
  linear.deq_scale->bytes = encode_deq_scale(deq_scale, deq_dtype);
}

/// Whether a float tensor is one that engines run in the model's dtype.
bool is_cast(const RepairPlan& plan, const Tags& tags, const StoredTensor& tensor,
             bool cast_float32) {
  if (tensor.dtype == plan.model_dtype || tensor.name.ends_with(".deq_scale")) return false;
  if (tensor.dtype == DType::kF16 || tensor.dtype == DType::kBF16) return true;
  const auto tag = tags.find(tensor.name);
  return cast_float32 && tensor.dtype == DType::kF32 && tag != tags.end() && tag->second == "FLOAT";
}

std::vector<StaticLinear> static_linears(RepairPlan& plan) {
  std::unordered_map<std::string, size_t> places;
  for (size_t i = 0; i < plan.tensors.size(); ++i) places[plan.tensors[i].source->name] = i;
  std::vector<StaticLinear> linears;
  for (RepairedTensor& tensor : plan.tensors) {
    const auto [module, suffix] = split_name(tensor.source->name);
    if (suffix != ".deq_scale") continue;
    const auto find = [&, &name = module](const char* other) {
      return find_repaired(places, plan, name + other);
    };
    StaticLinear linear{module, &tensor};
    linear.quant_bias = find(".quant_bias");
    linear.input_scale = find(".input_scale");
    linear.input_offset = find(".input_offset");
    linear.bias = find(".bias");
    linear.weight_scale = plan.checkpoint.find(module + ".weight_scale");
    linear.weight = plan.checkpoint.find(module + ".weight");
    linears.push_back(std::move(linear));
  }
  return linears;
}

}  // namespace

void repair_tags(RepairPlan& plan) {
  const Tags tags = tags_of(plan.description);
  for (const StoredTensor& tensor : plan.checkpoint.tensors()) {
    if (tags.contains(tensor.name)) continue;
    const std::string tag = missing_tag(plan, tags, tensor);
    plan.description.tensors.emplace_back(tensor.name, tag);
    plan.note("description", fmt::format("added the missing key, {}", tag), tensor.name);
  }
  if (!plan.description.version) return;
  std::erase_if(plan.description.tensors, [&](const auto& entry) {
    const std::string& name = entry.first;
    // A weight that is missing is for the rules to tell: its key says what is not there.
    const bool is_surplus =
        plan.checkpoint.find(name) == nullptr && contains(kParameters, split_name(name).suffix);
    if (is_surplus) plan.note("description", "took out the key, no file holds the tensor", name);
    return is_surplus;
  });
}

void repair_scheme(RepairPlan& plan, Scheme to) {
  const std::string_view from_tag = formats::scheme_row(Scheme::kW8A8Mix).tag;
  const std::string to_tag(formats::scheme_row(to).tag);
  std::unordered_set<std::string> modules;
  for (auto& [name, tag] : plan.description.tensors) {
    if (tag != from_tag) continue;
    modules.insert(split_name(name).module);
    tag = to_tag;
  }
  std::string& type = plan.description.model_quant_type;
  if (modules.empty() && type != to_tag) {
    throw formats::usage_error(
        fmt::format("--to {} changes folders of W8A8_MIX, this one is {}; quantize the float model "
                    "again",
                    formats::scheme_row(to).quantize, type));
  }
  if (type == from_tag) type = to_tag;
  const auto detail = fmt::format("{} became {}", from_tag, to_tag);
  const bool is_dynamic = to == Scheme::kW8A8Dynamic;
  std::unordered_set<std::string> dropped;
  for (const RepairedTensor& tensor : plan.tensors) {
    const auto [module, suffix] = split_name(tensor.source->name);
    if (!modules.contains(module)) continue;
    if (suffix == ".weight") plan.note("scheme", detail, module);
    if (is_dynamic && contains(kStaticParameters, suffix)) {
      plan.note("scheme", "took out the parameters of static activations", tensor.source->name);
      dropped.insert(tensor.source->name);
    }
  }
  std::erase_if(plan.tensors, [&](const RepairedTensor& tensor) {
    return dropped.contains(tensor.source->name);
  });
  std::erase_if(plan.description.tensors,
                [&](const auto& entry) { return dropped.contains(entry.first); });
}

void repair_shapes(RepairPlan& plan) {
  const Tags tags = tags_of(plan.description);
  for (RepairedTensor& tensor : plan.tensors) {
    const auto [module, suffix] = split_name(tensor.source->name);
    if (!contains(kParameters, suffix) || scheme_of(tags, module) == Scheme::kFloat) continue;
    const formats::Shape& stored = tensor.source->shape;
    const int64_t n = formats::shape_elements(stored);
    formats::Shape wanted = stored;
    if (suffix == ".weight_scale" || suffix == ".weight_offset") {
      if (stored.size() == 1) wanted = {n, 1};
    } else if (suffix == ".input_scale" || suffix == ".input_offset") {
      if (n == 1) wanted = {1};
    } else if (suffix == ".deq_scale" || suffix == ".quant_bias") {
      if (stored.size() == 2 && stored[1] == 1) wanted = {n};
    }
    if (wanted == stored) continue;
    tensor.shape = wanted;
    const char* form = wanted.size() == 2 ? "from [n] to [n, 1]"
                       : n == 1           ? "to [1]"
                                          : "from [n, 1] to [n]";
    plan.note("shape", fmt::format("{} {}", suffix.substr(1), form), tensor.source->name);
  }
}

void repair_dtypes(RepairPlan& plan, bool cast_float32, quant::ThreadTeam& team) {
  const Tags tags = tags_of(plan.description);
  const std::string_view model = formats::torch_dtype_name(plan.model_dtype);
  for (RepairedTensor& tensor : plan.tensors) {
    if (!is_cast(plan, tags, *tensor.source, cast_float32)) continue;
    tensor.dtype = plan.model_dtype;
    plan.note(
        "dtype",
        fmt::format("cast from {} to {}", formats::torch_dtype_name(tensor.source->dtype), model),
        tensor.source->name);
  }
  const DType deq_dtype = formats::resolve_dtype(formats::DTypeRule::kDeqScale, plan.model_dtype);
  std::vector<StaticLinear> linears = static_linears(plan);
  team.parallel_for(static_cast<int64_t>(linears.size()), [&](int64_t i, int) {
    repair_static_linear(linears[static_cast<size_t>(i)], deq_dtype);
  });
  for (const StaticLinear& linear : linears) {
    const StoredTensor& stored = *linear.deq_scale->source;
    if (stored.dtype != deq_dtype) {
      plan.note(
          "deq-scale",
          fmt::format("from {} to {}, as a {} model needs it", formats::dtype_name(stored.dtype),
                      formats::dtype_name(deq_dtype), model),
          stored.name);
    }
    if (linear.is_derived) {
      plan.note("derived", "deq_scale and quant_bias computed anew for the values after the cast",
                linear.module);
    }
  }
}

}  // namespace llmq::convert
