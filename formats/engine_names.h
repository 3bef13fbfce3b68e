#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "formats/architecture.h"
#include "formats/attention_tensors.h"
#include "formats/model_config.h"

namespace llmq::formats {

/// Whose names and files the shards of a model have.
enum class ShardLayout : uint8_t {
  kHf,      ///< rank-{r}/, with the files and names of the unsharded model
  kMindie,  ///< part{r}-of-{tp}/, q,k,v and gate,up fused; GPT-2 style names for Qwen models
  kVllm,    ///< one folder, model-rank-{r}-part-0.safetensors; q,k,v and gate,up fused
};

/// "hf", "mindie" or "vllm".
std::string_view shard_layout_name(ShardLayout layout);

/// Inverse of shard_layout_name. Throws Error{kBadInput} listing the known layouts.
ShardLayout parse_shard_layout(std::string_view name);

/// A module that an engine stores: the rows of its members, one below the other.
struct EngineRow {
  /// Of the architecture table, in the order of their rows.
  std::span<const Role> members;
  /// "{L}" stands for the layer, "{E}" for the expert.
  std::string_view path;
  /// Paths of the members where their schemes differ, so that they cannot be one matrix; empty
  /// where the engine has no such thing.
  std::span<const std::string_view> alone = {};
  /// One tensor holds the members of all experts, those of expert 0 first, with an extent for the
  /// experts before the others; "_" instead of "." stands before "weight".
  bool stacks_experts = false;
};

/// What an engine calls the scales and offsets of attention (C8, FAQuant).
struct EngineAttentionRow {
  Scheme scheme;
  AttentionOperand operand;
  std::string_view scale;
  std::string_view offset;
};

/// The names of an engine for some families.
struct EngineStyle {
  ShardLayout layout;
  std::span<const std::string_view> families;  ///< of Architecture::family
  std::span<const EngineRow> modules;          ///< what is not here keeps its name
  std::span<const EngineAttentionRow> attention;
};

/// Every style known; a layout without one for a family (kHf) has the names of the model.
std::span<const EngineStyle> engine_styles();

/// What a tensor of a model becomes in an engine's files.
struct EngineName {
  std::string stored;                ///< "transformer.h.3.attn.c_attn.weight"
  std::vector<std::string> members;  ///< tensors of the model that it holds, in order of their rows
  size_t place = 0;                  ///< of the tensor asked for, in `members`
  /// What it is called where the members cannot be one matrix; empty: the engine cannot load that.
  std::string alone;
  bool stacks_experts = false;

  [[nodiscard]] bool is_fused() const { return members.size() > 1; }
};

/// Names of the tensors of one model in the files of one engine. Immutable and thread-safe.
///
/// Members of a fused module that have one value for all their inputs (input_scale, input_offset)
/// must have the same, and share one stored copy.
class EngineNames {
 public:
  EngineNames(ShardLayout layout, const ModelConfig& config);

  /// The name of a tensor, whatever stands behind its module ("….q_proj.weight_scale" belongs to
  /// q_proj). A tensor that no table knows keeps its name, as a module of its own.
  [[nodiscard]] EngineName find(std::string_view tensor) const;

 private:
  struct Module {
    const EngineRow* row = nullptr;
    size_t place = 0;      ///< within the row's members
    int64_t layer = -1;    ///< -1 outside the decoder layers
    int64_t expert = -1;   ///< -1 outside experts
    bool is_norm = false;  ///< a vector, which tools may wrap
  };
  [[nodiscard]] EngineName name_in(const Module& module, std::string_view suffix) const;
  void add_modules(const EngineStyle& style);
  void add_attention(const EngineStyle& style);

  ModelConfig config_;
  std::map<std::string, Module, std::less<>> modules_;
  std::map<std::string, std::string, std::less<>> attention_;
};

}  // namespace llmq::formats
