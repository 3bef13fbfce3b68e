#include "convert/calibration/layer_transformer.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "convert/pipeline/tensor_bytes.h"
#include "formats/architecture.h"
#include "formats/error.h"
#include "runtime/calibrate/smooth_layer.h"

namespace llmq::convert {
namespace {

using formats::Json;
using formats::Role;
using runtime::Subgraph;

/// Of the rotation's signs; any would do, the same one every time makes the same bytes.
constexpr uint64_t kRotationSeed = 240400456;

/// v → o and up → down come first: what they change, the norms' scales then see.
constexpr std::array<Subgraph, 4> kInOrder{Subgraph::kVO, Subgraph::kUpDown, Subgraph::kNormQkv,
                                           Subgraph::kNormGateUp};

/// Subgraphs that a method smooths unless the recipe names others.
bool is_default(std::string_view method, Subgraph subgraph) {
  const bool is_norm = subgraph == Subgraph::kNormQkv || subgraph == Subgraph::kNormGateUp;
  return is_norm || (method != "m1" && method != "m2");
}

bool is_quantized(const LedgerEntry& entry) {
  return std::any_of(entry.outputs.begin(), entry.outputs.end(), [](const OutputModule& output) {
    return output.rule.scheme != formats::Scheme::kFloat;
  });
}

std::optional<Role> find_role(const LedgerEntry& entry) {
  for (const Role role : {Role::kInputNorm, Role::kPostAttentionNorm, Role::kQ, Role::kK, Role::kV,
                          Role::kQkv, Role::kO, Role::kGate, Role::kUp, Role::kDown,
                          Role::kFinalNorm, Role::kHead, Role::kEmbedding}) {
    if (entry.role == formats::role_name(role)) return role;
  }
  return std::nullopt;
}

}  // namespace

struct LayerTransformer::State {
  State(const FolderPlan& folder_plan, quant::ThreadTeam& thread_team)
      : plan(folder_plan), team(thread_team) {
    if (!plan.recipe.rotate) return;
    rotation = quant::Rotation::hadamard(plan.config.hidden_size, kRotationSeed);
    const formats::Architecture& architecture = formats::architecture_of(plan.config);
    head_module = formats::module_path(formats::module_row(architecture, Role::kHead), -1);
    const formats::StoredTensor& gain = plan.source.at(
        formats::module_path(formats::module_row(architecture, Role::kFinalNorm), -1) + ".weight");
    final_gain = rounded_floats(gain.bytes, gain.dtype, formats::DType::kF32);
  }

  [[nodiscard]] bool wants(Subgraph subgraph, int64_t layer) const {
    if (!plan.recipe.smooth) return false;
    const auto& chosen = plan.recipe.smooth->subgraphs;
    const std::string name(runtime::subgraph_name(subgraph));
    const bool is_chosen = chosen.empty()
                               ? is_default(plan.recipe.smooth->method, subgraph)
                               : std::find(chosen.begin(), chosen.end(), name) != chosen.end();
    return is_chosen && reads_quantized(subgraph, layer);
  }

  /// Scales are moved for the sake of linears that are quantized; others keep their weights.
  [[nodiscard]] bool reads_quantized(Subgraph subgraph, int64_t layer) const {
    const auto& entries = plan.ledger.entries;
    return std::any_of(entries.begin(), entries.end(), [&](const LedgerEntry& entry) {
      return entry.layer == layer && entry.group == runtime::subgraph_group(subgraph) &&
             is_quantized(entry);
    });
  }

  [[nodiscard]] quant::SmoothSpec smooth_spec() const {
    const SmoothRecipe& smooth = *plan.recipe.smooth;
    const formats::SchemeRow& main = formats::scheme_row(plan.recipe.main_scheme());
    quant::SmoothSpec spec;
    spec.method = *quant::find_smooth_method(smooth.method);
    spec.alpha = smooth.alpha;
    spec.beta = smooth.beta;
    spec.n_bits = main.weight_bits;
    spec.group_size = plan.recipe.group_size();
    spec.rounds_inputs = main.activation_bits == 8;
    return spec;
  }

  /// Rows of the embedding, or of the head, which reads what the final norm has scaled: its gain
  /// goes into the head's columns first.
  void rotate_outer(const OutputModule& output, const quant::MatrixF32& rows) const {
    const bool is_head = output.tensors.front().name.starts_with(head_module);
    for (int64_t row = 0; row < rows.n_rows; ++row) {
      float* values = rows.data + row * rows.row_stride;
      for (size_t i = 0; is_head && i < final_gain.size(); ++i) values[i] *= final_gain[i];
      rotation.apply_row(values);
    }
  }

