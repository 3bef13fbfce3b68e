#include "tests/runtime/model/w8a8_formula.h"

#include <algorithm>
#include <cmath>

namespace llmq::testing {

// The quotient, sum or product of two float32 values, computed in float64 and then rounded to
// float32, is what one float32 rounding of the exact result gives: 53 >= 2 · 24 + 2 bits.
int w8a8_code(float x, const W8A8Input& input, std::optional<float> reciprocal) {
  const double exact = reciprocal ? static_cast<double>(x) * *reciprocal
                                  : static_cast<double>(x) / static_cast<double>(input.scale);
  const auto scaled = static_cast<float>(exact);
  const auto shifted = static_cast<float>(static_cast<double>(scaled) + input.offset);
  if (std::isnan(shifted)) return -128;
  return static_cast<int>(std::clamp(std::nearbyint(static_cast<double>(shifted)), -128.0, 127.0));
}

std::vector<float> w8a8_product(const W8A8Linear& linear, const Values& x,
                                std::optional<float> reciprocal) {
  std::vector<float> y;
  std::vector<int64_t> codes(static_cast<size_t>(linear.k));
  for (int64_t row = 0; row < x.n_rows; ++row) {
    for (int64_t i = 0; i < linear.k; ++i) {
      codes[static_cast<size_t>(i)] =
          w8a8_code(x.data[static_cast<size_t>(row * x.n_cols + i)], linear.input, reciprocal);
    }
    for (int64_t col = 0; col < linear.n; ++col) {
      int64_t sum = linear.quant_bias[static_cast<size_t>(col)];
      for (int64_t i = 0; i < linear.k; ++i)
        sum +=
            codes[static_cast<size_t>(i)] * linear.codes[static_cast<size_t>(col * linear.k + i)];
      const auto rounded = static_cast<float>(sum);
      y.push_back(static_cast<float>(static_cast<double>(rounded) *
                                     linear.deq_scale[static_cast<size_t>(col)]));
    }
  }
  return y;
}

std::vector<NamedLinear> w8a8_linears(const runtime::Model& model, formats::Scheme scheme) {
  using enum formats::FusedGroup;
  std::vector<NamedLinear> linears;
  const auto add = [&](const std::string& module, const runtime::LinearWeights& view, int64_t layer,
                       formats::FusedGroup group) {
    if (view.scheme == scheme) linears.push_back({module, &view, layer, group});
  };
  for (int64_t i = 0; i < model.config().n_layers; ++i) {
    const runtime::LayerWeights& layer = model.layer(i);
    const std::string path = "model.layers." + std::to_string(i);
    add(path + ".self_attn.q_proj", layer.q, i, kQkv);
    add(path + ".self_attn.k_proj", layer.k, i, kQkv);
    add(path + ".self_attn.v_proj", layer.v, i, kQkv);
    add(path + ".self_attn.o_proj", layer.o, i, kAttentionOut);
    add(path + ".mlp.gate_proj", layer.gate, i, kGateUp);
    add(path + ".mlp.up_proj", layer.up, i, kGateUp);
    add(path + ".mlp.down_proj", layer.down, i, kDown);
  }
  add("lm_head", model.outer().head, -1, kHead);
  return linears;
}

}  // namespace llmq::testing
