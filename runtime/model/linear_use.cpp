#include "runtime/model/linear_use.h"

#include <algorithm>
#include <cmath>

#include "formats/error.h"
#include "formats/scheme.h"
#include "quant/kernels/families.h"

namespace llmq::runtime {
namespace {

using formats::DType;
using formats::Role;
using formats::Scheme;

void add(std::vector<LinearUse>& uses, Role role, const LinearWeights& linear, double share = 1.0) {
  if (!linear.empty()) uses.push_back({role, &linear, share});
}

void add_operations(const LinearWeights& linear, double share, ModelCosts::Operations& operations) {
  const double n = 2.0 * share * static_cast<double>(linear.n_out * linear.n_in);
  if (formats::scheme_row(linear.scheme).activation_bits == 8) {
    operations.int8 += n;
  } else if (linear.dtype == DType::kF32) {
    operations.f32 += n;
  } else {
    operations.bf16 += n;
  }
}

/// Of one weight. Codes of int4 may be unpacked in memory, but need not be.
double weight_bytes_of(const LinearWeights& linear) {
  if (linear.packed_sc != nullptr) {
    return static_cast<double>(linear.packed_sc->size_bytes()) /
           static_cast<double>(linear.n_out * linear.n_in);
  }
  for (const formats::TensorRule& rule : formats::scheme_row(linear.scheme).tensors) {
    if (rule.suffix == ".weight" && rule.shape == formats::ShapeRule::kPacked4) return 0.5;
  }
  return static_cast<double>(formats::dtype_size_bytes(linear.dtype));
}

bool is_alike(const LinearGroup& a, const LinearGroup& b) {
  return a.role == b.role && a.scheme == b.scheme && a.dtype == b.dtype &&
         a.group_size == b.group_size && a.n_out == b.n_out && a.n_in == b.n_in;
}

void add_to_groups(Role role, const LinearWeights& linear, quant::Isa isa,
                   std::vector<LinearGroup>& groups) {
  LinearGroup group{role,
                    linear.scheme,
                    linear.dtype,
                    linear.group_size,
                    linear_kernel(linear, isa),
                    linear.n_out,
                    linear.n_in,
                    1,
                    linear_read_bytes(linear)};
  const auto known = std::find_if(groups.begin(), groups.end(),
                                  [&](const LinearGroup& other) { return is_alike(group, other); });
  if (known == groups.end()) {
    groups.push_back(group);
  } else {
    ++known->count;
    known->read_bytes += group.read_bytes;
  }
}

}  // namespace

std::vector<LinearUse> linear_uses(const LayerWeights& layer, const formats::ModelConfig& config) {
  std::vector<LinearUse> uses;
  add(uses, Role::kQ, layer.q);
  add(uses, Role::kK, layer.k);
  add(uses, Role::kV, layer.v);
  add(uses, Role::kQkv, layer.qkv);
  add(uses, Role::kO, layer.o);
  add(uses, Role::kGate, layer.gate);
  add(uses, Role::kUp, layer.up);
  add(uses, Role::kDown, layer.down);
  add(uses, Role::kRouter, layer.router);
  const double share = config.n_experts == 0 ? 1.0
                                             : static_cast<double>(config.n_experts_per_token) /
                                                   static_cast<double>(config.n_experts);
  for (const MlpWeights& expert : layer.experts) {
    add(uses, Role::kExpertGate, expert.gate, share);
    add(uses, Role::kExpertUp, expert.up, share);
    add(uses, Role::kExpertDown, expert.down, share);
  }
  add(uses, Role::kSharedExpertGate, layer.shared_expert.gate);
  add(uses, Role::kSharedExpertUp, layer.shared_expert.up);
  add(uses, Role::kSharedExpertDown, layer.shared_expert.down);
  add(uses, Role::kSharedExpertSwitch, layer.shared_switch);
  return uses;
}

LinearKernel linear_kernel(const LinearWeights& linear, quant::Isa isa) {
  const formats::SchemeRow& row = formats::scheme_row(linear.scheme);
  if (!can_execute(linear.scheme)) {
    throw formats::Error(formats::ErrorCode::kInternal,
                         "no kernel runs scheme " + std::string(row.tag));
  }
  std::string_view family = "gemm_f16";
  if (row.activation_bits == 8) {
    family = linear.packed_sc != nullptr ? "gemm_w8a8sc" : "gemm_w8a8";
  } else if (linear.scheme == Scheme::kW4A16) {
    family = "gemm_w4a16";
  } else if (linear.scheme != Scheme::kFloat) {
    family = "gemm_w8a16";
  } else if (linear.dtype == DType::kF32) {
    family = "gemm_f32";
  } else if (linear.multiplies_bf16) {
    family = "gemm_bf16";
  }
  return {family, quant::kernel_family(family).implementation(isa)};
}

double linear_read_bytes(const LinearWeights& linear) {
  const double weights = static_cast<double>(linear.n_out * linear.n_in);
  const auto n_out = static_cast<double>(linear.n_out);
  double vectors = 0;
  if (linear.bias != nullptr) vectors += n_out;
  if (linear.quant_bias != nullptr) vectors += n_out;
  if (linear.deq_scale != nullptr) vectors += n_out;
  const double n_scales =
      linear.group_size > 0 ? weights / static_cast<double>(linear.group_size) : n_out;
  if (linear.scale != nullptr) vectors += n_scales;
  if (linear.offset != nullptr) vectors += n_scales;
  constexpr double kVectorBytes = 4;
  return weights * weight_bytes_of(linear) + kVectorBytes * vectors;
}

std::vector<LinearGroup> linear_groups(const Model& model, quant::Isa isa) {
  std::vector<LinearGroup> groups;
  for (int64_t layer = 0; layer < model.config().n_layers; ++layer) {
    for (const LinearUse& use : linear_uses(model.layer(layer), model.config()))
      add_to_groups(use.role, *use.linear, isa, groups);
  }
  add_to_groups(Role::kHead, model.outer().head, isa, groups);
  return groups;
}

ModelCosts::ModelCosts(const Model& model) {
  const formats::ModelConfig& config = model.config();
  for (int64_t layer = 0; layer < config.n_layers; ++layer) {
    for (const LinearUse& use : linear_uses(model.layer(layer), config)) {
      add_operations(*use.linear, use.token_share, layers_);
      const double bytes = linear_read_bytes(*use.linear);
      (use.token_share < 1.0 ? expert_bytes_ : dense_bytes_) += bytes;
      if (use.token_share < 1.0) expert_share_ = use.token_share;
    }
    windows_.push_back(config.window_of(layer));
  }
  add_operations(model.outer().head, 1.0, head_);
  dense_bytes_ += linear_read_bytes(model.outer().head);
  Sequence sequence = model.new_sequence();
  const KvLayout& layout = sequence.cache().layout();
  operations_per_key_ = 4.0 * static_cast<double>(config.n_heads * config.head_dim);
  kv_bytes_per_key_ = 2.0 * static_cast<double>(layout.n_kv_heads * layout.head_dim) *
                      static_cast<double>(formats::dtype_size_bytes(layout.dtype));
}

double ModelCosts::visible_keys(int64_t position) const {
  double n_keys = 0;
  for (const int64_t window : windows_) {
    const int64_t n = position + 1;
    n_keys += static_cast<double>(window > 0 ? std::min(window, n) : n);
  }
  return n_keys;
}

double ModelCosts::attention_operations(int64_t position) const {
  return operations_per_key_ * visible_keys(position);
}

double ModelCosts::weight_bytes(int64_t batch_size) const {
  const double touched = 1.0 - std::pow(1.0 - expert_share_, static_cast<double>(batch_size));
  return dense_bytes_ + expert_bytes_ * touched;
}

double ModelCosts::kv_bytes(int64_t position) const {
  return kv_bytes_per_key_ * visible_keys(position);
}

}  // namespace llmq::runtime
