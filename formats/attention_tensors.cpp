#include "formats/attention_tensors.h"

#include <fmt/format.h>

#include <array>
#include <cstring>
#include <utility>

#include "formats/error.h"
#include "formats/float16.h"

namespace llmq::formats {
namespace {

/// "model.layers.3.self_attn" of "model.layers.3.self_attn.q_proj".
std::string parent_of(const std::string& module) {
  return module.substr(0, module.rfind('.'));
}

struct Owner {
  AttentionOperand operand;
  std::string module;
  int64_t n;  ///< lanes or heads
};

std::vector<Owner> owners(const ModelConfig& config, Scheme scheme, int64_t layer) {
  if (scheme != Scheme::kC8 && scheme != Scheme::kFaQuant) {
    throw Error(ErrorCode::kInternal,
                fmt::format("{} is no scheme of attention", scheme_row(scheme).tag));
  }
  const Architecture& architecture = architecture_of(config);
  if (find_module_row(architecture, Role::kQkv) != nullptr) return {};
  const auto module = [&](Role role) { return module_path(module_row(architecture, role), layer); };
  using enum AttentionOperand;
  if (scheme == Scheme::kC8) {
    const int64_t n = config.n_kv_heads * config.head_dim;
    return {{kKey, module(Role::kK), n}, {kValue, module(Role::kV), n}};
  }
  const std::string attention = parent_of(module(Role::kQ));
  return {{kQuery, attention + ".fa_q", config.n_heads},
          {kKey, attention + ".fa_k", config.n_kv_heads},
          {kValue, attention + ".fa_v", config.n_kv_heads}};
}

template <typename T>
void append(std::vector<std::byte>& bytes, T value) {
  const size_t at = bytes.size();
  bytes.resize(at + sizeof value);
  std::memcpy(bytes.data() + at, &value, sizeof value);
}

void append_value(std::vector<std::byte>& bytes, float scale, const AttentionTensor& tensor) {
  float stored = scale;
  if (tensor.dtype == DType::kF16) {
    append(bytes, float_to_fp16(scale));
    stored = fp16_to_float(float_to_fp16(scale));
  } else if (tensor.dtype == DType::kBF16) {
    append(bytes, float_to_bf16(scale));
    stored = bf16_to_float(float_to_bf16(scale));
  } else {
    append(bytes, scale);
  }
  if (stored == scale) return;
  throw Error(ErrorCode::kInternal, fmt::format("{}: {} is no value of {}", tensor.name, scale,
                                                dtype_name(tensor.dtype)));
}

}  // namespace

std::vector<AttentionTensor> attention_tensors(const ModelConfig& config, Scheme scheme,
                                               int64_t layer, DType model_dtype) {
  std::vector<AttentionTensor> tensors;
  const SchemeRow& row = scheme_row(scheme);
  for (const Owner& owner : owners(config, scheme, layer)) {
    for (const TensorRule& rule : row.tensors) {
      tensors.push_back({.name = owner.module + std::string(rule.suffix),
                         .dtype = resolve_dtype(rule.dtype, model_dtype),
                         .shape = resolve_shape(rule.shape, {owner.n, 0, 0}),
                         .tag = row.tag,
                         .operand = owner.operand,
                         .is_scale = rule.suffix.ends_with("scale")});
    }
  }
  return tensors;
}

std::vector<std::byte> encode_attention_tensor(const AttentionTensor& tensor,
                                               std::span<const float> values) {
  if (!tensor.is_scale && values.empty())
    return std::vector<std::byte>(
        static_cast<size_t>(tensor_size_bytes(tensor.dtype, tensor.shape)));
  if (static_cast<uint64_t>(values.size()) != static_cast<uint64_t>(shape_elements(tensor.shape))) {
    throw Error(ErrorCode::kInternal,
                fmt::format("{} has shape {}, but there are {} values", tensor.name,
                            shape_string(tensor.shape), values.size()));
  }
  std::vector<std::byte> bytes;
  for (const float value : values) append_value(bytes, value, tensor);
  return bytes;
}

}  // namespace llmq::formats
