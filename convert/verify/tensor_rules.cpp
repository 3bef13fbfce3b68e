#include "convert/verify/tensor_rules.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "formats/dialect.h"
#include "formats/error.h"

namespace llmq::convert {
namespace {

using formats::Scheme;
using formats::StoredTensor;

/// Tensors that some tools leave out and engines do without.
bool is_optional(Scheme scheme, std::string_view suffix) {
  return scheme == Scheme::kW8A8 && (suffix == ".weight_scale" || suffix == ".weight_offset");
}

int64_t stored_group_size(const FolderView& folder, const LinearView& linear) {
  const StoredTensor* scale = folder.checkpoint().find(linear.module + ".weight_scale");
  return scale == nullptr ? 0 : formats::group_size_of(scale->shape, linear.expected->shape[1]);
}

/// Engines read the size of groups from the description, and which way int4 codes are packed.
void check_group_size(const FolderView& folder, const LinearView& linear, int64_t stored,
                      RuleResult& result) {
  const formats::Description& description = *folder.description();
  if (stored == 0 || !description.version || description.group_size == stored) return;
  fail(result, fmt::format("tensor {}.weight_scale has a scale for each {} inputs, the description "
                           "says group_size {}",
                           linear.module, stored, description.group_size));
}

/// Shape of a tensor of the scheme table in this folder.
formats::Shape wanted_shape_of(const FolderView& folder, const formats::TensorRule& rule,
                               formats::LinearExtents extents) {
  if (rule.shape == formats::ShapeRule::kPacked4) {
    if (!formats::stores_int4_pairs(*folder.description())) return {extents.n, extents.k};
    // One group that spans all inputs has scales like those per output, but codes packed by rows.
    if (folder.description()->group_size == extents.k) extents.group_size = extents.k;
  }
  return formats::resolve_shape(rule.shape, extents);
}

/// True for the tensor names that a scheme other than the linear's own would add.
bool is_foreign(const FolderView& folder, const LinearView& linear, std::string_view suffix) {
  const auto& rules = formats::scheme_row(linear.scheme).tensors;
  const bool is_own = std::any_of(rules.begin(), rules.end(),
                                  [&](const auto& rule) { return rule.suffix == suffix; });
  return !is_own && folder.checkpoint().find(linear.module + std::string(suffix)) != nullptr;
}

}  // namespace

void fail(RuleResult& result, const std::string& detail) {
  if (result.ok) {
    result.ok = false;
    result.detail = detail;
  } else if (result.detail.find(" (and more)") == std::string::npos) {
    result.detail += " (and more)";
  }
}

void check_scheme_tensors(const FolderView& folder, const LinearView& linear, RuleResult& result) {
  if (linear.scheme == Scheme::kFloat) {
    const StoredTensor& weight = folder.checkpoint().at(linear.module + ".weight");
    if (!formats::is_weight_float(weight.dtype)) {
      fail(result, fmt::format("tensor {} is tagged FLOAT but stored as {}", weight.name,
                               formats::dtype_name(weight.dtype)));
    }
    // A 16-bit weight is float whatever its tag and whatever else is stored beside it.
    if (folder.tag_of(weight.name) != "FLOAT") return;
  }
  const formats::LinearExtents extents{linear.expected->shape[0], linear.expected->shape[1],
                                       stored_group_size(folder, linear)};
  check_group_size(folder, linear, extents.group_size, result);
  for (const formats::TensorRule& rule : formats::scheme_row(linear.scheme).tensors) {
    const std::string name = linear.module + std::string(rule.suffix);
    const StoredTensor* tensor = folder.checkpoint().find(name);
    if (tensor == nullptr) {
      if (!is_optional(linear.scheme, rule.suffix)) {
        fail(result, fmt::format("{} is {} but tensor {} is missing", linear.module,
                                 formats::scheme_row(linear.scheme).tag, name));
      }
      continue;
    }
    const formats::DType wanted_dtype = formats::resolve_dtype(rule.dtype, folder.model_dtype());
    if (!formats::accepts_dtype(rule, tensor->dtype, folder.model_dtype())) {
      fail(result,
           fmt::format("tensor {} is {}, engines expect {}", name,
                       formats::dtype_name(tensor->dtype), formats::dtype_name(wanted_dtype)));
    }
    const formats::Shape wanted_shape = wanted_shape_of(folder, rule, extents);
    if (!formats::accepts_shape(tensor->shape, wanted_shape)) {
      fail(result,
           fmt::format("tensor {} has shape {}, engines expect {}", name,
                       formats::shape_string(tensor->shape), formats::shape_string(wanted_shape)));
    }
  }
  constexpr std::array<std::string_view, 6> kSchemeSuffixes{
      ".input_scale", ".input_offset", ".quant_bias", ".deq_scale", ".index", ".info"};
  for (const std::string_view suffix : kSchemeSuffixes) {
    if (is_foreign(folder, linear, suffix)) {
      fail(result, fmt::format("tensor {}{} does not belong to {}", linear.module, suffix,
                               formats::scheme_row(linear.scheme).tag));
    }
  }
}

}  // namespace llmq::convert
