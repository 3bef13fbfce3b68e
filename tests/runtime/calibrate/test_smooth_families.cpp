// Smoothing and rotation change weights and keep what a layer computes, in each form that a family
// gives its attention.

#include "runtime/calibrate/smooth_layer.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "formats/checkpoint.h"
#include "formats/model_config.h"
#include "quant/channel_statistics.h"
#include "runtime/model/decoder.h"
#include "tests/runtime/model/model_testing.h"

namespace llmq::runtime {
namespace {

constexpr int64_t kRows = 40;

/// One layer of a golden model and hidden states that it is run on.
class LayerAtWork {
 public:
  LayerAtWork(const char* golden, int64_t layer) : layer_(layer) {
    const auto folder = testing::golden_root() / golden;
    config_ = formats::read_model_config(folder);
    checkpoint_.emplace(formats::Checkpoint::open(folder));
    loader_.emplace(WeightSource{&*checkpoint_, &config_, nullptr}, team_);
    weights_ = loader_->layer(layer);
    for (int64_t i = 0; i < kRows * config_.hidden_size; ++i)
      inputs_.push_back(static_cast<float>(i * 7919 % 1009) / 256.0F - 2.0F);
  }

  [[nodiscard]] const formats::ModelConfig& config() const { return config_; }
  [[nodiscard]] const LayerWeights& weights() const { return weights_; }
  quant::ThreadTeam& team() { return team_; }

  /// What the layer makes of the inputs (rotated before, where asked for).
  std::vector<float> run(const LayerWeights& weights, const LayerObserver& observer = {},
                         const quant::Rotation* rotation = nullptr) {
    std::vector<float> hidden = inputs_;
    const quant::MatrixF32 rows{hidden.data(), kRows, config_.hidden_size, config_.hidden_size};
    if (rotation != nullptr) rotation->apply_rows(rows, team_);
    KvCache cache(
        KvLayout{.n_layers = 1, .n_kv_heads = config_.n_kv_heads, .head_dim = config_.head_dim});
    const BatchSegment segment{&cache, 0, kRows, 0};
    DecoderRunner runner(config_, team_);
    runner.begin({&segment, 1});
    runner.run_layer(weights, {layer_, 0}, rows, observer);
    return hidden;
  }

  /// Statistics of what the consumers of a subgraph read in a layer with these weights.
  ChannelsByGroup channels(const LayerWeights& weights, Subgraph subgraph) {
    quant::ChannelObserver channels;
    LayerObserver observer;
    observer.linear_input = [&](const LinearInput& input) {
      if (input.group == subgraph_group(subgraph) && input.expert < 0) channels.observe(input.x);
    };
    run(weights, observer);
    ChannelsByGroup inputs;
    inputs.emplace(subgraph_group(subgraph), channels.statistics());
    return inputs;
  }

