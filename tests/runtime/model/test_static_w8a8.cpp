// Static W8A8 as it is executed, against the published formula and against the float model.

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "formats/error.h"
#include "formats/float16.h"
#include "runtime/model/decoder.h"
#include "runtime/model/model.h"
#include "tests/runtime/model/isa_process.h"
#include "tests/runtime/model/model_testing.h"
#include "tests/runtime/model/w8a8_formula.h"

namespace llmq::runtime {
namespace {

using formats::DType;
using formats::FusedGroup;
using testing::Values;
using testing::W8A8Folder;
using testing::W8A8Input;
using testing::W8A8Linear;

// Models of both dtypes, with and without biases, an odd number of inputs, an untied and a tied
// head.
constexpr const char* kModels[] = {"qwen2-untied", "llama-odd-sizes", "mistral", "qwen2-yarn",
                                   "qwen3-head-dim"};

std::unique_ptr<Model> load(const W8A8Folder& folder, const ModelOptions& options = {}) {
  const testing::TemporaryFolder place;
  folder.write(place.path());
  return Model::load(place.path(), options);
}

std::vector<int32_t> some_tokens() {
  std::vector<int32_t> tokens(40);
  for (size_t i = 0; i < tokens.size(); ++i) tokens[i] = static_cast<int32_t>(i * 31 % 97);
  return tokens;
}

/// Activations of every kind that a code can come from: ordinary ones, ties, multiples of the
/// scale, the ends of the range, far outside of it, infinities, NaN, zeros and subnormals.
Values hard_activations(const W8A8Input& input, int64_t n_cols, uint32_t seed) {
  constexpr float kMax = std::numeric_limits<float>::max();
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0.0F, 60.0F);
  const std::vector<float> special{0.0F,
                                   -0.0F,
                                   0x1p-149F,
                                   -0x1p-149F,
                                   kMax,
                                   -kMax,
                                   kInfinity,
                                   -kInfinity,
                                   std::numeric_limits<float>::quiet_NaN(),
                                   input.scale * (127.0F - input.offset),
                                   input.scale * (127.5F - input.offset),
                                   input.scale * (-128.5F - input.offset),
                                   input.scale * (-129.0F - input.offset)};
  Values x{21, n_cols, {}};
  for (int64_t i = 0; i < x.n_rows * n_cols; ++i) {
    const auto code = static_cast<float>(random() % 256) - 128.0F;
    switch (random() % 4) {
      case 0:
        x.data.push_back((code + 0.5F - input.offset) * input.scale);
        break;
      case 1:
        x.data.push_back((code - input.offset) * input.scale);
        break;
      case 2:
        x.data.push_back(normal(random) * input.scale);
        break;
      default:
        x.data.push_back(random() % 4 == 0 ? special[random() % special.size()]
                                           : normal(random) * input.scale * 50.0F);
    }
  }
  return x;
}

std::vector<float> product(const LinearWeights& linear, const Values& x, quant::ThreadTeam& team) {
  std::vector<float> y(static_cast<size_t>(x.n_rows * linear.n_out));
  apply_linear(linear, x.view(), {y.data(), x.n_rows, linear.n_out, linear.n_out}, team);
  return y;
}

std::vector<float> product_row_by_row(const LinearWeights& linear, const Values& x,
                                      quant::ThreadTeam& team) {
  std::vector<float> y;
  for (int64_t row = 0; row < x.n_rows; ++row) {
    const auto begin = x.data.begin() + row * x.n_cols;
    const std::vector<float> part =
        product(linear, {1, x.n_cols, std::vector<float>(begin, begin + x.n_cols)}, team);
    y.insert(y.end(), part.begin(), part.end());
  }
  return y;
}

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

/// Expects the formula's bits of every linear of a model; returns them.
std::string expect_formula(const char* name, Emulation emulation) {
  const W8A8Folder folder = testing::w8a8_folder(name);
  const auto model = load(folder, {.n_threads = 1, .emulation = emulation});
  const std::vector<testing::NamedLinear> linears = testing::w8a8_linears(*model);
  EXPECT_EQ(linears.size(), folder.linears.size()) << name;
  std::string bits;
  int64_t n_differing = 0;
  for (const testing::NamedLinear& at : linears) {
    const W8A8Linear& linear = folder.linears.at(at.module);
    std::optional<float> reciprocal;
    if (emulation != Emulation::kSpec) {
      const auto exact = static_cast<float>(1.0 / static_cast<double>(linear.input.scale));
      reciprocal = model->config().torch_dtype == DType::kBF16
                       ? formats::bf16_to_float(formats::float_to_bf16(exact))
                       : formats::fp16_to_float(formats::float_to_fp16(exact));
    }
    const Values x =
        hard_activations(linear.input, linear.k, static_cast<uint32_t>(linear.n + at.layer));
    const std::vector<float> want = testing::w8a8_product(linear, x, reciprocal);
    for (const float value : x.data) {
      n_differing += testing::w8a8_code(value, linear.input) !=
                     testing::w8a8_code(value, linear.input, reciprocal);
    }
    for (const int n_threads : {1, 2, 3}) {
      quant::ThreadTeam team(n_threads);
      EXPECT_TRUE(same_bits(product(*at.view, x, team), want))
          << name << " " << at.module << " " << n_threads;
      EXPECT_TRUE(same_bits(product_row_by_row(*at.view, x, team), want))
          << name << " " << at.module << " " << n_threads;
    }
    bits.append(reinterpret_cast<const char*>(want.data()), want.size() * sizeof(float));
  }
  EXPECT_EQ(n_differing > 0, emulation != Emulation::kSpec) << name;
  return bits;
}

// ---- the formula --------------------------------------------------------------------------------

TEST(StaticW8A8, executed_integers_equal_the_published_formula_on_every_linear) {
  std::string bits;
  for (const char* name : kModels) bits += expect_formula(name, Emulation::kSpec);
  if (testing::isa_child_output() != nullptr) testing::write_isa_result(bits);
}

TEST(StaticW8A8, emulated_engines_multiply_by_a_reciprocal_rounded_to_the_models_dtype) {
  std::string bits;
  for (const char* name : kModels) {
    const std::string mindie = expect_formula(name, Emulation::kMindie);
    EXPECT_EQ(expect_formula(name, Emulation::kVllmAscend), mindie);
    bits += mindie;
  }
  if (testing::isa_child_output() != nullptr) testing::write_isa_result(bits);
}

TEST(IsaStaticW8A8, every_instruction_set_executes_the_published_formula) {
  testing::expect_same_result_on_every_isa(
      "StaticW8A8.executed_integers_equal_the_published_formula_on_every_linear");
}

TEST(IsaStaticW8A8, every_instruction_set_executes_the_formula_of_the_engines) {
  testing::expect_same_result_on_every_isa(
      "StaticW8A8.emulated_engines_multiply_by_a_reciprocal_rounded_to_the_models_dtype");
}

// What o and down give is added to the residual stream and nothing else happens to it, and what the
// head gives are the logits.
TEST(StaticW8A8, a_layer_and_the_head_execute_the_formula_on_the_activations_of_the_model) {
  for (const char* name : {"llama-odd-sizes", "mistral"}) {
    const W8A8Folder folder = testing::w8a8_folder(name);
    const auto model = load(folder, {.n_threads = 2});
    const std::vector<int32_t> tokens = some_tokens();
    const testing::LinearInputs inputs = testing::linear_inputs(*model, tokens);
    for (int64_t layer = 0; layer < model->config().n_layers; ++layer) {
      const std::string path = "model.layers." + std::to_string(layer);
      const std::vector<float> o =
          testing::w8a8_product(folder.linears.at(path + ".self_attn.o_proj"),
                                inputs.groups.at({layer, FusedGroup::kAttentionOut}));
      const std::vector<float> down = testing::w8a8_product(
          folder.linears.at(path + ".mlp.down_proj"), inputs.groups.at({layer, FusedGroup::kDown}));
      std::vector<float> want = inputs.hidden[static_cast<size_t>(layer)].data;
      for (size_t i = 0; i < want.size(); ++i) want[i] = (want[i] + o[i]) + down[i];
      EXPECT_TRUE(same_bits(inputs.hidden[static_cast<size_t>(layer + 1)].data, want)) << name;
    }
    EXPECT_TRUE(same_bits(testing::all_logits(*model, tokens),
                          testing::w8a8_product(folder.linears.at("lm_head"), inputs.head)))
        << name;
  }
}

TEST(StaticW8A8, a_row_that_is_looked_up_is_code_times_weight_scale) {
  const W8A8Folder folder = testing::w8a8_folder("llama-odd-sizes");
  const auto model = load(folder);
  const W8A8Linear& linear = folder.linears.at("lm_head");
  std::vector<float> row(static_cast<size_t>(linear.k));
  for (const int64_t index : {int64_t{0}, int64_t{11}, linear.n - 1}) {
    widen_row(model->outer().head, index, row);
    const double scale = static_cast<double>(linear.deq_scale[static_cast<size_t>(index)]) /
                         static_cast<double>(linear.input.scale);
    for (int64_t i = 0; i < linear.k; ++i) {
      const double want = linear.codes[static_cast<size_t>(index * linear.k + i)] * scale;
      // One rounding of the quotient and one of the product.
      EXPECT_NEAR(row[static_cast<size_t>(i)], want, std::abs(want) * 2.01 * 0x1p-24);
    }
  }
}

TEST(StaticW8A8, incomplete_views_are_refused) {
  const auto model = load(testing::w8a8_folder("mistral"));
  const LinearWeights good = model->layer(0).o;
  check_linear(good);
  const auto refused = [&](const auto& damage) {
    LinearWeights view = good;
    damage(view);
    try {
      check_linear(view);
    } catch (const formats::Error& error) {
      return error.code() == formats::ErrorCode::kBadInput;
    }
    return false;
  };
  EXPECT_TRUE(can_execute(formats::Scheme::kW8A8));
  EXPECT_TRUE(refused([](LinearWeights& view) { view.packed = nullptr; }));
  EXPECT_TRUE(refused([](LinearWeights& view) { view.quant_bias = nullptr; }));
  EXPECT_TRUE(refused([](LinearWeights& view) { view.deq_scale = nullptr; }));
  EXPECT_TRUE(refused([](LinearWeights& view) { view.activation.scale = 0.0F; }));
  EXPECT_TRUE(refused([](LinearWeights& view) { view.dtype = DType::kF32; }));
  EXPECT_TRUE(refused([](LinearWeights& view) { view.weight = view.weight.subspan(1); }));
}

// ---- engines ------------------------------------------------------------------------------------

std::vector<float> logits(const W8A8Folder& folder, Emulation emulation) {
  const auto model = load(folder, {.emulation = emulation});
  return testing::all_logits(*model, std::vector<int32_t>{5, 17, 3, 90, 41, 62, 8});
}

TEST(StaticW8A8, engines_give_other_logits_where_the_reciprocal_is_inexact) {
  for (const char* name : kModels) {
    const W8A8Folder folder = testing::w8a8_folder(name);
    const std::vector<float> spec = logits(folder, Emulation::kSpec);
    const std::vector<float> mindie = logits(folder, Emulation::kMindie);
    EXPECT_NE(spec, mindie) << name;
    EXPECT_EQ(logits(folder, Emulation::kVllmAscend), mindie) << name;
  }
}

TEST(StaticW8A8, engines_give_the_same_logits_where_scales_are_powers_of_two) {
  for (const char* name : kModels) {
    std::map<std::string, W8A8Input> inputs;
    for (const auto& [module, linear] : testing::w8a8_folder(name).linears)
      inputs[module] = {.scale = 0x1p-4F, .offset = 5.0F};
    const W8A8Folder folder = testing::w8a8_folder(name, inputs);
    const std::vector<float> spec = logits(folder, Emulation::kSpec);
    EXPECT_EQ(logits(folder, Emulation::kMindie), spec) << name;
    EXPECT_EQ(logits(folder, Emulation::kVllmAscend), spec) << name;
  }
}

// Engines hold input_scale in the model's dtype, also where a folder stores it in float32, and take
// the reciprocal of that.
TEST(StaticW8A8, engines_round_a_float32_scale_before_they_take_the_reciprocal) {
  W8A8Folder folder = testing::w8a8_folder("mistral");
  const auto round = [](float x) { return formats::bf16_to_float(formats::float_to_bf16(x)); };
  float scale = 0.05F;
  while (round(1.0F / round(scale)) == round(1.0F / scale)) scale *= 1.001F;
  const auto with_scale = [&](DType dtype) {
    for (const auto& [module, linear] : folder.linears)
      folder.tensors[module + ".input_scale"] = testing::float_tensor(dtype, {1}, {scale});
    return logits(folder, Emulation::kVllmAscend);
  };
  const std::vector<float> rounded = with_scale(DType::kBF16);
  EXPECT_EQ(with_scale(DType::kF32), rounded);
}

// ---- the float model ----------------------------------------------------------------------------

/// Scale and offset for 8-bit codes of everything in `x`, a value of float16 and bfloat16.
W8A8Input input_for(const Values& x) {
  const auto [smallest, largest] = std::minmax_element(x.data.begin(), x.data.end());
  const float low = std::min(*smallest, 0.0F);
  const float high = std::max(*largest, 0.0F);
  int exponent = 0;
  // Seven bits after the first, rounded up.
  const float fraction = std::frexp((high - low) / 255.0F, &exponent);
  const float scale = std::ldexp(std::ceil(fraction * 256.0F + 1.0F) / 256.0F, exponent);
  return {scale, std::nearbyint(-low / scale) - 128.0F};
}

struct Calibrated {
  std::unique_ptr<Model> floats;
  testing::LinearInputs inputs;
  W8A8Folder folder;
  std::unique_ptr<Model> codes;
  std::vector<testing::NamedLinear> linears;
  std::vector<int32_t> tokens;

