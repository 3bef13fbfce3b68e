#include "runtime/calibrate/smooth_layer.h"

#include <array>
#include <cmath>
#include <span>
#include <utility>

#include "formats/error.h"
#include "formats/float16.h"

namespace llmq::runtime {
namespace {

using formats::DType;
using formats::FusedGroup;
using formats::Role;
using quant::MatrixF32;

struct SubgraphRow {
  Subgraph subgraph;
  std::string_view name;
  FusedGroup group;
  Role producer;
  std::array<Role, 3> consumers;
  size_t n_consumers;
};

constexpr std::array<SubgraphRow, 4> kSubgraphs{{
    {Subgraph::kNormQkv,
     "norm_qkv",
     FusedGroup::kQkv,
     Role::kInputNorm,
     {Role::kQ, Role::kK, Role::kV},
     3},
    {Subgraph::kNormGateUp,
     "norm_gate_up",
     FusedGroup::kGateUp,
     Role::kPostAttentionNorm,
     {Role::kGate, Role::kUp, Role::kUp},
     2},
    {Subgraph::kVO, "v_o", FusedGroup::kAttentionOut, Role::kV, {Role::kO, Role::kO, Role::kO}, 1},
    {Subgraph::kUpDown,
     "up_down",
     FusedGroup::kDown,
     Role::kUp,
     {Role::kDown, Role::kDown, Role::kDown},
     1},
}};

const SubgraphRow& row_of(Subgraph subgraph) {
  return kSubgraphs.at(static_cast<size_t>(subgraph));
}

LinearDraft& require_linear(LayerDraft& draft, Role role) {
  if (LinearDraft* linear = draft.linear(role)) return *linear;
  throw formats::Error(formats::ErrorCode::kInternal,
                       "a layer without " + std::string(formats::role_name(role)));
}

std::vector<LinearDraft*> consumers_of(LayerDraft& draft, const SubgraphRow& row) {
  if (row.subgraph == Subgraph::kNormQkv) {
    if (LinearDraft* fused = draft.linear(Role::kQkv)) return {fused};
  }
  std::vector<LinearDraft*> consumers;
  for (size_t i = 0; i < row.n_consumers; ++i)
    consumers.push_back(&require_linear(draft, row.consumers.at(i)));
  return consumers;
}

/// Query head h reads KV head h / group: their lanes share scales.
std::vector<int64_t> tied_lanes(const formats::ModelConfig& config) {
  std::vector<int64_t> tied;
  const int64_t group = config.n_heads / config.n_kv_heads;
  for (int64_t head = 0; head < config.n_heads; ++head) {
    for (int64_t lane = 0; lane < config.head_dim; ++lane)
      tied.push_back(head / group * config.head_dim + lane);
  }
  return tied;
}

float rounded(float value, DType dtype) {
  if (dtype == DType::kBF16) return formats::bf16_to_float(formats::float_to_bf16(value));
  if (dtype == DType::kF16) return formats::fp16_to_float(formats::float_to_fp16(value));
  return value;
}

/// Takes the scale out of a norm and leaves in `scale` and `shift` exactly what its rounded weights
/// and biases stand for.
void divide_norm(NormDraft& norm, quant::SmoothDecision& decision, DType dtype) {
  for (size_t i = 0; i < norm.weight.size(); ++i) {
    const float weight = rounded(norm.weight[i] / decision.scale[i], dtype);
    // A gain of zero, or one that the dtype cannot hold, stays as it is.
    if (weight == 0.0F || !std::isfinite(weight)) {
      decision.scale[i] = 1.0F;
      continue;
    }
    decision.scale[i] = norm.weight[i] / weight;
    norm.weight[i] = weight;
  }
  if (decision.shift.empty() && norm.bias.empty()) return;
  norm.bias.resize(norm.weight.size(), 0.0F);
  decision.shift.resize(norm.weight.size(), 0.0F);
  for (size_t i = 0; i < norm.bias.size(); ++i) {
    const float before = norm.bias[i];
    norm.bias[i] = rounded((before - decision.shift[i]) / decision.scale[i], dtype);
    decision.shift[i] = before - norm.bias[i] * decision.scale[i];
  }
}

void multiply_consumer(LinearDraft& linear, const quant::SmoothDecision& decision) {
  const auto n_in = static_cast<size_t>(linear.n_in);
  if (!decision.shift.empty()) linear.bias.resize(static_cast<size_t>(linear.n_out), 0.0F);
  for (size_t row = 0; row < static_cast<size_t>(linear.n_out); ++row) {
    float* weight = linear.weight.data() + row * n_in;
    if (!decision.shift.empty()) {
      double sum = 0.0;
      for (size_t i = 0; i < n_in; ++i) sum += static_cast<double>(weight[i]) * decision.shift[i];
      linear.bias[row] = static_cast<float>(linear.bias[row] + sum);
    }
    for (size_t i = 0; i < n_in; ++i) weight[i] *= decision.scale[i];
  }
}

/// Rows of a linear whose outputs a subgraph scales.
struct Producer {
  LinearDraft& linear;
  size_t first_row;
};

Producer producer_of(LayerDraft& draft, const formats::ModelConfig& config,
                     const SubgraphRow& row) {
  if (row.subgraph == Subgraph::kVO) {
    if (LinearDraft* fused = draft.linear(Role::kQkv))
      return {*fused, static_cast<size_t>((config.n_heads + config.n_kv_heads) * config.head_dim)};
  }
  return {require_linear(draft, row.producer), 0};
}

/// One scale a row, from the producer's first row on.
void divide_rows(const Producer& producer, std::span<const float> scale) {
  LinearDraft& linear = producer.linear;
  const auto n_in = static_cast<size_t>(linear.n_in);
  for (size_t i = 0; i < scale.size(); ++i) {
    const size_t row = producer.first_row + i;
    for (size_t col = 0; col < n_in; ++col) linear.weight[row * n_in + col] /= scale[i];
    if (!linear.bias.empty()) linear.bias[row] /= scale[i];
  }
}

/// Scales of o's input lanes, one per lane of v.
std::vector<float> scales_of_values(const std::vector<float>& scale,
                                    const std::vector<int64_t>& tied, int64_t n_lanes) {
  std::vector<float> result(static_cast<size_t>(n_lanes), 1.0F);
  for (size_t i = 0; i < tied.size(); ++i) result[static_cast<size_t>(tied[i])] = scale[i];
  return result;
}

MatrixF32 matrix(LinearDraft& linear) {
  return {linear.weight.data(), linear.n_out, linear.n_in, linear.n_in};
}

void fold_norm(NormDraft& norm, LayerDraft& draft, std::span<const Role> readers) {
  quant::SmoothDecision fold;
  fold.scale = norm.weight;
  fold.shift = norm.bias;
  for (const Role role : readers) {
    LinearDraft* linear = draft.linear(role);
    if (linear == nullptr) continue;
    // The bias is added behind the gain, and multiply_consumer takes it before it scales columns.
    multiply_consumer(*linear, fold);
  }
  norm.weight.assign(norm.weight.size(), 1.0F);
  norm.bias.clear();
}

/// y ← y·R for what a linear gives: its columns, taken as rows, are rotated.
void rotate_outputs(LinearDraft& linear, const quant::Rotation& rotation, quant::ThreadTeam& team) {
  const auto n_in = static_cast<size_t>(linear.n_in);
  const auto n_out = static_cast<size_t>(linear.n_out);
  std::vector<float> transposed(linear.weight.size());
  for (size_t row = 0; row < n_out; ++row) {
    for (size_t i = 0; i < n_in; ++i) transposed[i * n_out + row] = linear.weight[row * n_in + i];
  }
  rotation.apply_rows({transposed.data(), linear.n_in, linear.n_out, linear.n_out}, team);
  for (size_t row = 0; row < n_out; ++row) {
    for (size_t i = 0; i < n_in; ++i) linear.weight[row * n_in + i] = transposed[i * n_out + row];
  }
  if (!linear.bias.empty()) rotation.apply_row(linear.bias.data());
}

}  // namespace

std::string_view subgraph_name(Subgraph subgraph) {
  return row_of(subgraph).name;
}

FusedGroup subgraph_group(Subgraph subgraph) {
  return row_of(subgraph).group;
}

SmoothReport smooth_subgraph(LayerDraft& draft, const formats::ModelConfig& config,
                             const ChannelsByGroup& inputs, Subgraph subgraph,
                             const quant::SmoothSpec& spec, DType dtype, quant::ThreadTeam& team) {
  const SubgraphRow& row = row_of(subgraph);
  const auto seen = inputs.find(row.group);
  if (seen == inputs.end()) {
    throw formats::Error(formats::ErrorCode::kInternal,
                         "no statistics for smoothing " + std::string(row.name));
  }
  const std::vector<LinearDraft*> consumers = consumers_of(draft, row);
  quant::SmoothSubject subject;
  subject.inputs = &seen->second;
  for (const LinearDraft* linear : consumers) {
    subject.consumers.push_back({linear->weight.data(), linear->n_out, linear->n_in, linear->n_in});
  }
  if (subgraph == Subgraph::kVO) subject.tied = tied_lanes(config);
  const bool is_norm = subgraph == Subgraph::kNormQkv || subgraph == Subgraph::kNormGateUp;
  quant::SmoothSpec own = spec;
  if (!is_norm && own.method == quant::SmoothMethod::kM2) own.method = quant::SmoothMethod::kM1;
  SmoothReport report{subgraph, quant::choose_smoothing(subject, own, team)};
  if (is_norm) {
    divide_norm(draft.norm(row.producer), report.decision, dtype);
  } else {
    divide_rows(producer_of(draft, config, row),
                subgraph == Subgraph::kVO ? scales_of_values(report.decision.scale, subject.tied,
                                                             config.n_kv_heads * config.head_dim)
                                          : report.decision.scale);
  }
  for (LinearDraft* linear : consumers) multiply_consumer(*linear, report.decision);
  return report;
}

void fold_gains(LayerDraft& draft) {
  constexpr std::array<Role, 4> kAttention{Role::kQ, Role::kK, Role::kV, Role::kQkv};
  constexpr std::array<Role, 2> kMlp{Role::kGate, Role::kUp};
  fold_norm(draft.norm(Role::kInputNorm), draft, kAttention);
  fold_norm(draft.norm(Role::kPostAttentionNorm), draft, kMlp);
}

void rotate_layer(LayerDraft& draft, const quant::Rotation& rotation, quant::ThreadTeam& team) {
  constexpr std::array<Role, 3> kAttention{Role::kQ, Role::kK, Role::kV};
  if (LinearDraft* fused = draft.linear(Role::kQkv)) {
    rotation.apply_rows(matrix(*fused), team);
  } else {
    for (const Role role : kAttention)
      rotation.apply_rows(matrix(require_linear(draft, role)), team);
  }
  for (const Role role : {Role::kGate, Role::kUp})
    rotation.apply_rows(matrix(require_linear(draft, role)), team);
  for (const Role role : {Role::kO, Role::kDown})
    rotate_outputs(require_linear(draft, role), rotation, team);
}

}  // namespace llmq::runtime
