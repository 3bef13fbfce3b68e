#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "convert/verify/conformance.h"
#include "convert/verify/folder_view.h"
#include "quant/kernels/thread_team.h"

namespace llmq::convert {

/// Marks a rule as broken; the first detail is kept, further ones are counted.
void fail(RuleResult& result, const std::string& detail);

/// scheme-tensors for one linear: every tensor of its scheme with dtype and shape, and none of
/// another.
void check_scheme_tensors(const FolderView& folder, const LinearView& linear, RuleResult& result);

/// attention-scales: with C8 or FAQuant every layer has their tensors with dtype, shape and tag,
/// scales finite and above zero, offsets whole numbers from −128 to 127; C8 stands under both of
/// its keys; the two exclude each other. Without them no such tensor is there.
RuleResult rule_attention_scales(const FolderView& folder);

/// The rules that read weights, in one pass spread over the team: derived-tensors,
/// deq-scale-encoding, code-ranges, symmetric-offsets, finite-values.
std::vector<RuleResult> check_values(const FolderView& folder, quant::ThreadTeam& team);

/// source-float-tensors: float tensors equal the source's values cast to their dtype.
/// source-weights: codes dequantize to the source's weights with more signal than noise.
std::vector<RuleResult> check_against_source(const FolderView& folder,
                                             const std::filesystem::path& source,
                                             quant::ThreadTeam& team);

}  // namespace llmq::convert
