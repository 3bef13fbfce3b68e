#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "formats/json.h"
#include "quant/kernels/thread_team.h"

namespace llmq::convert {

/// One rule of conformance and whether a folder obeys it.
struct RuleResult {
  std::string name;
  bool ok = true;
  /// What was checked, or the first thing that is wrong and where.
  std::string detail{};
};

/// Checks a quantized (or float) folder against what the serving engines ask of it:
///   description-covers-tensors  every tensor is a key of the description and every key a tensor
///   scheme-tensors              each linear has the tensors of its scheme, with dtype and shape
///   fused-groups                q,k,v and gate,up share scheme and input scale
///   attention-scales            tensors and keys of an int8 KV cache (C8) or FAQuant
///   derived-tensors             deq_scale and quant_bias recomputed from the other tensors
///   deq-scale-encoding          float32 for bf16, float32 bits in int64 for fp16; finite, positive
///   code-ranges                 offsets whole and in range; symmetric codes within ±127, int4
///                               codes within −8..7
///   symmetric-offsets           offsets as large as scales; zero where symmetric
///   config-coherent             torch_dtype, quantize and left-over keys of config.json
///   index-coherent              index, files and total size agree
///   finite-values               every float finite, every scale positive
/// What engines read in several spellings (formats/dialect.h) conforms in each; the rule's detail
/// says where a folder departs from what llmq writes.
/// A W8A8SC folder or part is checked by the rules of check_compressed instead.
/// With `source`: float tensors equal the source's cast, and codes dequantize near the source's
/// weights. Reads every weight once. Throws Error only where the folder cannot be read at all.
std::vector<RuleResult> check_conformance(const std::filesystem::path& folder,
                                          const std::optional<std::filesystem::path>& source,
                                          quant::ThreadTeam& team);

/// {"ok": ..., "rules": [{"name", "ok", "detail"}]}.
formats::Json conformance_json(const std::vector<RuleResult>& rules);

}  // namespace llmq::convert
