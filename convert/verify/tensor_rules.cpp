#include "convert/verify/tensor_rules.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "formats/error.h"

namespace llmq::convert {
namespace {

using formats::Scheme;
using formats::StoredTensor;

/// dtypes that engines accept for a tensor besides the one that llmq writes.
bool is_accepted_dtype(const formats::TensorRule& rule, formats::DType stored,
                       formats::DType wanted) {
  using formats::DType;
  if (stored == wanted) return true;
  if (rule.suffix == ".input_scale")
    return stored == DType::kF32 || stored == DType::kF16 || stored == DType::kBF16;
  if (rule.suffix == ".input_offset") {
    return stored == DType::kF32 || stored == DType::kF16 || stored == DType::kBF16 ||
           stored == DType::kI8;
  }
  if (rule.suffix == ".weight_scale" || rule.suffix == ".weight_offset") {
    return stored == DType::kF16 || stored == DType::kBF16;
  }
  return rule.dtype == formats::DTypeRule::kModel && formats::is_weight_float(stored);
}

/// Scales are [n, 1] or [n]; engines flatten them.
bool is_accepted_shape(const formats::Shape& stored, const formats::Shape& wanted) {
  if (wanted.empty() || stored == wanted) return true;
  return wanted.size() == 2 && wanted[1] == 1 && stored == formats::Shape{wanted[0]};
}

/// Tensors that some tools leave out and engines do without.
bool is_optional(Scheme scheme, std::string_view suffix) {
  return scheme == Scheme::kW8A8 && (suffix == ".weight_scale" || suffix == ".weight_offset");
}

int64_t group_size_of(const FolderView& folder, const LinearView& linear) {
  const StoredTensor* scale = folder.checkpoint().find(linear.module + ".weight_scale");
  const bool is_grouped = scale != nullptr && scale->shape.size() == 2 && scale->shape[1] > 1;
  if (!is_grouped) return 0;
  const int64_t k = linear.expected->shape[1];
  return k % scale->shape[1] == 0 ? k / scale->shape[1] : folder.description()->group_size;
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
  }
  const formats::LinearExtents extents{linear.expected->shape[0], linear.expected->shape[1],
                                       group_size_of(folder, linear)};
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
    if (!is_accepted_dtype(rule, tensor->dtype, wanted_dtype)) {
      fail(result,
           fmt::format("tensor {} is {}, engines expect {}", name,
                       formats::dtype_name(tensor->dtype), formats::dtype_name(wanted_dtype)));
    }
    const formats::Shape wanted_shape = formats::resolve_shape(rule.shape, extents);
    if (!is_accepted_shape(tensor->shape, wanted_shape)) {
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
