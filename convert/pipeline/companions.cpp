#include "convert/pipeline/companions.h"

#include <string>
#include <vector>

#include "formats/description.h"
#include "formats/scheme.h"

namespace llmq::convert {

using formats::Json;

Json description_of(const FolderPlan& plan) {
  formats::Description description;
  description.model_quant_type = formats::scheme_row(plan.recipe.main_scheme()).tag;
  description.version = "1.0.0";
  description.group_size = plan.recipe.group_size();
  if (plan.recipe.attention == formats::Scheme::kC8) description.kv_quant_type = "C8";
  if (plan.recipe.attention == formats::Scheme::kFaQuant) description.fa_quant_type = "FAQuant";
  for (const OutputModule* output : plan.ledger.modules_in_order()) {
    for (const OutputTensor& tensor : output->tensors) {
      description.tensors.emplace_back(tensor.name, formats::scheme_row(tensor.scheme).tag);
    }
  }
  return formats::description_json(description);
}

Json rewritten_config(const FolderPlan& plan, bool is_quantized) {
  Json changes = {{"torch_dtype", formats::torch_dtype_name(plan.ledger.model_dtype)}};
  std::vector<std::string> removed{"quantization_config", "compression_config"};
  if (plan.config_document.contains("dtype")) {
    // The newer spelling beside the one that engines know must not contradict it.
    if (plan.config_document.contains("torch_dtype")) {
      changes["dtype"] = changes["torch_dtype"];
    } else {
      removed.emplace_back("dtype");
    }
  }
  if (plan.recipe.rotate && plan.config.tie_word_embeddings) changes["tie_word_embeddings"] = false;
  if (is_quantized) {
    const formats::SchemeRow& scheme = formats::scheme_row(plan.recipe.main_scheme());
    Json grouping = {{"group_size", plan.recipe.group_size()}};
    if (plan.recipe.attention == formats::Scheme::kC8) grouping["kv_quant_type"] = "C8";
    if (plan.recipe.attention == formats::Scheme::kFaQuant) grouping["fa_quant_type"] = "FAQuant";
    changes["quantize"] = scheme.quantize;
    changes["quantization_config"] = grouping;
    if (scheme.scheme == formats::Scheme::kW8A16) changes["quantization"] = grouping;
  }
  return formats::rewrite_config(plan.config_document, changes, removed);
}

}  // namespace llmq::convert