 private:
  quant::ThreadTeam team_{2};
  formats::ModelConfig config_;
  std::optional<formats::Checkpoint> checkpoint_;
  std::optional<WeightLoader> loader_;
  int64_t layer_;
  LayerWeights weights_;
  std::vector<float> inputs_;
};

/// Largest difference over largest magnitude.
double relative_difference(const std::vector<float>& a, const std::vector<float>& b) {
  double difference = 0.0;
  double magnitude = 0.0;
  for (size_t i = 0; i < a.size(); ++i) {
    difference = std::max(difference, std::abs(static_cast<double>(a[i]) - b[i]));
    magnitude = std::max(magnitude, std::abs(static_cast<double>(b[i])));
  }
  return difference / magnitude;
}

struct Case {
  const char* golden;
  int64_t layer;
  std::vector<Subgraph> subgraphs;
};

const std::vector<Subgraph> kAll{Subgraph::kVO, Subgraph::kUpDown, Subgraph::kNormQkv,
                                 Subgraph::kNormGateUp};
const std::vector<Subgraph> kAttention{Subgraph::kVO, Subgraph::kNormQkv};

/// Fused q, k, v; grouped queries; head norms; biases everywhere; experts.
const std::vector<Case>& cases() {
  static const std::vector<Case> list{
      {"qwen", 1, kAll},         {"qwen2-untied", 0, kAll},    {"qwen3-head-dim", 0, kAll},
      {"llama-biases", 1, kAll}, {"qwen2-moe", 0, kAttention}, {"qwen3-moe", 1, kAttention}};
  return list;
}

TEST(SmoothFamilies, a_layer_computes_the_same_after_each_method_in_every_family) {
  for (const Case& one : cases()) {
    for (const char* method : {"m1", "m2", "m3", "m4", "m6"}) {
      SCOPED_TRACE(std::string(one.golden) + " " + method);
      LayerAtWork layer(one.golden, one.layer);
      const std::vector<float> before = layer.run(layer.weights());
      quant::SmoothSpec spec;
      spec.method = *quant::find_smooth_method(method);
      LayerDraft draft(layer.weights());
      for (const Subgraph subgraph : one.subgraphs) {
        const SmoothReport report =
            smooth_subgraph(draft, layer.config(), layer.channels(draft.view(), subgraph), subgraph,
                            spec, formats::DType::kF32, layer.team());
        const auto& scale = report.decision.scale;
        EXPECT_TRUE(std::any_of(scale.begin(), scale.end(), [](float s) { return s != 1.0F; }))
            << subgraph_name(subgraph);
      }
      // Scales span two orders of magnitude here, and sums of up to 104 products are rounded anew.
      EXPECT_LT(relative_difference(layer.run(draft.view()), before), 1e-5);
    }
  }
}

TEST(SmoothFamilies, of_a_fused_matrix_only_the_rows_of_v_and_the_columns_change) {
  LayerAtWork layer("qwen", 0);
  const auto& config = layer.config();
  LayerDraft draft(layer.weights());
  const LinearDraft original = *draft.linear(formats::Role::kQkv);
  quant::SmoothSpec spec;
  const SmoothReport report =
      smooth_subgraph(draft, config, layer.channels(layer.weights(), Subgraph::kVO), Subgraph::kVO,
                      spec, formats::DType::kF32, layer.team());
  const LinearDraft& changed = *draft.find_linear(formats::Role::kQkv);
  const int64_t first_of_v = (config.n_heads + config.n_kv_heads) * config.head_dim;
  ASSERT_EQ(changed.n_out, first_of_v + config.n_kv_heads * config.head_dim);
  for (int64_t row = 0; row < changed.n_out; ++row) {
    const auto at = static_cast<size_t>(row);
    const float scale =
        row < first_of_v ? 1.0F : report.decision.scale[static_cast<size_t>(row - first_of_v)];
    EXPECT_EQ(changed.bias[at], original.bias[at] / scale) << row;
    for (int64_t i = 0; i < changed.n_in; ++i) {
      const auto element = static_cast<size_t>(row * changed.n_in + i);
      ASSERT_EQ(changed.weight[element], original.weight[element] / scale) << row << " " << i;
    }
  }
}

TEST(SmoothFamilies, a_rotated_layer_gives_the_rotated_output_in_every_dense_family) {
  for (const char* golden : {"qwen", "qwen2-untied", "qwen3-head-dim", "llama-biases"}) {
    SCOPED_TRACE(golden);
    LayerAtWork layer(golden, 0);
    const auto rotation = quant::Rotation::hadamard(layer.config().hidden_size, 7);
    std::vector<float> want = layer.run(layer.weights());
    const int64_t n = layer.config().hidden_size;
    rotation.apply_rows({want.data(), kRows, n, n}, layer.team());
    LayerDraft draft(layer.weights());
    fold_gains(draft);
    rotate_layer(draft, rotation, layer.team());
    EXPECT_LT(relative_difference(layer.run(draft.view(), {}, &rotation), want), 1e-5);
  }
}

}  // namespace
}  // namespace llmq::runtime
