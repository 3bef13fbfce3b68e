#include <fmt/format.h>

#include <cmath>
#include <string>

#include "convert/verify/tensor_rules.h"
#include "formats/attention_tensors.h"
#include "formats/error.h"

namespace llmq::convert {
namespace {

using formats::AttentionTensor;
using formats::DType;
using formats::Json;
using formats::StoredTensor;

bool is_accepted_dtype(const AttentionTensor& wanted, DType stored) {
  return formats::is_weight_float(stored) || (!wanted.is_scale && stored == DType::kI8);
}

void check_values(const AttentionTensor& wanted, const StoredTensor& tensor, RuleResult& result) {
  for (const double value : tensor_values(tensor)) {
    const bool is_good = wanted.is_scale
                             ? value > 0 && std::isfinite(value)
                             : value == std::nearbyint(value) && value >= -128 && value <= 127;
    if (is_good) continue;
    fail(result, fmt::format("tensor {} holds {}, {}", tensor.name, value,
                             wanted.is_scale ? "no scale above zero"
                                             : "not a whole number from -128 to 127"));
    return;
  }
}

void check_tensor(const FolderView& folder, const AttentionTensor& wanted, RuleResult& result) {
  const StoredTensor* tensor = folder.checkpoint().find(wanted.name);
  if (tensor == nullptr) {
    fail(result, fmt::format("tensor {} of {} is missing", wanted.name, wanted.tag));
    return;
  }
  const std::string_view tag = folder.tag_of(wanted.name);
  // Older files tag the KV cache by the scheme of the linears.
  const bool is_older = wanted.tag == "C8" && tag == "W8A8";
  if (tag != wanted.tag && !is_older)
    fail(result, fmt::format("tensor {} is tagged {}, not {}", wanted.name, tag, wanted.tag));
  if (!is_accepted_dtype(wanted, tensor->dtype)) {
    fail(result,
         fmt::format("tensor {} is {}, engines expect {}", wanted.name,
                     formats::dtype_name(tensor->dtype), formats::dtype_name(wanted.dtype)));
    return;
  }
  if (tensor->shape != wanted.shape) {
    fail(result,
         fmt::format("tensor {} has shape {}, engines expect {}", wanted.name,
                     formats::shape_string(tensor->shape), formats::shape_string(wanted.shape)));
    return;
  }
  check_values(wanted, *tensor, result);
}

/// A key of the description file; empty where it is absent or no string.
std::string key_of(const Json& document, const char* key) {
  const auto found = document.find(key);
  return found != document.end() && found->is_string() ? found->get<std::string>() : "";
}

void check_keys(const FolderView& folder, RuleResult& result) {
  const auto path = formats::find_description(folder.checkpoint().folder());
  const Json document = formats::read_json_file(*path);
  const std::string cache = key_of(document, "kv_cache_type");
  const std::string kv = key_of(document, "kv_quant_type");
  const std::string fa = key_of(document, "fa_quant_type");
  if (cache != kv) {
    fail(result, fmt::format("the description says kv_cache_type \"{}\" and kv_quant_type \"{}\"; "
                             "engines read one or the other",
                             cache, kv));
  }
  if (!kv.empty() && !fa.empty()) {
    fail(result,
         fmt::format("the description says both kv_quant_type \"{}\" and fa_quant_type \"{}\"; "
                     "they exclude each other",
                     kv, fa));
  }
  if (!kv.empty() && kv != "C8")
    fail(result, fmt::format("the description says kv_quant_type \"{}\"; engines know C8", kv));
  if (!fa.empty() && fa != "FAQuant")
    fail(result, fmt::format("fa_quant_type \"{}\" cannot be checked, only FAQuant", fa));
}

}  // namespace

RuleResult rule_attention_scales(const FolderView& folder) {
  RuleResult result{"attention-scales"};
  const bool is_described = folder.description().has_value();
  if (is_described) check_keys(folder, result);
  size_t n_tensors = 0;
  for (const formats::Scheme scheme : {formats::Scheme::kC8, formats::Scheme::kFaQuant}) {
    const bool is_kv = scheme == formats::Scheme::kC8;
    const bool is_used = is_described && !(is_kv ? folder.description()->kv_quant_type
                                                 : folder.description()->fa_quant_type)
                                              .empty();
    if (is_used &&
        formats::attention_tensors(folder.config(), scheme, 0, folder.model_dtype()).empty()) {
      fail(result, fmt::format("the description says {}, but no engine names its tensors where "
                               "q, k and v are one matrix",
                               formats::scheme_row(scheme).tag));
    }
    for (int64_t layer = 0; layer < folder.config().n_layers; ++layer) {
      for (const AttentionTensor& tensor :
           formats::attention_tensors(folder.config(), scheme, layer, folder.model_dtype())) {
        if (is_used) {
          check_tensor(folder, tensor, result);
          ++n_tensors;
        } else if (folder.checkpoint().find(tensor.name) != nullptr) {
          fail(result, fmt::format("tensor {} is there, but the description has no {}", tensor.name,
                                   is_kv ? "kv_quant_type" : "fa_quant_type"));
        }
      }
    }
  }
  if (result.ok)
    result.detail = n_tensors > 0 ? fmt::format("{} tensors", n_tensors) : "float attention";
  return result;
}

}  // namespace llmq::convert
