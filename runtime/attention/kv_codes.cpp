#include "runtime/attention/kv_codes.h"

namespace llmq::runtime {
namespace {

void append(std::vector<float>& to, std::span<const float> values, int64_t n_repeats) {
  for (const float value : values) to.insert(to.end(), static_cast<size_t>(n_repeats), value);
}

}  // namespace

void KvCodeTable::add_layer(const KvScales& scales) {
  append(key_scale, scales.key_scale, 1);
  append(key_offset, scales.key_offset, 1);
  append(value_scale, scales.value_scale, 1);
  append(value_offset, scales.value_offset, 1);
}

void KvCodeTable::add_layer(const FaScales& scales, int64_t head_dim) {
  append(key_scale, scales.k_scale, head_dim);
  append(key_offset, scales.k_offset, head_dim);
  append(value_scale, scales.v_scale, head_dim);
  append(value_offset, scales.v_offset, head_dim);
}

}  // namespace llmq::runtime
