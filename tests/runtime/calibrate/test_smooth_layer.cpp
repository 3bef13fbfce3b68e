// Folding gains, rotating and smoothing change the numbers of a layer, never its function.

#include "runtime/calibrate/smooth_layer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "formats/error.h"
#include "formats/float16.h"
#include "runtime/attention/kv_cache.h"
#include "tests/runtime/model/linear_inputs.h"
#include "tests/runtime/model/model_testing.h"

namespace llmq::runtime {
namespace {

using formats::DType;
using formats::FusedGroup;
using formats::Role;
using quant::SmoothMethod;
using quant::SmoothSpec;
using testing::Values;

constexpr std::array<Subgraph, 4> kAllSubgraphs{Subgraph::kNormQkv, Subgraph::kNormGateUp,
                                                Subgraph::kVO, Subgraph::kUpDown};
constexpr std::array<Role, 7> kLinears{Role::kQ,    Role::kK,  Role::kV,   Role::kO,
                                       Role::kGate, Role::kUp, Role::kDown};

/// A golden model, its last layer and what that layer reads of a text.
class LayerAtWork {
 public:
  explicit LayerAtWork(const char* golden)
      : folder_(testing::golden_root() / golden),
        config_(formats::read_model_config(folder_)),
        checkpoint_(formats::Checkpoint::open(folder_)),
        loader_({&checkpoint_, &config_, nullptr}, team_),
        layer_(config_.n_layers - 1),
        weights_(loader_.layer(layer_)),
        runner_(config_, team_) {
    const auto model = Model::load(folder_, {.n_threads = 1});
    std::vector<int32_t> tokens;
    tokens.reserve(40);
    for (int32_t i = 0; i < 40; ++i)
      tokens.push_back(static_cast<int32_t>((i * 37 + i * i % 11) % config_.vocab_size));
    inputs_ = testing::linear_inputs(*model, tokens);
  }

  [[nodiscard]] const formats::ModelConfig& config() const { return config_; }
  [[nodiscard]] const LayerWeights& weights() const { return weights_; }
  [[nodiscard]] const Values& hidden() const {
    return inputs_.hidden.at(static_cast<size_t>(layer_));
  }
  [[nodiscard]] quant::ThreadTeam& team() { return team_; }

  /// What the layer adds to `hidden`.
  Values run(const LayerWeights& weights, const Values& hidden,
             const LayerObserver& observer = {}) {
    KvCache cache({.n_layers = 1, .n_kv_heads = config_.n_kv_heads, .head_dim = config_.head_dim});
    const std::vector<BatchSegment> segments{{&cache, 0, hidden.n_rows, 0}};
    runner_.begin(segments);
    Values after = hidden;
    runner_.run_layer(weights, {layer_, 0},
                      {after.data.data(), after.n_rows, after.n_cols, after.n_cols}, observer);
    for (size_t i = 0; i < after.data.size(); ++i) after.data[i] -= hidden.data[i];
    return after;
  }

  /// What the linears of these weights read.
  ChannelsByGroup channels(const LayerWeights& weights) {
    std::map<FusedGroup, quant::ChannelObserver> observers;
    LayerObserver observer;
    observer.linear_input = [&](const LinearInput& input) {
      observers[input.group].observe(input.x);
    };
    (void)run(weights, hidden(), observer);
    ChannelsByGroup channels;
    for (const auto& [group, one] : observers) channels.emplace(group, one.statistics());
    return channels;
  }

