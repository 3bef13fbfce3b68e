#include "convert/selection/rounded_layer.h"

#include <algorithm>
#include <cstddef>
#include <string>

#include "convert/pipeline/tensor_bytes.h"
#include "formats/dialect.h"
#include "formats/error.h"
#include "quant/static_w8a8.h"
#include "quant/weight_quantizer.h"

namespace llmq::convert {
namespace {

using formats::Role;
using runtime::LayerWeights;
using runtime::LinearWeights;

/// The scheme that a linear's weights get, or null for a tensor that stays float.
const RecipeRule* quantizing_rule(const LedgerEntry& entry) {
  for (const OutputModule& output : entry.outputs) {
    const formats::SchemeRow& row = formats::scheme_row(output.rule.scheme);
    if (row.is_linear && row.scheme != formats::Scheme::kFloat) return &output.rule;
  }
  return nullptr;
}

/// Where a layer holds the linear of an entry; null for what is no linear.
LinearWeights* linear_of(LayerWeights& layer, const LedgerEntry& entry) {
  const auto is = [&](Role role) { return entry.role == formats::role_name(role); };
  if (is(Role::kQ)) return &layer.q;
  if (is(Role::kK)) return &layer.k;
  if (is(Role::kV)) return &layer.v;
  if (is(Role::kQkv)) return &layer.qkv;
  if (is(Role::kO)) return &layer.o;
  if (is(Role::kGate)) return &layer.gate;
  if (is(Role::kUp)) return &layer.up;
  if (is(Role::kDown)) return &layer.down;
  if (is(Role::kSharedExpertGate)) return &layer.shared_expert.gate;
  if (is(Role::kSharedExpertUp)) return &layer.shared_expert.up;
  if (is(Role::kSharedExpertDown)) return &layer.shared_expert.down;
  if (entry.expert < 0) return nullptr;
  runtime::MlpWeights& expert = layer.experts.at(static_cast<size_t>(entry.expert));
  if (is(Role::kExpertGate)) return &expert.gate;
  if (is(Role::kExpertUp)) return &expert.up;
  if (is(Role::kExpertDown)) return &expert.down;
  return nullptr;
}

runtime::NormWeights* norm_of(LayerWeights& layer, const LedgerEntry& entry) {
  if (entry.role == formats::role_name(Role::kInputNorm)) return &layer.input_norm;
  if (entry.role == formats::role_name(Role::kPostAttentionNorm)) return &layer.post_attention_norm;
  return nullptr;
}

}  // namespace

/// A quantized linear and what its view points to.
struct RoundedLayer::Linear {
  const LedgerEntry* entry = nullptr;
  quant::AffineMatrix matrix;
  quant::PackedInt8 packed;
  quant::PackedInt4 packed_int4;
  quant::StaticTensors derived;
  LinearWeights view;
};

RoundedLayer::RoundedLayer(const LayerWeights& floats, std::span<const LedgerEntry> entries,
                           const UnitPreparation& preparation, formats::DType model_dtype,
                           quant::ThreadTeam& team)
    : floats_(floats) {
  for (size_t i = 0; i < entries.size(); ++i) take_values(entries[i], preparation.entries.at(i));
  for (size_t i = 0; i < entries.size(); ++i) {
    try {
      quantize(entries[i], preparation.entries[i], model_dtype, team);
    } catch (const formats::Error& error) {
      throw error.with_context("tensor " + entries[i].source->name);
    }
  }
}

RoundedLayer::~RoundedLayer() = default;

void RoundedLayer::take_values(const LedgerEntry& entry, const EntryPreparation& preparation) {
  const std::span<const float> values = preparation.values;
  if (values.empty()) return;
  is_transformed_ = true;
  const bool is_bias = entry.source->name.ends_with(".bias");
  if (runtime::NormWeights* norm = norm_of(floats_, entry)) {
    (is_bias ? norm->bias : norm->weight) = values;
    return;
  }
  LinearWeights* linear = linear_of(floats_, entry);
  if (linear == nullptr) {
    throw formats::Error(formats::ErrorCode::kInternal,
                         "values prepared for " + entry.source->name + ", which no layer runs");
  }
  if (is_bias) {
    linear->bias = values.data();
    return;
  }
  linear->dtype = formats::DType::kF32;
  linear->weight = std::as_bytes(values);
}

void RoundedLayer::quantize(const LedgerEntry& entry, const EntryPreparation& preparation,
                            formats::DType model_dtype, quant::ThreadTeam& team) {
  const RecipeRule* rule = quantizing_rule(entry);
  if (rule == nullptr) return;
  const LinearWeights* from = linear_of(floats_, entry);
  if (from == nullptr) return;
  auto linear = std::make_unique<Linear>();
  linear->entry = &entry;
  linear->matrix =
      quant::quantize_weight({from->dtype, from->weight, from->n_out, from->n_in},
                             weight_spec(*rule, model_dtype), preparation.inputs, team);
  const quant::AffineMatrix& matrix = linear->matrix;
  LinearWeights& view = linear->view;
  view.scheme = rule->scheme;
  view.dtype = formats::DType::kI8;
  view.weight = std::as_bytes(std::span(matrix.codes));
  view.n_out = from->n_out;
  view.n_in = from->n_in;
  view.group_size = rule->group_size;
  view.scale = matrix.scales.data();
  const bool has_offsets =
      std::any_of(matrix.offsets.begin(), matrix.offsets.end(), [](float o) { return o != 0.0F; });
  view.offset = has_offsets ? matrix.offsets.data() : nullptr;
  view.bias = from->bias;
  if (formats::scheme_row(rule->scheme).activation_bits == 8) {
    linear->packed =
        quant::PackedInt8::pack(matrix.codes.data(), view.n_out, view.n_in, view.n_in, team);
    view.packed = &linear->packed;
  }
  if (rule->scheme == formats::Scheme::kW4A16) {
    linear->packed_int4 = quant::PackedInt4::pack(view.weight, formats::Int4Layout::kOnePerByte,
                                                  view.n_out, view.n_in, team);
    view.packed_int4 = &linear->packed_int4;
  }
  if (formats::has_tensor(rule->scheme, ".quant_bias")) {
    std::vector<float> bias;
    if (from->bias != nullptr) {
      const std::span values(from->bias, static_cast<size_t>(from->n_out));
      bias = rounded_floats(std::as_bytes(values), formats::DType::kF32, model_dtype);
    }
    linear->derived = quant::static_tensors(preparation.activation, matrix.scales,
                                            quant::code_sums(matrix.codes, view.n_out), bias);
    view.activation.scale = preparation.activation.scale;
    view.activation.offset = preparation.activation.offset;
    view.quant_bias = linear->derived.quant_bias.data();
    view.deq_scale = linear->derived.deq_scale.data();
    if (!runtime::differs_by_phase(rule->scheme)) view.bias = nullptr;
  }
  runtime::check_linear(view);
  linears_.push_back(std::move(linear));
}

LayerWeights RoundedLayer::with(
    const std::function<bool(formats::FusedGroup)>& is_quantized) const {
  LayerWeights layer = floats_;
  for (const auto& linear : linears_) {
    if (is_quantized(linear->entry->group)) *linear_of(layer, *linear->entry) = linear->view;
  }
  return layer;
}

}  // namespace llmq::convert