  [[nodiscard]] const Values& input_of(const testing::NamedLinear& at) const {
    return at.layer < 0 ? inputs.head : inputs.groups.at({at.layer, at.group});
  }
};

Calibrated calibrate(const char* name) {
  Calibrated c;
  c.floats = Model::load(testing::golden_root() / name);
  c.tokens = some_tokens();
  c.inputs = testing::linear_inputs(*c.floats, c.tokens);
  c.codes = load(testing::w8a8_folder(name));
  std::map<std::string, W8A8Input> inputs;
  for (const testing::NamedLinear& at : testing::w8a8_linears(*c.codes))
    inputs[at.module] = input_for(c.input_of(at));
  c.folder = testing::w8a8_folder(name, inputs);
  c.codes = load(c.folder);
  c.linears = testing::w8a8_linears(*c.codes);
  return c;
}

/// Mean squares of a linear's outputs: of the float model's, and of their error.
struct OutputError {
  double signal = 0.0;
  double noise = 0.0;
};

/// Expects the outputs of `at` within half a step of every activation and weight, and of the bias.
OutputError expect_near_float(const Calibrated& c, const testing::NamedLinear& at) {
  const W8A8Linear& linear = c.folder.linears.at(at.module);
  const Values& x = c.input_of(at);
  quant::ThreadTeam team(1);
  const std::vector<float> y = product(*at.view, x, team);
  OutputError error;
  double worst = 0.0;
  for (size_t at_y = 0; at_y < y.size(); ++at_y) {
    const size_t row = at_y / static_cast<size_t>(linear.n);
    const size_t col = at_y % static_cast<size_t>(linear.n);
    const double step = linear.weight_scale[col];
    double want = linear.float_bias[col];
    double magnitude = std::abs(want);
    double bound = 0.5 * linear.deq_scale[col];
    for (size_t i = 0; i < static_cast<size_t>(linear.k); ++i) {
      const double value = x.data[row * static_cast<size_t>(linear.k) + i];
      const double weight = linear.float_weight[col * static_cast<size_t>(linear.k) + i];
      const double coded = linear.codes[col * static_cast<size_t>(linear.k) + i] * step;
      want += value * weight;
      magnitude += std::abs(value * weight);
      bound += 0.5 * (std::abs(value) * step + std::abs(coded) * linear.input.scale);
    }
    // Roundings to float32: of x / scale and its sum with the offset (2^-15 steps), of weight and
    // deq_scale, of the sum and of the product.
    bound += bound * 0x1p-13 + magnitude * 8 * 0x1p-24;
    const double difference = std::abs(y[at_y] - want);
    worst = std::max(worst, difference / bound);
    error.signal += want * want / static_cast<double>(y.size());
    error.noise += difference * difference / static_cast<double>(y.size());
  }
  EXPECT_LE(worst, 1.0) << at.module;
  EXPECT_GT(error.noise, 0.0) << at.module;
  return error;
}

TEST(StaticW8A8, every_linear_is_within_half_steps_of_the_float_model) {
  for (const char* name : kModels) {
    const Calibrated c = calibrate(name);
    for (const testing::NamedLinear& at : c.linears) expect_near_float(c, at);
  }
}

// Errors of linears are all but independent of each other; norms pass a relative error on as it is
// and residuals dilute it, so that the error of the logits is that of all linears, added in
// squares, at most. Attention's softmax and the products of the MLP may double it.
TEST(StaticW8A8, logits_are_off_by_no_more_than_the_errors_of_all_linears_together) {
  for (const char* name : kModels) {
    const Calibrated c = calibrate(name);
    double relative_noise = 0.0;
    for (const testing::NamedLinear& at : c.linears) {
      const OutputError error = expect_near_float(c, at);
      relative_noise += error.noise / error.signal;
    }
    const std::vector<float> want = testing::all_logits(*c.floats, c.tokens);
    const std::vector<float> got = testing::all_logits(*c.codes, c.tokens);
    double signal = 0.0;
    double noise = 0.0;
    for (size_t i = 0; i < want.size(); ++i) {
      signal += static_cast<double>(want[i]) * want[i];
      noise += std::pow(static_cast<double>(got[i]) - want[i], 2);
    }
    EXPECT_GT(noise, 0.0);
    EXPECT_LE(noise / signal, 4.0 * relative_noise) << name;
    RecordProperty(std::string("relative_error_") + name,
                   std::to_string(std::sqrt(noise / signal)));
    RecordProperty(std::string("estimate_") + name, std::to_string(std::sqrt(relative_noise)));
  }
}

}  // namespace
}  // namespace llmq::runtime
