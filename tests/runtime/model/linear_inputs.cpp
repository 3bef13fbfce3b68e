#include "tests/runtime/model/linear_inputs.h"

#include "runtime/model/decoder.h"

namespace llmq::testing {

using quant::ConstMatrixF32;

namespace {

Values copy(const ConstMatrixF32& x) {
  Values values{x.n_rows, x.n_cols, {}};
  for (int64_t row = 0; row < x.n_rows; ++row) {
    const float* from = x.data + row * x.row_stride;
    values.data.insert(values.data.end(), from, from + x.n_cols);
  }
  return values;
}

}  // namespace

LinearInputs linear_inputs(runtime::Model& model, std::span<const int32_t> tokens) {
  const formats::ModelConfig& config = model.config();
  const auto n = static_cast<int64_t>(tokens.size());
  const int64_t width = config.hidden_size;
  Values hidden{n, width, std::vector<float>(static_cast<size_t>(n * width))};
  for (int64_t i = 0; i < n; ++i) {
    runtime::widen_row(
        model.outer().embedding, tokens[static_cast<size_t>(i)],
        std::span(hidden.data).subspan(static_cast<size_t>(i * width), static_cast<size_t>(width)));
  }
  runtime::KvCache cache(runtime::KvLayout{
      .n_layers = config.n_layers, .n_kv_heads = config.n_kv_heads, .head_dim = config.head_dim});
  const std::vector<runtime::BatchSegment> segments{{&cache, 0, n, 0}};
  runtime::DecoderRunner runner(config, model.team());
  runner.begin(segments);
  LinearInputs inputs;
  for (int64_t layer = 0; layer < config.n_layers; ++layer) {
    inputs.hidden.push_back(hidden);
    runner.run_layer(model.layer(layer), {.model_layer = layer, .cache_layer = layer},
                     {hidden.data.data(), n, width, width},
                     {.linear_input =
                          [&](const runtime::LinearInput& input) {
                            inputs.groups[{layer, input.group}] = copy(input.x);
                          },
                      .attention_input = {}});
  }
  inputs.hidden.push_back(hidden);
  inputs.head = hidden;
  runtime::rms_norm(model.outer().final_norm, config.rms_norm_eps, hidden.view(),
                    {inputs.head.data.data(), n, width, width}, model.team());
  return inputs;
}

}  // namespace llmq::testing
