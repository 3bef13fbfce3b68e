#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "formats/architecture.h"
#include "formats/dtype.h"
#include "formats/model_config.h"
#include "formats/scheme.h"

namespace llmq::formats {

/// Which of attention's inputs a tensor is about.
enum class AttentionOperand : uint8_t { kQuery, kKey, kValue };

/// A tensor that a scheme of attention (C8, FAQuant) adds to a layer.
struct AttentionTensor {
  std::string name;  ///< "model.layers.3.self_attn.k_proj.kv_cache_scale", "….self_attn.fa_q.scale"
  DType dtype;       ///< as llmq writes it
  Shape shape;       ///< [n_kv_heads·head_dim] of C8, [heads, 1] of FAQuant
  std::string_view tag;  ///< in the description file: "C8" or "FAQuant"
  AttentionOperand operand;
  bool is_scale;  ///< false: the offsets
};

/// The tensors that `scheme` (kC8 or kFaQuant) adds to `layer`, in the order in which they are
/// written: scale and offset of K, then of V; for FAQuant those of Q first. `model_dtype` is F16 or
/// BF16. Empty for a family whose q, k and v are one matrix: no engine names such tensors of it.
/// Throws Error{kInternal} for another scheme.
std::vector<AttentionTensor> attention_tensors(const ModelConfig& config, Scheme scheme,
                                               int64_t layer, DType model_dtype);

/// Bytes of a tensor that attention_tensors listed, from as many values as it has elements, each a
/// value of its dtype already; none for the offsets of symmetric codes, which are zeros. Throws
/// Error{kInternal} for another number of values or one that the dtype does not hold exactly.
std::vector<std::byte> encode_attention_tensor(const AttentionTensor& tensor,
                                               std::span<const float> values);

}  // namespace llmq::formats