  const FolderPlan& plan;
  quant::ThreadTeam& team;
  quant::Rotation rotation;
  std::string head_module;
  std::vector<float> final_gain;
  runtime::LayerDraft draft;
  Json report = Json::array();
};

LayerTransformer::LayerTransformer(const FolderPlan& plan, quant::ThreadTeam& team)
    : state_(std::make_unique<State>(plan, team)) {}
LayerTransformer::~LayerTransformer() = default;

bool LayerTransformer::is_needed() const {
  return state_->plan.recipe.rotate || state_->plan.recipe.smooth.has_value();
}

std::function<void(const quant::MatrixF32& hidden)> LayerTransformer::change_of_hidden() const {
  if (!state_->plan.recipe.rotate) return {};
  return
      [this](const quant::MatrixF32& hidden) { state_->rotation.apply_rows(hidden, state_->team); };
}

void LayerTransformer::transform(const runtime::LayerWeights& weights,
                                 runtime::Calibrator& calibrator) {
  State& state = *state_;
  const int64_t layer = calibrator.next_layer() - 1;
  state.draft = runtime::LayerDraft(weights);
  state.report = Json::array();
  if (state.plan.recipe.rotate) {
    runtime::fold_gains(state.draft);
    runtime::rotate_layer(state.draft, state.rotation, state.team);
  }
  for (const Subgraph subgraph : kInOrder) {
    if (!state.wants(subgraph, layer)) continue;
    const formats::FusedGroup group = runtime::subgraph_group(subgraph);
    quant::ChannelObserver channels;
    runtime::LayerObserver observer;
    observer.linear_input = [&](const runtime::LinearInput& input) {
      if (input.group == group && input.expert < 0) channels.observe(input.x);
    };
    calibrator.look_back(state.draft.view(), observer, change_of_hidden());
    runtime::ChannelsByGroup inputs;
    inputs.emplace(group, channels.statistics());
    const runtime::SmoothReport done =
        runtime::smooth_subgraph(state.draft, state.plan.config, inputs, subgraph,
                                 state.smooth_spec(), state.plan.ledger.model_dtype, state.team);
    Json item = {{"layer", layer},
                 {"subgraph", runtime::subgraph_name(subgraph)},
                 {"method", state.plan.recipe.smooth->method},
                 {"alpha", done.decision.alpha},
                 {"beta", done.decision.beta}};
    if (done.decision.loss_before > 0) {
      item["ratio"] = done.decision.ratio;
      item["loss_before"] = done.decision.loss_before;
      item["loss_after"] = done.decision.loss_after;
    }
    state.report.push_back(std::move(item));
  }
}

runtime::LayerWeights LayerTransformer::view() const {
  return state_->draft.view();
}

void LayerTransformer::prepare_entry(const LedgerEntry& entry, EntryPreparation& preparation) {
  State& state = *state_;
  const std::optional<Role> role = find_role(entry);
  if (!role) return;
  const bool is_bias = entry.source->name.ends_with(".bias");
  // Scales of keys and values stand beside v_proj and share its role, but not its values.
  if (entry.fate == Fate::kAdded && !is_bias) return;
  if (entry.layer >= 0 && entry.expert < 0) {
    if (*role == Role::kInputNorm || *role == Role::kPostAttentionNorm) {
      if (const runtime::NormDraft* norm = state.draft.find_norm(*role))
        preparation.values = is_bias ? norm->bias : norm->weight;
    } else if (const runtime::LinearDraft* linear = state.draft.find_linear(*role)) {
      preparation.values = is_bias ? linear->bias : linear->weight;
    }
    return;
  }
  if (!state.plan.recipe.rotate || is_bias) return;
  if (*role == Role::kFinalNorm) {
    preparation.change_rows = [](const OutputModule& /*output*/, const quant::MatrixF32& rows) {
      std::fill_n(rows.data, rows.n_rows * rows.n_cols, 1.0F);
    };
  } else if (*role == Role::kEmbedding || *role == Role::kHead) {
    preparation.change_rows = [&state](const OutputModule& output, const quant::MatrixF32& rows) {
      state.rotate_outer(output, rows);
    };
  }
}

int64_t LayerTransformer::passes_per_layer() const {
  int64_t n = 2;
  for (const Subgraph subgraph : kInOrder) {
    for (int64_t layer = 0; layer < state_->plan.config.n_layers; ++layer) {
      if (!state_->wants(subgraph, layer)) continue;
      ++n;
      break;
    }
  }
  return n;
}

const Json& LayerTransformer::report() const {
  return state_->report;
}

}  // namespace llmq::convert