 private:
  std::filesystem::path folder_;
  quant::ThreadTeam team_{2};
  formats::ModelConfig config_;
  formats::Checkpoint checkpoint_;
  WeightLoader loader_;
  int64_t layer_;
  LayerWeights weights_;
  DecoderRunner runner_;
  testing::LinearInputs inputs_;
};

double norm_of(const std::vector<float>& values) {
  double sum = 0.0;
  for (const float value : values) sum += static_cast<double>(value) * value;
  return std::sqrt(sum);
}

/// Length of a − b over that of b.
double relative_difference(const Values& a, const Values& b) {
  std::vector<float> difference(a.data.size());
  for (size_t i = 0; i < difference.size(); ++i) difference[i] = a.data[i] - b.data[i];
  return norm_of(difference) / norm_of(b.data);
}

/// The bar for transformations that keep the function: far above float32's own rounding, which is
/// some 1e-7 a sum, and far below what any wrong scale would make.
constexpr double kSameFunction = 1e-5;

class SameFunction : public ::testing::TestWithParam<const char*> {
 protected:
  LayerAtWork work_{GetParam()};
};

TEST_P(SameFunction, EveryMethodOnEverySubgraph) {
  const Values before = work_.run(work_.weights(), work_.hidden());
  const ChannelsByGroup channels = work_.channels(work_.weights());
  for (const SmoothMethod method : {SmoothMethod::kM1, SmoothMethod::kM2, SmoothMethod::kM3,
                                    SmoothMethod::kM4, SmoothMethod::kM6}) {
    for (const Subgraph subgraph : kAllSubgraphs) {
      for (const DType dtype : {DType::kF32, DType::kBF16, DType::kF16}) {
        LayerDraft draft(work_.weights());
        const SmoothReport report = smooth_subgraph(draft, work_.config(), channels, subgraph,
                                                    SmoothSpec{method}, dtype, work_.team());
        EXPECT_EQ(report.subgraph, subgraph);
        EXPECT_LE(relative_difference(work_.run(draft.view(), work_.hidden()), before),
                  kSameFunction)
            << quant::smooth_method_name(method) << ' ' << subgraph_name(subgraph) << ' '
            << formats::dtype_name(dtype);
        float change = 0.0F;
        for (const float scale : report.decision.scale)
          change = std::max(change, std::abs(scale - 1.0F));
        if (method != SmoothMethod::kM3 && method != SmoothMethod::kM6) {
          EXPECT_GT(change, 0.01F) << "something was done";
        }
      }
    }
  }
}

TEST_P(SameFunction, AllSubgraphsOneAfterTheOther) {
  const Values before = work_.run(work_.weights(), work_.hidden());
  LayerDraft draft(work_.weights());
  for (const Subgraph subgraph :
       {Subgraph::kVO, Subgraph::kUpDown, Subgraph::kNormQkv, Subgraph::kNormGateUp}) {
    (void)smooth_subgraph(draft, work_.config(), work_.channels(draft.view()), subgraph,
                          {SmoothMethod::kM2}, DType::kBF16, work_.team());
  }
  EXPECT_LE(relative_difference(work_.run(draft.view(), work_.hidden()), before), kSameFunction);
}

TEST_P(SameFunction, FoldedGains) {
  const Values before = work_.run(work_.weights(), work_.hidden());
  LayerDraft draft(work_.weights());
  fold_gains(draft);
  for (const Role role : {Role::kInputNorm, Role::kPostAttentionNorm}) {
    EXPECT_THAT(draft.norm(role).weight, ::testing::Each(1.0F));
    EXPECT_THAT(draft.norm(role).bias, ::testing::Each(0.0F));
  }
  EXPECT_LE(relative_difference(work_.run(draft.view(), work_.hidden()), before), kSameFunction);
}

// Biases of norms come from shifting; what folds them in puts them behind the linears.
TEST_P(SameFunction, FoldedGainsOfShiftedNorms) {
  const Values before = work_.run(work_.weights(), work_.hidden());
  LayerDraft draft(work_.weights());
  for (const Subgraph subgraph : {Subgraph::kNormQkv, Subgraph::kNormGateUp}) {
    (void)smooth_subgraph(draft, work_.config(), work_.channels(draft.view()), subgraph,
                          {SmoothMethod::kM2}, DType::kF32, work_.team());
  }
  EXPECT_GT(norm_of(draft.norm(Role::kInputNorm).bias), 0.0);
  fold_gains(draft);
  EXPECT_LE(relative_difference(work_.run(draft.view(), work_.hidden()), before), kSameFunction);
}

TEST_P(SameFunction, RotatedResidualStream) {
  const Values before = work_.run(work_.weights(), work_.hidden());
  const auto rotation = quant::Rotation::hadamard(work_.config().hidden_size, 7);
  const auto rotated = [&](Values values) {
    rotation.apply_rows({values.data.data(), values.n_rows, values.n_cols, values.n_cols},
                        work_.team());
    return values;
  };
  LayerDraft draft(work_.weights());
  fold_gains(draft);
  rotate_layer(draft, rotation, work_.team());
  const Values after = work_.run(draft.view(), rotated(work_.hidden()));
  EXPECT_LE(relative_difference(after, rotated(before)), kSameFunction);
  EXPECT_GT(relative_difference(after, before), 0.1) << "something was done";
}

TEST_P(SameFunction, NormsAreValuesOfTheModelsDtype) {
  for (const SmoothMethod method : {SmoothMethod::kM2, SmoothMethod::kM4}) {
    LayerDraft draft(work_.weights());
    (void)smooth_subgraph(draft, work_.config(), work_.channels(work_.weights()),
                          Subgraph::kNormGateUp, {method}, DType::kBF16, work_.team());
    const NormDraft& norm = draft.norm(Role::kPostAttentionNorm);
    EXPECT_EQ(norm.bias.empty(), method != SmoothMethod::kM2);
    for (const auto* values : {&norm.weight, &norm.bias}) {
      for (const float value : *values)
        EXPECT_EQ(formats::bf16_to_float(formats::float_to_bf16(value)), value);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Goldens, SameFunction,
                         ::testing::Values("qwen2-tied", "qwen2-untied", "llama-biases",
                                           "llama-odd-sizes", "llama-llama3-rope",
                                           "llama2-multi-head", "qwen3-head-dim", "mistral-window",
                                           "qwen3-layer-types"),
                         [](const auto& model) {
                           std::string name = model.param;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

/// A power of two a channel; scaling by it is exact.
float power(size_t channel) {
  return std::ldexp(1.0F, static_cast<int>(channel * 5 % 9) - 4);
}

/// Moves gains from the readers of a norm, and of v and up, into their producers: the function is
/// the same bit for bit.
void move_gains(LayerDraft& draft, const formats::ModelConfig& config) {
  const auto columns = [](LinearDraft& linear, auto gain_of) {
    const auto n_in = static_cast<size_t>(linear.n_in);
    for (size_t i = 0; i < linear.weight.size(); ++i) linear.weight[i] /= power(gain_of(i % n_in));
  };
  const auto rows = [](LinearDraft& linear) {
    const auto n_in = static_cast<size_t>(linear.n_in);
    for (size_t i = 0; i < linear.weight.size(); ++i) linear.weight[i] *= power(i / n_in);
    for (size_t row = 0; row < linear.bias.size(); ++row) linear.bias[row] *= power(row);
  };
  const auto self = [](size_t i) { return i; };
  for (const Role role : {Role::kInputNorm, Role::kPostAttentionNorm}) {
    NormDraft& norm = draft.norm(role);
    for (size_t i = 0; i < norm.weight.size(); ++i) norm.weight[i] *= power(i);
  }
  for (const Role role : {Role::kQ, Role::kK, Role::kV, Role::kGate, Role::kUp})
    columns(*draft.linear(role), self);
  rows(*draft.linear(Role::kV));
  rows(*draft.linear(Role::kUp));
  columns(*draft.linear(Role::kDown), self);
  const auto head_dim = static_cast<size_t>(config.head_dim);
  const auto group = static_cast<size_t>(config.n_heads / config.n_kv_heads);
  columns(*draft.linear(Role::kO),
          [&](size_t i) { return i / head_dim / group * head_dim + i % head_dim; });
}

// Scales are products of powers of magnitudes whose exponents add up to one, so they follow the
// gains. With norms of 16 bits all that float64's last bit may change is rounded away, and what the
// scale is then left to be is exact: the layers that come out are the same bit for bit. Producers
// that are linears are not rounded; their scales may differ in the last place.
TEST(Equivariance, PureGainRescalingIsUndoneExactly) {
  for (const char* golden : {"qwen2-tied", "llama-odd-sizes", "qwen3-head-dim"}) {
    LayerAtWork work(golden);
    LayerDraft moved(work.weights());
    move_gains(moved, work.config());
    ASSERT_EQ(work.run(moved.view(), work.hidden()).data,
              work.run(work.weights(), work.hidden()).data)
        << golden << ": not the same function to begin with";
    for (const SmoothMethod method : {SmoothMethod::kM1, SmoothMethod::kM2, SmoothMethod::kM3,
                                      SmoothMethod::kM4, SmoothMethod::kM6}) {
      SCOPED_TRACE(std::string(golden) + ' ' + std::string(quant::smooth_method_name(method)));
      LayerDraft a(work.weights());
      LayerDraft b(moved.view());
      for (const Subgraph subgraph :
           {Subgraph::kVO, Subgraph::kUpDown, Subgraph::kNormQkv, Subgraph::kNormGateUp}) {
        for (LayerDraft* draft : {&a, &b}) {
          (void)smooth_subgraph(*draft, work.config(), work.channels(draft->view()), subgraph,
                                {method}, DType::kBF16, work.team());
        }
      }
      for (const Role role : {Role::kInputNorm, Role::kPostAttentionNorm}) {
        EXPECT_EQ(a.norm(role).weight, b.norm(role).weight);
        EXPECT_EQ(a.norm(role).bias, b.norm(role).bias);
      }
      for (const Role role : kLinears) {
        const LinearDraft& one = *a.linear(role);
        const LinearDraft& other = *b.linear(role);
        EXPECT_EQ(one.weight, other.weight) << formats::role_name(role);
        EXPECT_EQ(one.bias, other.bias) << formats::role_name(role);
      }
    }
  }
}

TEST(SmoothSubgraph, MissingStatisticsAreAnError) {
  LayerAtWork work("qwen2-tied");
  LayerDraft draft(work.weights());
  try {
    (void)smooth_subgraph(draft, work.config(), {}, Subgraph::kUpDown, {}, DType::kF32,
                          work.team());
    FAIL() << "nothing was thrown";
  } catch (const formats::Error& error) {
    EXPECT_EQ(error.code(), formats::ErrorCode::kInternal);
    EXPECT_THAT(error.what(), ::testing::HasSubstr("up_down"));
  }
}

TEST(RotateLayer, ARotationOfOtherChannelsIsAnError) {
  LayerAtWork work("qwen2-tied");
  LayerDraft draft(work.weights());
  fold_gains(draft);
  EXPECT_THROW(rotate_layer(draft, quant::Rotation::hadamard(16, 1), work.team()), formats::Error);
}

TEST(LayerDraft, CopiesAreMadeWhenAskedForAndWhatIsNotThereIsNull) {
  LayerAtWork work("qwen2-tied");
  LayerDraft draft(work.weights());
  EXPECT_EQ(draft.find_linear(Role::kQ), nullptr);
  EXPECT_EQ(draft.find_norm(Role::kInputNorm), nullptr);
  EXPECT_EQ(draft.view().q.weight.data(), work.weights().q.weight.data()) << "nothing is copied";
  EXPECT_EQ(draft.linear(Role::kRouter), nullptr);
  LinearDraft* q = draft.linear(Role::kQ);
  ASSERT_NE(q, nullptr);
  EXPECT_EQ(draft.find_linear(Role::kQ), q);
  EXPECT_EQ(draft.linear(Role::kQ), q) << "one copy";
  EXPECT_EQ(q->bias.size(), static_cast<size_t>(q->n_out));
  EXPECT_EQ(draft.view().k.weight.data(), work.weights().k.weight.data());
  const Values before = work.run(work.weights(), work.hidden());
  for (const Role role : kLinears) (void)draft.linear(role);
  EXPECT_EQ(work.run(draft.view(), work.hidden()).data, before.data) << "copies are exact";
  EXPECT_THROW((void)draft.norm(Role::kFinalNorm), formats::Error);
}

}  // namespace
}  // namespace llmq::runtime
