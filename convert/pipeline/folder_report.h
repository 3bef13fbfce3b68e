#pragma once

#include <vector>

#include "convert/pipeline/plan.h"
#include "convert/pipeline/quantize_folder.h"
#include "convert/report/console.h"
#include "convert/report/memory.h"
#include "formats/json.h"

namespace llmq::convert {

/// Elements of all tensors of the source, by which bits per weight are counted.
int64_t parameter_count(const Ledger& ledger);

/// llmq_report.json as far as it does not depend on how the run went: versions, recipe, totals, and
/// every tensor with its fate and what `results` (one object per ledger entry) say of it.
formats::Json folder_report(const FolderJob& job, const FolderPlan& plan,
                            const std::vector<formats::Json>& results);

/// What calibration saw of experts, from `results`: `expert_tokens`, a list of {layer, tokens: one
/// count an expert}, and `experts_with_few_tokens`, the modules that were calibrated from weights
/// alone. Empty for models without experts.
formats::Json expert_report(const FolderPlan& plan, const std::vector<formats::Json>& results);

/// Adds time, rate and peak memory to the totals of a report.
void add_run_figures(formats::Json& report, double seconds, const MemorySampler& memory);

/// Tells the user which tensors came close to the range of their dtype, and how many experts saw
/// too few tokens.
void tell_warnings(const FolderPlan& plan, const std::vector<formats::Json>& results,
                   Console& console);

}  // namespace llmq::convert
