#pragma once

#include "convert/pipeline/plan.h"
#include "formats/json.h"

namespace llmq::convert {

/// quant_model_description.json of a plan's output: every tensor written and its scheme.
formats::Json description_of(const FolderPlan& plan);

/// config.json of a plan's output: the source's with dtype, and what engines read of a quantized
/// folder where `is_quantized`.
formats::Json rewritten_config(const FolderPlan& plan, bool is_quantized);

}  // namespace llmq::convert
