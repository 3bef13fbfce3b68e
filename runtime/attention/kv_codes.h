#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace llmq::runtime {

/// Scales of one layer's int8 KV cache (C8), from a checkpoint: x̂ = (code − offset)·scale, K as it
/// is after RoPE. Each [n_kv_heads·head_dim], or all of them empty.
struct KvScales {
  std::span<const float> key_scale;
  std::span<const float> key_offset;
  std::span<const float> value_scale;
  std::span<const float> value_offset;

  [[nodiscard]] bool empty() const { return key_scale.empty(); }
};

/// Scales of one layer's quantized attention (FAQuant), from a checkpoint. Queries [n_heads], keys
/// and values [n_kv_heads], or all of them empty.
struct FaScales {
  std::span<const float> q_scale;
  std::span<const float> q_offset;
  std::span<const float> k_scale;
  std::span<const float> k_offset;
  std::span<const float> v_scale;
  std::span<const float> v_offset;

  [[nodiscard]] bool empty() const { return q_scale.empty(); }
};

/// How a KV cache of int8 codes maps them to numbers: x̂ = (code − offset)·scale. Each
/// [n_layers, n_kv_heads·head_dim]; scales are positive, offsets whole numbers from −128 to 127.
struct KvCodeTable {
  std::vector<float> key_scale;
  std::vector<float> key_offset;
  std::vector<float> value_scale;
  std::vector<float> value_offset;

  /// Appends a layer of C8.
  void add_layer(const KvScales& scales);
  /// Appends a layer of FAQuant, whose lanes of a head share their parameters.
  void add_layer(const FaScales& scales, int64_t head_dim);
};

}  // namespace llmq::runtime
