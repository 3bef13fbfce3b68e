#include "runtime/model/layer_draft.h"

#include <span>
#include <string>

#include "formats/error.h"

namespace llmq::runtime {
namespace {

using formats::Role;

LinearWeights* linear_of(LayerWeights& weights, Role role) {
  switch (role) {
    case Role::kQ:
      return &weights.q;
    case Role::kK:
      return &weights.k;
    case Role::kV:
      return &weights.v;
    case Role::kQkv:
      return &weights.qkv;
    case Role::kO:
      return &weights.o;
    case Role::kGate:
      return &weights.gate;
    case Role::kUp:
      return &weights.up;
    case Role::kDown:
      return &weights.down;
    default:
      return nullptr;
  }
}

NormWeights& norm_of(LayerWeights& weights, Role role) {
  if (role == Role::kInputNorm) return weights.input_norm;
  if (role == Role::kPostAttentionNorm) return weights.post_attention_norm;
  throw formats::Error(formats::ErrorCode::kInternal,
                       "no norm of a layer: " + std::string(formats::role_name(role)));
}

}  // namespace

LinearDraft* LayerDraft::linear(Role role) {
  if (const auto known = linears_.find(role); known != linears_.end()) return &known->second;
  const LinearWeights* from = linear_of(weights_, role);
  if (from == nullptr || from->empty()) return nullptr;
  LinearDraft draft;
  draft.n_out = from->n_out;
  draft.n_in = from->n_in;
  draft.weight.resize(static_cast<size_t>(from->n_out * from->n_in));
  for (int64_t row = 0; row < from->n_out; ++row) {
    widen_row(*from, row,
              std::span(draft.weight)
                  .subspan(static_cast<size_t>(row * from->n_in), static_cast<size_t>(from->n_in)));
  }
  if (from->bias != nullptr) draft.bias.assign(from->bias, from->bias + from->n_out);
  return &linears_.emplace(role, std::move(draft)).first->second;
}

NormDraft& LayerDraft::norm(Role role) {
  if (const auto known = norms_.find(role); known != norms_.end()) return known->second;
  const NormWeights& from = norm_of(weights_, role);
  NormDraft draft{{from.weight.begin(), from.weight.end()}, {from.bias.begin(), from.bias.end()}};
  return norms_.emplace(role, std::move(draft)).first->second;
}

const LinearDraft* LayerDraft::find_linear(Role role) const {
  const auto known = linears_.find(role);
  return known == linears_.end() ? nullptr : &known->second;
}

const NormDraft* LayerDraft::find_norm(Role role) const {
  const auto known = norms_.find(role);
  return known == norms_.end() ? nullptr : &known->second;
}

LayerWeights LayerDraft::view() const {
  LayerWeights view = weights_;
  for (const auto& [role, draft] : linears_) {
    LinearWeights& linear = *linear_of(view, role);
    linear = {};
    linear.weight = std::as_bytes(std::span(draft.weight));
    linear.n_out = draft.n_out;
    linear.n_in = draft.n_in;
    linear.bias = draft.bias.empty() ? nullptr : draft.bias.data();
  }
  for (const auto& [role, draft] : norms_) norm_of(view, role) = {draft.weight, draft.bias};
  return view;
}

}  // namespace llmq::runtime
