#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "formats/dtype.h"
#include "formats/json.h"

namespace llmq::formats {

enum class RopeScalingKind : uint8_t { kNone, kLinear, kDynamic, kYarn, kLlama3, kLongRope };

/// config.json's rope_scaling (or rope_parameters), whatever spelling it came in. Fields of other
/// kinds than `kind` keep their defaults.
struct RopeScaling {
  RopeScalingKind kind = RopeScalingKind::kNone;
  double factor = 1.0;  ///< ≥ 1
  /// Positions of the unscaled model; absent when the file does not say.
  std::optional<int64_t> original_max_position_embeddings;
  double low_freq_factor = 1.0;            ///< llama3
  double high_freq_factor = 4.0;           ///< llama3
  double beta_fast = 32.0;                 ///< yarn
  double beta_slow = 1.0;                  ///< yarn
  std::optional<double> attention_factor;  ///< yarn, longrope: overrides the formula
  std::optional<double> mscale;            ///< yarn (DeepSeek's keys)
  std::optional<double> mscale_all_dim;    ///< yarn (DeepSeek's keys)
  bool truncate = true;                    ///< yarn: whole-number correction range
  std::vector<double> short_factor;        ///< longrope, one per rotated pair
  std::vector<double> long_factor;         ///< longrope, one per rotated pair
};

/// What the tables, the runtime and the quantizer need of config.json, checked.
struct ModelConfig {
  std::string model_type;                  ///< "qwen2", "llama", ...
  std::vector<std::string> architectures;  ///< class names, may be empty

  int64_t hidden_size = 0;
  int64_t intermediate_size = 0;
  int64_t n_layers = 0;    ///< num_hidden_layers
  int64_t n_heads = 0;     ///< num_attention_heads
  int64_t n_kv_heads = 0;  ///< num_key_value_heads; n_heads where absent; divides n_heads
  int64_t head_dim = 0;    ///< hidden_size / n_heads where absent; even
  int64_t vocab_size = 0;
  int64_t max_position_embeddings = 0;

  double rms_norm_eps = 1e-6;
  double rope_theta = 10000.0;
  RopeScaling rope_scaling;
  double partial_rotary_factor = 1.0;

  bool tie_word_embeddings = false;
  /// False where config.json says that a token's attention reaches to later tokens too.
  bool is_causal = true;
  /// Tensors lack the "model." that names of the architecture table begin with, as embedding models
  /// are published. Not in config.json: has_bare_names of their checkpoint gives it.
  bool bare_names = false;
  /// Biases that config.json switches; absent where it does not say (the family decides).
  std::optional<bool> attention_bias;
  std::optional<bool> mlp_bias;

  /// Window in tokens; absent when attention is over all positions.
  std::optional<int64_t> sliding_window;
  /// First layer that uses the window (Qwen2: max_window_layers counts layers with full attention).
  int64_t first_window_layer = 0;
  /// Which layers use the window, of `layer_types`; empty where first_window_layer says it.
  std::vector<bool> window_layers;

  DType torch_dtype = DType::kF32;  ///< of `torch_dtype` or `dtype`; F32 where neither is given
  std::string hidden_act = "silu";

  // Mixture of experts; n_experts is 0 for a dense model.
  int64_t n_experts = 0;
  int64_t n_experts_per_token = 0;
  int64_t moe_intermediate_size = 0;
  int64_t shared_expert_intermediate_size = 0;
  bool norm_topk_prob = false;
  int64_t decoder_sparse_step = 1;
  std::vector<int64_t> mlp_only_layers;

  std::optional<int32_t> bos_token_id;
  std::vector<int32_t> eos_token_ids;

  /// `quantize` of a folder that llmq or msmodelslim wrote, for example "w8a16"; empty for float
  /// models.
  std::string quantize;

  /// Window of the attention of `layer` (0-based) in tokens, the token itself counted; 0 for
  /// attention over all positions.
  [[nodiscard]] int64_t window_of(int64_t layer) const;

  /// True for an embedding model, which gives hidden states: its names are bare, or its only class
  /// is that of a decoder alone ("Qwen2Model"). It need not have a head, and gets none.
  [[nodiscard]] bool may_lack_head() const;

  /// True when `layer` (0-based) has experts instead of one MLP.
  [[nodiscard]] bool is_moe_layer(int64_t layer) const;
};

/// Reads the typed part of a config.json document. `origin` names the file in errors. Throws
/// Error{kBadInput} naming the key that is missing, of the wrong type or out of range, and a
/// num_key_value_heads that does not divide the heads. Unknown keys are ignored.
ModelConfig parse_model_config(const Json& document, const std::string& origin);

/// parse_model_config of `path`, or of `path`/config.json when it is a folder.
ModelConfig read_model_config(const std::filesystem::path& path);

/// A copy of `document` with the keys of `changes` set (replaced in place, new ones appended) and
/// `removed` taken out; all other keys keep value and order.
Json rewrite_config(const Json& document, const Json& changes,
                    const std::vector<std::string>& removed);

}  // namespace llmq::formats
