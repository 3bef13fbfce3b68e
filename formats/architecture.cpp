#include "formats/architecture.h"

#include <fmt/format.h>

#include <array>

#include "formats/error.h"

namespace llmq::formats {
namespace {

using enum Extent;
using enum BiasRule;
using enum TpAxis;
using enum Presence;
using R = Role;
using G = FusedGroup;

constexpr ModuleRow kEmbeddingRow{
    R::kEmbedding, "model.embed_tokens", kVocabulary, kHidden, kNoBias,
    G::kNone,      kVocabularyParallel};
constexpr ModuleRow kInputNormRow{R::kInputNorm, "model.layers.{L}.input_layernorm", kHidden, kOne};
constexpr ModuleRow kQNormRow{R::kQNorm, "model.layers.{L}.self_attn.q_norm", kHeadDim, kOne};
constexpr ModuleRow kKNormRow{R::kKNorm, "model.layers.{L}.self_attn.k_norm", kHeadDim, kOne};
constexpr ModuleRow kPostNormRow{R::kPostAttentionNorm, "model.layers.{L}.post_attention_layernorm",
                                 kHidden, kOne};
constexpr ModuleRow kFinalNormRow{R::kFinalNorm, "model.norm", kHidden, kOne};
constexpr ModuleRow kHeadRow{R::kHead, "lm_head", kVocabulary,         kHidden,
                             kNoBias,  G::kHead,  kVocabularyParallel, R::kFinalNorm};

constexpr ModuleRow kRouterRow{
    R::kRouter,  "model.layers.{L}.mlp.gate", kExperts, kHidden, kNoBias, G::kNone,
    kReplicated, R::kPostAttentionNorm,       kMoeLayer};
constexpr ModuleRow kExpertGateRow{R::kExpertGate,   "model.layers.{L}.mlp.experts.{E}.gate_proj",
                                   kMoeIntermediate, kHidden,
                                   kNoBias,          G::kExpertGateUp,
                                   kColumnParallel,  R::kPostAttentionNorm,
                                   kMoeLayer};
constexpr ModuleRow kExpertUpRow{R::kExpertUp,     "model.layers.{L}.mlp.experts.{E}.up_proj",
                                 kMoeIntermediate, kHidden,
                                 kNoBias,          G::kExpertGateUp,
                                 kColumnParallel,  R::kPostAttentionNorm,
                                 kMoeLayer};
constexpr ModuleRow kExpertDownRow{R::kExpertDown, "model.layers.{L}.mlp.experts.{E}.down_proj",
                                   kHidden,        kMoeIntermediate,
                                   kNoBias,        G::kExpertDown,
                                   kRowParallel,   std::nullopt,
                                   kMoeLayer};

constexpr ModuleRow q_row(BiasRule bias) {
  return {R::kQ,
          "model.layers.{L}.self_attn.q_proj",
          kQuery,
          kHidden,
          bias,
          G::kQkv,
          kColumnParallel,
          R::kInputNorm};
}
constexpr ModuleRow k_row(BiasRule bias) {
  return {R::kK,
          "model.layers.{L}.self_attn.k_proj",
          kKeyValue,
          kHidden,
          bias,
          G::kQkv,
          kColumnByKvHead,
          R::kInputNorm};
}
constexpr ModuleRow v_row(BiasRule bias) {
  return {R::kV,
          "model.layers.{L}.self_attn.v_proj",
          kKeyValue,
          kHidden,
          bias,
          G::kQkv,
          kColumnByKvHead,
          R::kInputNorm};
}
constexpr ModuleRow o_row(BiasRule bias) {
  return {R::kO,       "model.layers.{L}.self_attn.o_proj", kHidden, kQuery, bias, G::kAttentionOut,
          kRowParallel};
}
constexpr ModuleRow gate_row(BiasRule bias, Presence presence = kEveryLayer) {
  return {R::kGate,
          "model.layers.{L}.mlp.gate_proj",
          kIntermediate,
          kHidden,
          bias,
          G::kGateUp,
          kColumnParallel,
          R::kPostAttentionNorm,
          presence};
}
constexpr ModuleRow up_row(BiasRule bias, Presence presence = kEveryLayer) {
  return {R::kUp,          "model.layers.{L}.mlp.up_proj", kIntermediate, kHidden, bias, G::kGateUp,
          kColumnParallel, R::kPostAttentionNorm,          presence};
}
constexpr ModuleRow down_row(BiasRule bias, Presence presence = kEveryLayer) {
  return {R::kDown,     "model.layers.{L}.mlp.down_proj",
          kHidden,      kIntermediate,
          bias,         G::kDown,
          kRowParallel, std::nullopt,
          presence};
}

constexpr std::array<ModuleRow, 12> kLlamaModules{
    kEmbeddingRow,         kInputNormRow,         q_row(kAttentionFlag), k_row(kAttentionFlag),
    v_row(kAttentionFlag), o_row(kAttentionFlag), kPostNormRow,          gate_row(kMlpFlag),
    up_row(kMlpFlag),      down_row(kMlpFlag),    kFinalNormRow,         kHeadRow};

constexpr std::array<ModuleRow, 12> kQwen2Modules{
    kEmbeddingRow,   kInputNormRow,     q_row(kBias),  k_row(kBias),
    v_row(kBias),    o_row(kNoBias),    kPostNormRow,  gate_row(kNoBias),
    up_row(kNoBias), down_row(kNoBias), kFinalNormRow, kHeadRow};

constexpr std::array<ModuleRow, 14> kQwen3Modules{kEmbeddingRow,
                                                  kInputNormRow,
                                                  q_row(kAttentionFlag),
                                                  k_row(kAttentionFlag),
                                                  v_row(kAttentionFlag),
                                                  kQNormRow,
                                                  kKNormRow,
                                                  o_row(kAttentionFlag),
                                                  kPostNormRow,
                                                  gate_row(kNoBias),
                                                  up_row(kNoBias),
                                                  down_row(kNoBias),
                                                  kFinalNormRow,
                                                  kHeadRow};

constexpr std::array<ModuleRow, 18> kQwen3MoeModules{kEmbeddingRow,
                                                     kInputNormRow,
                                                     q_row(kAttentionFlag),
                                                     k_row(kAttentionFlag),
                                                     v_row(kAttentionFlag),
                                                     kQNormRow,
                                                     kKNormRow,
                                                     o_row(kAttentionFlag),
                                                     kPostNormRow,
                                                     gate_row(kNoBias, kDenseLayer),
                                                     up_row(kNoBias, kDenseLayer),
                                                     down_row(kNoBias, kDenseLayer),
                                                     kRouterRow,
                                                     kExpertGateRow,
                                                     kExpertUpRow,
                                                     kExpertDownRow,
                                                     kFinalNormRow,
                                                     kHeadRow};

constexpr std::array<ModuleRow, 20> kQwen2MoeModules{
    kEmbeddingRow,
    kInputNormRow,
    q_row(kBias),
    k_row(kBias),
    v_row(kBias),
    o_row(kNoBias),
    kPostNormRow,
    gate_row(kNoBias, kDenseLayer),
    up_row(kNoBias, kDenseLayer),
    down_row(kNoBias, kDenseLayer),
    kRouterRow,
    ModuleRow{R::kSharedExpertSwitch, "model.layers.{L}.mlp.shared_expert_gate", kOne, kHidden,
              kNoBias, G::kNone, kReplicated, R::kPostAttentionNorm, kSharedExpert},
    ModuleRow{R::kSharedExpertGate, "model.layers.{L}.mlp.shared_expert.gate_proj",
              kSharedIntermediate, kHidden, kNoBias, G::kSharedGateUp, kColumnParallel,
              R::kPostAttentionNorm, kSharedExpert},
    ModuleRow{R::kSharedExpertUp, "model.layers.{L}.mlp.shared_expert.up_proj", kSharedIntermediate,
              kHidden, kNoBias, G::kSharedGateUp, kColumnParallel, R::kPostAttentionNorm,
              kSharedExpert},
    ModuleRow{R::kSharedExpertDown, "model.layers.{L}.mlp.shared_expert.down_proj", kHidden,
              kSharedIntermediate, kNoBias, G::kSharedDown, kRowParallel, std::nullopt,
              kSharedExpert},
    kExpertGateRow,
    kExpertUpRow,
    kExpertDownRow,
    kFinalNormRow,
    kHeadRow};

// Its MLP is c_proj(w1(x) · SiLU(w2(x))): w2 is what others call the gate.
constexpr std::array<ModuleRow, 10> kQwenModules{
    ModuleRow{R::kEmbedding, "transformer.wte", kVocabulary, kHidden, kNoBias, G::kNone,
              kVocabularyParallel},
    ModuleRow{R::kInputNorm, "transformer.h.{L}.ln_1", kHidden, kOne},
    ModuleRow{R::kQkv, "transformer.h.{L}.attn.c_attn", kFusedQkv, kHidden, kBias, G::kQkv,
              kColumnFusedQkv, R::kInputNorm},
    ModuleRow{R::kO, "transformer.h.{L}.attn.c_proj", kHidden, kQuery, kAttentionFlag,
              G::kAttentionOut, kRowParallel},
    ModuleRow{R::kPostAttentionNorm, "transformer.h.{L}.ln_2", kHidden, kOne},
    ModuleRow{R::kGate, "transformer.h.{L}.mlp.w2", kIntermediate, kHidden, kMlpFlag, G::kGateUp,
              kColumnParallel, R::kPostAttentionNorm},
    ModuleRow{R::kUp, "transformer.h.{L}.mlp.w1", kIntermediate, kHidden, kMlpFlag, G::kGateUp,
              kColumnParallel, R::kPostAttentionNorm},
    ModuleRow{R::kDown, "transformer.h.{L}.mlp.c_proj", kHidden, kIntermediate, kMlpFlag, G::kDown,
              kRowParallel},
    ModuleRow{R::kFinalNorm, "transformer.ln_f", kHidden, kOne},
    kHeadRow};

// Derivatives that keep a family's decoder under another model_type stand beside it.
constexpr std::array<std::string_view, 3> kLlamaTypes{"llama", "mistral", "omni_speech_llama"};
constexpr std::array<std::string_view, 1> kQwen2Types{"qwen2"};
constexpr std::array<std::string_view, 1> kQwenTypes{"qwen"};
constexpr std::array<std::string_view, 1> kQwen2MoeTypes{"qwen2_moe"};
constexpr std::array<std::string_view, 1> kQwen3Types{"qwen3"};
constexpr std::array<std::string_view, 1> kQwen3MoeTypes{"qwen3_moe"};

constexpr std::array<Architecture, 6> kArchitectures{
    {{"llama", kLlamaTypes, kLlamaModules},
     {"qwen", kQwenTypes, kQwenModules},
     {"qwen2", kQwen2Types, kQwen2Modules},
     {"qwen2_moe", kQwen2MoeTypes, kQwen2MoeModules},
     {"qwen3", kQwen3Types, kQwen3Modules},
     {"qwen3_moe", kQwen3MoeTypes, kQwen3MoeModules}}};

constexpr std::string_view kModelPrefix = "model.";

template <size_t kSize>
constexpr std::array<ModuleRow, kSize> bare(std::array<ModuleRow, kSize> rows) {
  for (ModuleRow& row : rows) {
    if (row.path.starts_with(kModelPrefix)) row.path.remove_prefix(kModelPrefix.size());
  }
  return rows;
}
constexpr auto kBareLlamaModules = bare(kLlamaModules);
constexpr auto kBareQwen2Modules = bare(kQwen2Modules);
constexpr auto kBareQwen2MoeModules = bare(kQwen2MoeModules);
constexpr auto kBareQwen3Modules = bare(kQwen3Modules);
constexpr auto kBareQwen3MoeModules = bare(kQwen3MoeModules);

/// In the order of kArchitectures.
constexpr std::array<Architecture, 6> kBareArchitectures{
    {{"llama", kLlamaTypes, kBareLlamaModules},
     {"qwen", kQwenTypes, kQwenModules},
     {"qwen2", kQwen2Types, kBareQwen2Modules},
     {"qwen2_moe", kQwen2MoeTypes, kBareQwen2MoeModules},
     {"qwen3", kQwen3Types, kBareQwen3Modules},
     {"qwen3_moe", kQwen3MoeTypes, kBareQwen3MoeModules}}};

constexpr std::string_view kLayerMark = "{L}";
constexpr std::string_view kExpertMark = "{E}";

void replace_mark(std::string& path, std::string_view mark, int64_t number) {
  if (const size_t at = path.find(mark); at != std::string::npos) {
    path.replace(at, mark.size(), std::to_string(number));
  }
}

bool is_layer_row(const ModuleRow& row) {
  return row.path.find(kLayerMark) != std::string_view::npos;
}
bool is_expert_row(const ModuleRow& row) {
  return row.path.find(kExpertMark) != std::string_view::npos;
}

bool is_present(const ModuleRow& row, const ModelConfig& config, int64_t layer) {
  switch (row.presence) {
    case kEveryLayer:
      return true;
    case kDenseLayer:
      return !config.is_moe_layer(layer);
    case kMoeLayer:
      return config.is_moe_layer(layer);
    case kSharedExpert:
      return config.is_moe_layer(layer) && config.shared_expert_intermediate_size > 0;
  }
  return false;
}

void append_module(const ModuleRow& row, const ModelConfig& config, int64_t layer, int64_t expert,
                   std::vector<ExpectedTensor>& tensors) {
  ExpectedTensor weight;
  weight.module = module_path(row, layer, expert);
  weight.name = weight.module + ".weight";
  weight.row = &row;
  weight.layer = layer;
  weight.expert = expert;
  weight.shape = {extent_of(row.n_out, config)};
  if (row.n_in != kOne) weight.shape.push_back(extent_of(row.n_in, config));
  // A tied model stores the shared matrix under either name or both, an embedding model no head.
  const bool may_lack_head = config.may_lack_head();
  const bool is_shared = row.role == R::kHead || (row.role == R::kEmbedding && !may_lack_head);
  weight.is_required = !((config.tie_word_embeddings || may_lack_head) && is_shared);
  tensors.push_back(weight);
  if (!has_bias(row, config)) return;
  ExpectedTensor bias = weight;
  bias.name = bias.module + ".bias";
  bias.is_bias = true;
  bias.shape.resize(1);
  tensors.push_back(std::move(bias));
}

void append_layer(const Architecture& architecture, const ModelConfig& config, int64_t layer,
                  std::vector<ExpectedTensor>& tensors) {
  for (const ModuleRow& row : architecture.modules) {
    if (!is_layer_row(row) || is_expert_row(row) || !is_present(row, config, layer)) continue;
    append_module(row, config, layer, -1, tensors);
  }
  for (int64_t expert = 0; expert < config.n_experts; ++expert) {
    for (const ModuleRow& row : architecture.modules) {
      if (is_expert_row(row) && is_present(row, config, layer))
        append_module(row, config, layer, expert, tensors);
    }
  }
}

}  // namespace

std::span<const Architecture> architectures() {
  return kArchitectures;
}

const Architecture& architecture_of(const ModelConfig& config) {
  std::string known;
  for (const Architecture& architecture : config.bare_names ? kBareArchitectures : kArchitectures) {
    for (const std::string_view type : architecture.model_types) {
      if (type == config.model_type) return architecture;
      known += fmt::format("{}{}", known.empty() ? "" : ", ", type);
    }
  }
  throw bad_input(
      fmt::format("unknown architecture: model_type \"{}\" of config.json is not one of {}",
                  config.model_type, known));
}

int64_t extent_of(Extent extent, const ModelConfig& config) {
  switch (extent) {
    case kOne:
      return 1;
    case kHidden:
      return config.hidden_size;
    case kVocabulary:
      return config.vocab_size;
    case kQuery:
      return config.n_heads * config.head_dim;
    case kKeyValue:
      return config.n_kv_heads * config.head_dim;
    case kFusedQkv:
      return (config.n_heads + 2 * config.n_kv_heads) * config.head_dim;
    case kHeadDim:
      return config.head_dim;
    case kIntermediate:
      return config.intermediate_size;
    case kExperts:
      return config.n_experts;
    case kMoeIntermediate:
      return config.moe_intermediate_size;
    case kSharedIntermediate:
      return config.shared_expert_intermediate_size;
  }
  throw Error(ErrorCode::kInternal, "unknown extent");
}

std::string module_path(const ModuleRow& row, int64_t layer, int64_t expert) {
  std::string path(row.path);
  replace_mark(path, kLayerMark, layer);
  replace_mark(path, kExpertMark, expert);
  return path;
}

std::vector<ExpectedTensor> expected_tensors(const Architecture& architecture,
                                             const ModelConfig& config) {
  std::vector<ExpectedTensor> tensors;
  bool layers_done = false;
  for (const ModuleRow& row : architecture.modules) {
    if (!is_layer_row(row)) {
      append_module(row, config, -1, -1, tensors);
    } else if (!layers_done) {
      layers_done = true;
      for (int64_t layer = 0; layer < config.n_layers; ++layer)
        append_layer(architecture, config, layer, tensors);
    }
  }
  return tensors;
}

const ModuleRow* find_module_row(const Architecture& architecture, Role role) {
  for (const ModuleRow& row : architecture.modules) {
    if (row.role == role) return &row;
  }
  return nullptr;
}

const ModuleRow& module_row(const Architecture& architecture, Role role) {
  if (const ModuleRow* row = find_module_row(architecture, role)) return *row;
  throw Error(ErrorCode::kInternal,
              fmt::format("family {} has no {}", architecture.family, role_name(role)));
}

bool has_bias(const ModuleRow& row, const ModelConfig& config) {
  switch (row.bias) {
    case kNoBias:
      return false;
    case kBias:
      return true;
    case kAttentionFlag:
      return config.attention_bias.value_or(false);
    case kMlpFlag:
      return config.mlp_bias.value_or(false);
  }
  return false;
}

std::string_view role_name(Role role) {
  static constexpr std::array<std::string_view, 23> kNames{
      "embedding",     "input norm",  "q",           "k",         "v",
      "qkv",           "q norm",      "k norm",      "o",         "post-attention norm",
      "gate",          "up",          "down",        "router",    "expert gate",
      "expert up",     "expert down", "shared gate", "shared up", "shared down",
      "shared switch", "final norm",  "head"};
  return kNames.at(static_cast<size_t>(role));
}

namespace {

constexpr std::array<std::string_view, 10> kFusedGroupNames{
    "none",           "qkv",         "attention_out",  "gate_up",     "down",
    "expert_gate_up", "expert_down", "shared_gate_up", "shared_down", "head"};

}  // namespace

std::string_view fused_group_name(FusedGroup group) {
  return kFusedGroupNames.at(static_cast<size_t>(group));
}

std::optional<FusedGroup> find_fused_group(std::string_view name) {
  for (size_t i = 0; i < kFusedGroupNames.size(); ++i) {
    if (kFusedGroupNames[i] == name) return static_cast<FusedGroup>(i);
  }
  return std::nullopt;
}

}  // namespace llmq::formats
