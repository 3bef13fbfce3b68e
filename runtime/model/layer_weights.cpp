#include "runtime/model/layer_weights.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string_view>
#include <utility>

#include "formats/attention_tensors.h"
#include "formats/dialect.h"
#include "formats/error.h"
#include "formats/float16.h"
#include "quant/kernels/gemm_w8a8sc/gemm_w8a8sc.h"
#include "quant/static_w8a8.h"
#include "runtime/attention/attention.h"
#include "runtime/model/compressed_weights.h"
#include "runtime/model/int4_weights.h"

namespace llmq::runtime {
namespace {

using formats::bad_input;
using formats::Description;
using formats::DType;
using formats::Error;
using formats::ModelConfig;
using formats::ModuleRow;
using formats::Role;
using formats::Scheme;
using formats::Shape;
using formats::StoredTensor;

/// `value` as the 16-bit `dtype` holds it.
float rounded_to(float value, DType dtype) {
  return dtype == DType::kBF16 ? formats::bf16_to_float(formats::float_to_bf16(value))
                               : formats::fp16_to_float(formats::float_to_fp16(value));
}

void check_executable(const ModelConfig& config, const Description* description) {
  if (config.hidden_act != "silu" && config.hidden_act != "swish") {
    throw bad_input(fmt::format("hidden_act \"{}\" of config.json is not supported, only silu",
                                config.hidden_act));
  }
  if (!config.is_causal) {
    throw bad_input(
        "is_causal of config.json is false: attention to later tokens, which is not run");
  }
  if (description == nullptr) return;
  const std::string& kv = description->kv_quant_type;
  const std::string& fa = description->fa_quant_type;
  if (!kv.empty() && !fa.empty()) {
    throw bad_input(
        fmt::format("{} describes both a {} KV cache and {} attention; they exclude "
                    "each other",
                    formats::kDescriptionFile, kv, fa));
  }
  if ((!kv.empty() && kv != "C8") || (!fa.empty() && fa != "FAQuant")) {
    throw bad_input(fmt::format(
        "{} describes {} attention, which this version of llmq does not run; quantize without it",
        formats::kDescriptionFile, kv.empty() ? fa : kv));
  }
  const formats::Architecture& architecture = formats::architecture_of(config);
  const bool is_fused = formats::find_module_row(architecture, Role::kQkv) != nullptr;
  if (is_fused && !(kv.empty() && fa.empty())) {
    throw bad_input(fmt::format(
        "{} describes {} attention, whose scales no format names for the fused q, k, v of family "
        "{}; quantize without it",
        formats::kDescriptionFile, kv.empty() ? fa : kv, architecture.family));
  }
  if (!(fa.empty() && kv.empty()) && config.head_dim > Attention::kMaxFaHeadDim) {
    throw bad_input(fmt::format(
        "attention over int8 keys and values runs with heads of at most {} lanes, not {}",
        Attention::kMaxFaHeadDim, config.head_dim));
  }
}

}  // namespace

WeightLoader::WeightLoader(const WeightSource& source, quant::ThreadTeam& team)
    : checkpoint_(*source.checkpoint),
      config_(*source.config),
      description_(source.description),
      emulation_(emulation_row(source.emulation)),
      ranks_(source.ranks),
      reduction_(source.reduction),
      embedding_(source.embedding),
      compressed_(source.compressed),
      architecture_(formats::architecture_of(*source.config)),
      team_(team),
      vectors_(*source.checkpoint, source.config->torch_dtype) {
  check_executable(config_, description_);
}

LayerWeights WeightLoader::layer(int64_t layer_index) {
  LayerWeights weights;
  weights.input_norm = norm(Role::kInputNorm, layer_index);
  if (formats::find_module_row(architecture_, Role::kQkv) != nullptr) {
    weights.qkv = linear(Role::kQkv, layer_index);
  } else {
    weights.q = linear(Role::kQ, layer_index);
    weights.k = linear(Role::kK, layer_index);
    weights.v = linear(Role::kV, layer_index);
  }
  weights.q_norm = head_norm(Role::kQNorm, layer_index);
  weights.k_norm = head_norm(Role::kKNorm, layer_index);
  weights.o = linear(Role::kO, layer_index);
  weights.post_attention_norm = norm(Role::kPostAttentionNorm, layer_index);
  if (config_.is_moe_layer(layer_index)) {
    add_experts(layer_index, weights);
  } else {
    weights.gate = linear(Role::kGate, layer_index);
    weights.up = linear(Role::kUp, layer_index);
    weights.down = linear(Role::kDown, layer_index);
  }
  if (description_ != nullptr && !description_->kv_quant_type.empty())
    weights.kv = kv_scales(layer_index);
  if (description_ != nullptr && !description_->fa_quant_type.empty())
    weights.fa = fa_scales(layer_index);
  return weights;
}

KvScales WeightLoader::kv_scales(int64_t layer_index) {
  const auto t = formats::attention_tensors(config_, Scheme::kC8, layer_index, config_.torch_dtype);
  return {vectors_.scales(t[0].name, t[0].shape), vectors_.offsets(t[1].name, t[1].shape),
          vectors_.scales(t[2].name, t[2].shape), vectors_.offsets(t[3].name, t[3].shape)};
}

FaScales WeightLoader::fa_scales(int64_t layer_index) {
  const auto t =
      formats::attention_tensors(config_, Scheme::kFaQuant, layer_index, config_.torch_dtype);
  return {vectors_.scales(t[0].name, t[0].shape), vectors_.offsets(t[1].name, t[1].shape),
          vectors_.scales(t[2].name, t[2].shape), vectors_.offsets(t[3].name, t[3].shape),
          vectors_.scales(t[4].name, t[4].shape), vectors_.offsets(t[5].name, t[5].shape)};
}

void WeightLoader::add_experts(int64_t layer_index, LayerWeights& weights) {
  weights.router = linear(Role::kRouter, layer_index);
  weights.experts.reserve(static_cast<size_t>(config_.n_experts));
  for (int64_t expert = 0; expert < config_.n_experts; ++expert) {
    weights.experts.push_back({linear(Role::kExpertGate, layer_index, expert),
                               linear(Role::kExpertUp, layer_index, expert),
                               linear(Role::kExpertDown, layer_index, expert)});
  }
  const bool has_shared =
      config_.shared_expert_intermediate_size > 0 &&
      formats::find_module_row(architecture_, Role::kSharedExpertGate) != nullptr;
  if (!has_shared) return;
  weights.shared_expert = {linear(Role::kSharedExpertGate, layer_index),
                           linear(Role::kSharedExpertUp, layer_index),
                           linear(Role::kSharedExpertDown, layer_index)};
  weights.shared_switch = linear(Role::kSharedExpertSwitch, layer_index);
}

OuterWeights WeightLoader::outer() {
  const bool has_embedding = has_module(Role::kEmbedding, -1);
  const bool has_head = has_module(Role::kHead, -1);
  const bool is_tied = config_.tie_word_embeddings;
  OuterWeights weights;
  weights.embedding =
      linear(is_tied && !has_embedding && has_head ? Role::kHead : Role::kEmbedding, -1);
  weights.final_norm = norm(Role::kFinalNorm, -1);
  const bool uses_stored_head = has_head && (!is_tied || description_ != nullptr);
  // Files without a head of their own are tied, whatever config.json says.
  weights.head = uses_stored_head ? linear(Role::kHead, -1) : weights.embedding;
  if (!uses_stored_head && embedding_ == formats::EmbeddingCut::kHidden)
    weights.head.ranks = ranks_;
  return weights;
}

bool WeightLoader::has_module(Role role, int64_t layer_index) const {
  const ModuleRow& row = formats::module_row(architecture_, role);
  return checkpoint_.find(formats::module_path(row, layer_index) + ".weight") != nullptr;
}

LinearWeights WeightLoader::linear(Role role, int64_t layer_index, int64_t expert) {
  const ModuleRow& row = formats::module_row(architecture_, role);
  const std::string module = formats::module_path(row, layer_index, expert);
  const StoredTensor& tensor = checkpoint_.at(module + ".weight");
  LinearWeights linear;
  linear.scheme = scheme_of(tensor);
  linear.n_out = formats::extent_of(row.n_out, config_);
  linear.n_in = formats::extent_of(row.n_in, config_);
  const bool has_own_columns =
      role == Role::kEmbedding && embedding_ == formats::EmbeddingCut::kHidden;
  if (has_own_columns) set_cut_columns(tensor, linear);
  linear.dtype = tensor.dtype;
  linear.weight = tensor.bytes;
  if (can_execute(linear.scheme)) {
    set_codes(module, tensor, linear);
    add_scheme_tensors(module, linear);
    // Where the sums of codes carry the bias in every phase, the float copy is for other readers.
    const bool is_static = linear.quant_bias != nullptr && !differs_by_phase(linear.scheme);
    const std::span<const float> bias =
        is_static ? std::span<const float>{} : optional_bias(row, module);
    linear.bias = bias.empty() ? nullptr : bias.data();
  }
  join_ranks(row, linear);
  try {
    check_linear(linear);
  } catch (const Error& error) {
    throw error.with_context(tensor.name);
  }
  return linear;
}

void WeightLoader::set_cut_columns(const StoredTensor& tensor, LinearWeights& linear) const {
  const int64_t n_ranks = ranks_ == nullptr ? 1 : ranks_->size();
  if (tensor.shape.size() != 2 || tensor.shape[1] * n_ranks != linear.n_in) {
    throw bad_input(fmt::format("{} has shape {}, which is not {} columns cut for {} ranks",
                                tensor.name, formats::shape_string(tensor.shape), linear.n_in,
                                n_ranks));
  }
  linear.n_out = tensor.shape[0];
  linear.n_in = tensor.shape[1];
}

CompressedRows WeightLoader::compressed_rows(const std::string& module,
                                             const LinearWeights& linear) const {
  CompressedRows rows{linear.n_out, linear.n_in, 0, linear.n_out};
  if (compressed_ == nullptr) return rows;
  const auto place = compressed_->find(module);
  if (place == compressed_->end()) return rows;
  rows.n_stored = place->second.n_stored;
  rows.first_row = place->second.first_row;
  return rows;
}

void WeightLoader::join_ranks(const ModuleRow& row, LinearWeights& linear) {
  if (ranks_ == nullptr || row.tp != formats::TpAxis::kRowParallel) return;
  linear.ranks = ranks_;
  linear.reduction = reduction_;
  const bool adds_integers =
      reduction_ == Reduction::kInt32 && formats::scheme_row(linear.scheme).activation_bits == 8;
  if (!adds_integers || linear.bias == nullptr) return;
  // Scaled sums have the same bits on every rank, so the bias that rank 0 holds must be there too.
  std::vector<float>& bias = whole_biases_.emplace_back(linear.bias, linear.bias + linear.n_out);
  ranks_->sum(std::span(bias));
  linear.bias = bias.data();
}

void WeightLoader::set_codes(const std::string& module, const StoredTensor& tensor,
                             LinearWeights& linear) {
  const bool is_int4 = linear.scheme == Scheme::kW4A16;
  const StoredTensor* scale = checkpoint_.find(module + ".weight_scale");
  if ((is_int4 || linear.scheme == Scheme::kW8A16) && scale != nullptr) {
    linear.group_size = group_size_of(*scale, linear.n_in);
  }
  if (linear.scheme == Scheme::kW8A8SC) return;  // its own container says its extents
  if (!is_int4) return check_shape(tensor, {linear.n_out, linear.n_in});
  packed_int4_.push_back(packed_int4(tensor, linear.n_out, linear.n_in, linear.group_size, team_));
  converted_size_bytes_ += packed_int4_.back().size_bytes();
  linear.packed_int4 = &packed_int4_.back();
}

int64_t WeightLoader::group_size_of(const StoredTensor& scale, int64_t n_in) const {
  const int64_t named = description_ != nullptr ? description_->group_size : 0;
  int64_t group_size = 0;
  try {
    group_size = formats::group_size_of(scale.shape, n_in);
  } catch (const Error& error) {
    throw error.with_context(scale.name);
  }
  if (named > 0 && n_in % named != 0) {
    throw bad_input(fmt::format("{}: group_size {} of the description does not divide {} inputs",
                                scale.name, named, n_in));
  }
  // One group that spans all inputs is a scale per output, laid out as groups are.
  if (group_size == 0) return named == n_in ? named : 0;
  if (named == 0 || named == group_size) return group_size;
  throw bad_input(
      fmt::format("{} has shape {}, a scale for each {} inputs, but the description "
                  "says group_size {}",
                  scale.name, formats::shape_string(scale.shape), group_size, named));
}

void WeightLoader::add_scheme_tensors(const std::string& module, LinearWeights& linear) {
  const auto& rules = formats::scheme_row(linear.scheme).tensors;
  const bool is_static = std::any_of(rules.begin(), rules.end(),
                                     [](const auto& rule) { return rule.suffix == ".deq_scale"; });
  const bool skips_weight_scale = is_static && !differs_by_phase(linear.scheme);
  for (const formats::TensorRule& rule : rules) {
    // deq_scale holds the scale of the weights already, and newer files have no other.
    if (skips_weight_scale && rule.suffix.starts_with(".weight_")) continue;
    add_scheme_tensor(module + std::string(rule.suffix), rule, linear);
  }
  if (formats::scheme_row(linear.scheme).activation_bits == 8 && linear.dtype == DType::kI8)
    pack_codes(module, linear);
}

void WeightLoader::pack_codes(const std::string& module, LinearWeights& linear) {
  const auto [n_out, n_in] = std::pair{linear.n_out, linear.n_in};
  const auto keep = [&](quant::PackedW8A8sc packed) {
    packed_sc_.push_back(std::move(packed));
    converted_size_bytes_ += packed_sc_.back().size_bytes();
    linear.packed_sc = &packed_sc_.back();
  };
  if (linear.scheme == Scheme::kW8A8SC)
    return keep(load_compressed(checkpoint_, module, compressed_rows(module, linear), team_));
  const auto* codes = reinterpret_cast<const int8_t*>(linear.weight.data());
  if (linear.scheme == Scheme::kW8A8S && quant::w8a8sc_pays(0.0)) {
    auto packed = quant::PackedW8A8sc::pack(codes, n_out, n_in, n_in, team_);
    const double escaped =
        static_cast<double>(packed.n_escapes()) / static_cast<double>(n_out * n_in);
    if (quant::w8a8sc_pays(escaped)) return keep(std::move(packed));
  }
  packed_.push_back(quant::PackedInt8::pack(codes, n_out, n_in, n_in, team_));
  converted_size_bytes_ += packed_.back().size_bytes();
  linear.packed = &packed_.back();
}

void WeightLoader::add_scheme_tensor(const std::string& name, const formats::TensorRule& rule,
                                     LinearWeights& linear) {
  if (rule.suffix == ".weight") return;
  Shape shape;
  try {
    shape = formats::resolve_shape(rule.shape, {linear.n_out, linear.n_in, linear.group_size});
  } catch (const Error& error) {
    throw error.with_context(name);
  }
  if (rule.suffix == ".weight_scale") {
    const std::span<const float> values = vectors_.scheme_floats(name, rule, shape);
    if (formats::scheme_row(linear.scheme).activation_bits == 8) check_row_scales(name, values);
    linear.scale = values.data();
  } else if (rule.suffix == ".weight_offset") {
    const std::span<const float> values = vectors_.scheme_floats(name, rule, shape);
    const bool all_zero = std::all_of(values.begin(), values.end(), [](float v) { return v == 0; });
    if (!all_zero && formats::scheme_row(linear.scheme).activation_bits == 8) {
      throw bad_input(fmt::format("{} is not zero, but weights of {} are symmetric", name,
                                  formats::scheme_row(linear.scheme).tag));
    }
    linear.offset = all_zero ? nullptr : values.data();
  } else if (rule.suffix == ".input_scale") {
    set_input_scale(name, vectors_.scheme_floats(name, rule, shape).front(), linear);
  } else if (rule.suffix == ".input_offset") {
    const float offset = vectors_.scheme_floats(name, rule, shape).front();
    if (offset != std::nearbyint(offset))
      throw bad_input(fmt::format("{} is {}; an offset of codes is a whole number", name, offset));
    linear.activation.offset = offset;
  } else if (rule.suffix == ".deq_scale") {
    const std::span<const float> values = vectors_.deq_scale(name, shape);
    check_row_scales(name, values);
    linear.deq_scale = values.data();
  } else if (rule.suffix == ".quant_bias") {
    linear.quant_bias = vectors_.integers(name, shape).data();
  }
}

void WeightLoader::check_row_scales(const std::string& name, std::span<const float> values) const {
  if (ranks_ == nullptr) return check_positive(name, values);
  // Rows that make the parts of all ranks equally large are zeros, and so are their scales.
  std::vector<float> stored(values.begin(), values.end());
  std::replace(stored.begin(), stored.end(), 0.0F, 1.0F);
  check_positive(name, stored);
}

void WeightLoader::set_input_scale(const std::string& name, float scale,
                                   LinearWeights& linear) const {
  check_positive(name, {&scale, 1});
  linear.activation.scale = scale;
  linear.activation.by_reciprocal = emulation_.multiplies_by_reciprocal;
  if (!linear.activation.by_reciprocal) return;
  const DType dtype = config_.torch_dtype == DType::kBF16 ? DType::kBF16 : DType::kF16;
  // An engine holds the scale itself in that dtype too, whatever the file has.
  linear.activation.reciprocal = quant::rounded_reciprocal(rounded_to(scale, dtype), dtype);
  if (linear.activation.reciprocal > 0 && std::isfinite(linear.activation.reciprocal)) return;
  throw bad_input(fmt::format("{} is {}, whose reciprocal is {} in {}, as the engine reads it",
                              name, scale, linear.activation.reciprocal,
                              formats::torch_dtype_name(dtype)));
}

NormWeights WeightLoader::norm(Role role, int64_t layer_index) {
  const ModuleRow& row = formats::module_row(architecture_, role);
  const std::string module = formats::module_path(row, layer_index);
  const Shape shape{formats::extent_of(row.n_out, config_)};
  // A norm's bias comes from quantizers that shift activations.
  const StoredTensor* weight = formats::find_norm_tensor(checkpoint_, module, ".weight");
  const StoredTensor* bias = formats::find_norm_tensor(checkpoint_, module, ".bias");
  if (description_ == nullptr || weight == nullptr)
    return {vectors_.floats(module + ".weight", shape), optional_bias(row, module)};
  return {vectors_.floats(weight->name, shape),
          bias == nullptr ? std::span<const float>{} : vectors_.floats(bias->name, shape)};
}

std::span<const float> WeightLoader::head_norm(Role role, int64_t layer_index) {
  const ModuleRow* row = formats::find_module_row(architecture_, role);
  if (row == nullptr) return {};
  return vectors_.floats(formats::module_path(*row, layer_index) + ".weight",
                         {formats::extent_of(row->n_out, config_)});
}

std::span<const float> WeightLoader::optional_bias(const ModuleRow& row,
                                                   const std::string& module) {
  const std::string name = module + ".bias";
  // Quantizers that shift activations give biases to modules that have none otherwise.
  const bool is_added = description_ != nullptr && checkpoint_.find(name) != nullptr;
  if (!formats::has_bias(row, config_) && !is_added) return {};
  return vectors_.floats(name, {formats::extent_of(row.n_out, config_)});
}

Scheme WeightLoader::scheme_of(const StoredTensor& tensor) const {
  const std::string_view tag =
      description_ == nullptr ? std::string_view{} : description_->tag_of(tensor.name);
  if (tag.empty()) {
    if (formats::is_weight_float(tensor.dtype)) return Scheme::kFloat;
    throw bad_input(
        fmt::format("{} is stored as {}, but {}", tensor.name, formats::dtype_name(tensor.dtype),
                    description_ == nullptr ? "there is no quant_model_description.json beside it"
                                            : "quant_model_description.json does not name it"));
  }
  try {
    return formats::effective_scheme(formats::parse_scheme_tag(tag), tensor.dtype);
  } catch (const Error& error) {
    throw error.with_context(tensor.name);
  }
}

}  // namespace llmq::runtime
