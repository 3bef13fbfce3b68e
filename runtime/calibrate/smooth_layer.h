#pragma once

#include <string>
#include <vector>

#include "formats/dtype.h"
#include "formats/model_config.h"
#include "quant/channel_statistics.h"
#include "quant/kernels/thread_team.h"
#include "quant/rotation.h"
#include "quant/smooth.h"
#include "runtime/calibrate/layer_statistics.h"
#include "runtime/model/layer_draft.h"

namespace llmq::runtime {

/// Places of a layer between which scales are moved.
enum class Subgraph : uint8_t {
  kNormQkv,     ///< input norm → q, k, v
  kNormGateUp,  ///< post-attention norm → gate, up
  kVO,          ///< v → o (query heads that read one KV head share their scales)
  kUpDown       ///< up → down
};

/// "norm_qkv", "norm_gate_up", "v_o", "up_down".
std::string_view subgraph_name(Subgraph subgraph);

/// The group whose inputs a subgraph's consumers read.
formats::FusedGroup subgraph_group(Subgraph subgraph);

/// What was done to one subgraph.
struct SmoothReport {
  Subgraph subgraph = Subgraph::kNormQkv;
  quant::SmoothDecision decision;
};

/// Statistics of what the consumers of the subgraphs read.
using ChannelsByGroup = std::map<formats::FusedGroup, quant::ChannelStatistics>;

/// Smooths one subgraph of a layer (with one MLP, where the subgraph is part of it): decides by
/// `spec` and changes the draft, which computes the same afterwards up to float32 rounding. Norms
/// take scale and shift (their weights and biases are values of `dtype`, and the scale is what
/// their rounding left of it, so that writing them loses nothing); linear producers take the scale
/// alone (of a fused q, k, v: v's rows). Throws Error{kInternal} where statistics are missing.
SmoothReport smooth_subgraph(LayerDraft& draft, const formats::ModelConfig& config,
                             const ChannelsByGroup& inputs, Subgraph subgraph,
                             const quant::SmoothSpec& spec, formats::DType dtype,
                             quant::ThreadTeam& team);

/// Folds the gains (and biases) of both norms into the linears that read them; gains are 1 then.
void fold_gains(LayerDraft& draft);

/// Rotates the residual stream of a layer whose gains are folded: hidden states x become x·R; what
/// is added to them as well. Throws Error{kInternal} where R has other channels.
void rotate_layer(LayerDraft& draft, const quant::Rotation& rotation, quant::ThreadTeam& team);

}  // namespace llmq::runtime
