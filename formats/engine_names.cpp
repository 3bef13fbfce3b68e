#include "formats/engine_names.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <utility>

#include "formats/error.h"

namespace llmq::formats {
namespace {

using R = Role;
using Paths = std::string_view;

constexpr std::array<Role, 1> kEmbedding{R::kEmbedding};
constexpr std::array<Role, 1> kInputNorm{R::kInputNorm};
constexpr std::array<Role, 3> kSeparateQkv{R::kQ, R::kK, R::kV};
constexpr std::array<Role, 1> kStackedQkv{R::kQkv};
constexpr std::array<Role, 1> kQNorm{R::kQNorm};
constexpr std::array<Role, 1> kKNorm{R::kKNorm};
constexpr std::array<Role, 1> kO{R::kO};
constexpr std::array<Role, 1> kPostNorm{R::kPostAttentionNorm};
constexpr std::array<Role, 2> kGateUp{R::kGate, R::kUp};
constexpr std::array<Role, 1> kDown{R::kDown};
constexpr std::array<Role, 2> kExpertGateUp{R::kExpertGate, R::kExpertUp};
constexpr std::array<Role, 1> kExpertDown{R::kExpertDown};
constexpr std::array<Role, 2> kSharedGateUp{R::kSharedExpertGate, R::kSharedExpertUp};
constexpr std::array<Role, 1> kFinalNorm{R::kFinalNorm};

// MindIE, Qwen models.
constexpr std::array<Paths, 3> kGptQkvAlone{"transformer.h.{L}.attn.q_proj",
                                            "transformer.h.{L}.attn.k_proj",
                                            "transformer.h.{L}.attn.v_proj"};
constexpr std::array<Paths, 2> kGptGateUpAlone{"transformer.h.{L}.mlp.w2",
                                               "transformer.h.{L}.mlp.w1"};
constexpr std::array<EngineRow, 11> kGptModules{
    {{kEmbedding, "transformer.wte"},
     {kInputNorm, "transformer.h.{L}.ln_1"},
     {kSeparateQkv, "transformer.h.{L}.attn.c_attn", kGptQkvAlone},
     {kStackedQkv, "transformer.h.{L}.attn.c_attn"},
     {kQNorm, "transformer.h.{L}.attn.q_norm"},
     {kKNorm, "transformer.h.{L}.attn.k_norm"},
     {kO, "transformer.h.{L}.attn.c_proj"},
     {kPostNorm, "transformer.h.{L}.ln_2"},
     {kGateUp, "transformer.h.{L}.mlp.w2_w1", kGptGateUpAlone},
     {kDown, "transformer.h.{L}.mlp.c_proj"},
     {kFinalNorm, "transformer.ln_f"}}};
constexpr std::array<EngineAttentionRow, 5> kGptAttention{
    {{Scheme::kC8, AttentionOperand::kKey, "transformer.h.{L}.attn.c_attn.k_proj.kv_cache_scale",
      "transformer.h.{L}.attn.c_attn.k_proj.kv_cache_offset"},
     {Scheme::kC8, AttentionOperand::kValue, "transformer.h.{L}.attn.c_attn.v_proj.kv_cache_scale",
      "transformer.h.{L}.attn.c_attn.v_proj.kv_cache_offset"},
     {Scheme::kFaQuant, AttentionOperand::kQuery, "transformer.h.{L}.attn.fa_q.scale",
      "transformer.h.{L}.attn.fa_q.offset"},
     {Scheme::kFaQuant, AttentionOperand::kKey, "transformer.h.{L}.attn.fa_k.scale",
      "transformer.h.{L}.attn.fa_k.offset"},
     {Scheme::kFaQuant, AttentionOperand::kValue, "transformer.h.{L}.attn.fa_v.scale",
      "transformer.h.{L}.attn.fa_v.offset"}}};

// MindIE, models that keep their own names but for what is fused.
constexpr std::array<Paths, 3> kQkvAlone{"model.layers.{L}.self_attn.q_proj",
                                         "model.layers.{L}.self_attn.k_proj",
                                         "model.layers.{L}.self_attn.v_proj"};
constexpr std::array<Paths, 2> kGateUpAlone{"model.layers.{L}.mlp.gate_proj",
                                            "model.layers.{L}.mlp.up_proj"};
constexpr std::array<Paths, 2> kExpertGateUpAlone{"model.layers.{L}.mlp.experts.{E}.gate_proj",
                                                  "model.layers.{L}.mlp.experts.{E}.up_proj"};
constexpr std::array<Paths, 2> kSharedGateUpAlone{"model.layers.{L}.mlp.shared_expert.gate_proj",
                                                  "model.layers.{L}.mlp.shared_expert.up_proj"};
constexpr std::array<EngineRow, 4> kLlamaModules{
    {{kSeparateQkv, "model.layers.{L}.self_attn.query_key_value", kQkvAlone},
     {kGateUp, "model.layers.{L}.mlp.gate_up_proj", kGateUpAlone},
     {kExpertGateUp, "model.layers.{L}.mlp.experts.{E}.gate_up_proj", kExpertGateUpAlone},
     {kSharedGateUp, "model.layers.{L}.mlp.shared_expert.gate_up_proj", kSharedGateUpAlone}}};
constexpr std::array<EngineAttentionRow, 2> kLlamaAttention{
    {{Scheme::kC8, AttentionOperand::kKey,
      "model.layers.{L}.self_attn.query_key_value.k_proj.kv_cache_scale",
      "model.layers.{L}.self_attn.query_key_value.k_proj.kv_cache_offset"},
     {Scheme::kC8, AttentionOperand::kValue,
      "model.layers.{L}.self_attn.query_key_value.v_proj.kv_cache_scale",
      "model.layers.{L}.self_attn.query_key_value.v_proj.kv_cache_offset"}}};

// vLLM.
constexpr std::array<EngineRow, 5> kVllmModules{
    {{kSeparateQkv, "model.layers.{L}.self_attn.qkv_proj"},
     {kGateUp, "model.layers.{L}.mlp.gate_up_proj"},
     {kExpertGateUp, "model.layers.{L}.mlp.experts.w13", {}, true},
     {kExpertDown, "model.layers.{L}.mlp.experts.w2", {}, true},
     {kSharedGateUp, "model.layers.{L}.mlp.shared_expert.gate_up_proj"}}};
constexpr std::array<EngineRow, 1> kVllmQwenModules{
    {{kGateUp, "transformer.h.{L}.mlp.gate_up_proj"}}};
constexpr std::array<EngineAttentionRow, 2> kVllmAttention{
    {{Scheme::kC8, AttentionOperand::kKey, "model.layers.{L}.self_attn.attn.k_cache_scale",
      "model.layers.{L}.self_attn.attn.k_cache_offset"},
     {Scheme::kC8, AttentionOperand::kValue, "model.layers.{L}.self_attn.attn.v_cache_scale",
      "model.layers.{L}.self_attn.attn.v_cache_offset"}}};

constexpr std::array<std::string_view, 3> kGptFamilies{"qwen", "qwen2", "qwen3"};
constexpr std::array<std::string_view, 3> kLlamaFamilies{"llama", "qwen2_moe", "qwen3_moe"};
constexpr std::array<std::string_view, 5> kVllmFamilies{"llama", "qwen2", "qwen2_moe", "qwen3",
                                                        "qwen3_moe"};
constexpr std::array<std::string_view, 1> kQwenFamilies{"qwen"};

constexpr std::array<EngineStyle, 4> kStyles{
    {{ShardLayout::kMindie, kGptFamilies, kGptModules, kGptAttention},
     {ShardLayout::kMindie, kLlamaFamilies, kLlamaModules, kLlamaAttention},
     {ShardLayout::kVllm, kVllmFamilies, kVllmModules, kVllmAttention},
     {ShardLayout::kVllm, kQwenFamilies, kVllmQwenModules, {}}}};

constexpr std::array<std::pair<ShardLayout, std::string_view>, 3> kLayoutNames{
    {{ShardLayout::kHf, "hf"}, {ShardLayout::kMindie, "mindie"}, {ShardLayout::kVllm, "vllm"}}};

/// What wrapped norms are called where engines have both: the one that runs.
constexpr std::string_view kWrapped = ".module";
constexpr std::string_view kWrappedInGpt = ".anti";

const EngineStyle* find_style(ShardLayout layout, std::string_view family) {
  for (const EngineStyle& style : kStyles) {
    const bool has_family =
        std::find(style.families.begin(), style.families.end(), family) != style.families.end();
    if (style.layout == layout && has_family) return &style;
  }
  return nullptr;
}

std::string with_numbers(std::string_view path, int64_t layer, int64_t expert) {
  ModuleRow row{Role::kQ, path, Extent::kOne, Extent::kOne};
  return module_path(row, layer, expert);
}

}  // namespace

std::string_view shard_layout_name(ShardLayout layout) {
  return kLayoutNames.at(static_cast<size_t>(layout)).second;
}

ShardLayout parse_shard_layout(std::string_view name) {
  std::string known;
  for (const auto& [layout, layout_name] : kLayoutNames) {
    if (layout_name == name) return layout;
    known += fmt::format("{}{}", known.empty() ? "" : ", ", layout_name);
  }
  throw bad_input(fmt::format("unknown layout \"{}\"; known are {}", name, known));
}

std::span<const EngineStyle> engine_styles() {
  return kStyles;
}

EngineNames::EngineNames(ShardLayout layout, const ModelConfig& config) : config_(config) {
  const EngineStyle* style = find_style(layout, architecture_of(config).family);
  if (style == nullptr) return;
  add_modules(*style);
  add_attention(*style);
}

void EngineNames::add_modules(const EngineStyle& style) {
  for (const ExpectedTensor& tensor : expected_tensors(architecture_of(config_), config_)) {
    if (tensor.is_bias) continue;
    for (const EngineRow& row : style.modules) {
      const auto it = std::find(row.members.begin(), row.members.end(), tensor.row->role);
      if (it == row.members.end()) continue;
      const auto place = static_cast<size_t>(it - row.members.begin());
      modules_[tensor.module] = {&row, place, tensor.layer, tensor.expert,
                                 tensor.row->n_in == Extent::kOne};
    }
  }
}

void EngineNames::add_attention(const EngineStyle& style) {
  for (const EngineAttentionRow& row : style.attention) {
    for (int64_t layer = 0; layer < config_.n_layers; ++layer) {
      for (const AttentionTensor& tensor :
           attention_tensors(config_, row.scheme, layer, DType::kBF16)) {
        if (tensor.operand != row.operand) continue;
        attention_[tensor.name] = with_numbers(tensor.is_scale ? row.scale : row.offset, layer, -1);
      }
    }
  }
}

EngineName EngineNames::name_in(const Module& module, std::string_view suffix) const {
  const EngineRow& row = *module.row;
  EngineName name;
  name.stacks_experts = row.stacks_experts;
  name.stored = with_numbers(row.path, module.layer, module.expert);
  name.stored += row.stacks_experts ? fmt::format("_{}", suffix.substr(1)) : std::string(suffix);
  if (row.members.size() == 1 && !row.stacks_experts) {
    name.alone = name.stored;
  } else if (!row.alone.empty()) {
    name.alone = with_numbers(row.alone[module.place], module.layer, module.expert);
    name.alone += suffix;
  }
  const Architecture& architecture = architecture_of(config_);
  const int64_t first = row.stacks_experts ? 0 : module.expert;
  const int64_t last = row.stacks_experts ? config_.n_experts - 1 : module.expert;
  for (int64_t expert = first; expert <= last; ++expert) {
    for (const Role role : row.members) {
      if (expert == module.expert && role == row.members[module.place])
        name.place = name.members.size();
      name.members.push_back(
          module_path(module_row(architecture, role), module.layer, expert).append(suffix));
    }
  }
  return name;
}

EngineName EngineNames::find(std::string_view tensor) const {
  if (const auto it = attention_.find(tensor); it != attention_.end())
    return {it->second, {std::string(tensor)}, 0, it->second, false};
  const size_t dot = std::min(tensor.rfind('.'), tensor.size());
  std::string_view module = tensor.substr(0, dot);
  const std::string_view suffix = tensor.substr(dot);
  if (const auto it = modules_.find(module); it != modules_.end())
    return name_in(it->second, suffix);
  if (module.ends_with(kWrapped)) {
    module.remove_suffix(kWrapped.size());
    const auto it = modules_.find(module);
    if (it != modules_.end() && it->second.is_norm) {
      EngineName name = name_in(it->second, fmt::format("{}{}", kWrappedInGpt, suffix));
      name.members = {std::string(tensor)};
      return name;
    }
  }
  return {std::string(tensor), {std::string(tensor)}, 0, std::string(tensor), false};
}

}  // namespace llmq::formats
