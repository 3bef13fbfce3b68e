#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "formats/dtype.h"
#include "formats/model_config.h"

namespace llmq::formats {

/// What a tensor is for, independent of the family's names.
enum class Role : uint8_t {
  kEmbedding,
  kInputNorm,
  kQ,
  kK,
  kV,
  kQkv,  ///< q, k and v as one matrix: all rows of q, then of k, then of v
  kQNorm,
  kKNorm,
  kO,
  kPostAttentionNorm,
  kGate,
  kUp,
  kDown,
  kRouter,
  kExpertGate,
  kExpertUp,
  kExpertDown,
  kSharedExpertGate,
  kSharedExpertUp,
  kSharedExpertDown,
  kSharedExpertSwitch,
  kFinalNorm,
  kHead,
};

/// Linears of one layer that read the same activations and must be quantized alike, because engines
/// load them as one fused matrix (q,k,v; gate,up). kNone: not a linear that may be quantized.
enum class FusedGroup : uint8_t {
  kNone,
  kQkv,
  kAttentionOut,
  kGateUp,
  kDown,
  kExpertGateUp,
  kExpertDown,
  kSharedGateUp,
  kSharedDown,
  kHead
};

/// How a tensor [n, k] is cut for tensor parallelism.
enum class TpAxis : uint8_t {
  kReplicated,          ///< every rank holds all of it
  kColumnParallel,      ///< rows (outputs) are split
  kColumnByKvHead,      ///< rows are split by KV head, or heads replicated when ranks exceed them
  kColumnFusedQkv,      ///< rows of q, k and v stacked: each of the three is split like its own
  kRowParallel,         ///< columns (inputs) are split; the bias stays on rank 0
  kVocabularyParallel,  ///< embedding and head: rows by vocabulary, or hidden, as the engine has it
};

/// An extent of a tensor as a function of the model configuration.
enum class Extent : uint8_t {
  kOne,
  kHidden,
  kVocabulary,
  kQuery,     ///< n_heads · head_dim
  kKeyValue,  ///< n_kv_heads · head_dim
  kFusedQkv,  ///< (n_heads + 2 · n_kv_heads) · head_dim
  kHeadDim,
  kIntermediate,
  kExperts,
  kMoeIntermediate,
  kSharedIntermediate,
};

/// When a module of the table exists.
enum class Presence : uint8_t {
  kEveryLayer,
  kDenseLayer,    ///< only in layers with one MLP
  kMoeLayer,      ///< only in layers with experts
  kSharedExpert,  ///< only in layers with experts and a shared expert
};

/// Whether a linear has a bias vector.
enum class BiasRule : uint8_t {
  kNoBias,
  kBias,
  kAttentionFlag,  ///< config.attention_bias, none where it does not say
  kMlpFlag,        ///< config.mlp_bias, none where it does not say
};

/// One row of a family's table: a module with a `.weight` and perhaps a `.bias`.
struct ModuleRow {
  Role role;
  /// Module path; "{L}" stands for the layer, "{E}" for the expert. Rows without {L} exist once.
  std::string_view path;
  Extent n_out;  ///< rows of a matrix, or the length of a vector
  Extent n_in;   ///< columns; kOne for a vector
  BiasRule bias = BiasRule::kNoBias;
  FusedGroup group = FusedGroup::kNone;
  TpAxis tp = TpAxis::kReplicated;
  /// Role of the norm whose output this linear reads; its own role where no norm feeds it directly.
  std::optional<Role> fed_by = std::nullopt;
  Presence presence = Presence::kEveryLayer;
};

/// A family of models that share tensor names and graph.
struct Architecture {
  std::string_view family;                        ///< "qwen2", "qwen3", "llama", ...
  std::span<const std::string_view> model_types;  ///< values of config.json's model_type
  std::span<const ModuleRow> modules;             ///< in the order of execution and writing
};

/// A tensor that a checkpoint of a given configuration has by the table.
struct ExpectedTensor {
  std::string name;    ///< "model.layers.3.self_attn.q_proj.weight"
  std::string module;  ///< the name without ".weight" or ".bias"
  const ModuleRow* row = nullptr;
  bool is_bias = false;
  int64_t layer = -1;   ///< -1 outside the decoder layers
  int64_t expert = -1;  ///< -1 outside experts
  Shape shape;          ///< [n_out, n_in], or [n_out] for vectors and biases
  /// False for a head that may be absent because it is tied to the embedding or because the model
  /// is an embedding model, and for tensors that
  /// some exports leave out.
  bool is_required = true;
};

/// Every family known.
std::span<const Architecture> architectures();

/// The family of a configuration; where its names are bare, with paths that lack the "model.".
/// Throws Error{kBadInput} listing the known model types.
const Architecture& architecture_of(const ModelConfig& config);

/// Value of an extent for a configuration.
int64_t extent_of(Extent extent, const ModelConfig& config);

/// Module path with layer and expert put in; -1 where the row has none.
std::string module_path(const ModuleRow& row, int64_t layer, int64_t expert = -1);

/// All tensors of a configuration: embedding, layers in order, final norm, head.
std::vector<ExpectedTensor> expected_tensors(const Architecture& architecture,
                                             const ModelConfig& config);

/// The row of a role. Throws Error{kInternal} when the family has none.
const ModuleRow& module_row(const Architecture& architecture, Role role);

/// The row of a role, or null when the family has none.
const ModuleRow* find_module_row(const Architecture& architecture, Role role);

/// Whether modules of this row have a bias in this configuration.
bool has_bias(const ModuleRow& row, const ModelConfig& config);

/// "q", "gate", ...: for messages and reports.
std::string_view role_name(Role role);

/// "qkv", "attention_out", "gate_up", ...: the spelling of reports and statistics files.
std::string_view fused_group_name(FusedGroup group);

/// The group of a name that fused_group_name gives; nothing for another one.
std::optional<FusedGroup> find_fused_group(std::string_view name);

}  // namespace llmq::formats
