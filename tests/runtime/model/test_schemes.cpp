// Schemes beside static W8A8 and W8A16 as they are executed, against their formulas.

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "runtime/model/model.h"
#include "tests/runtime/model/model_testing.h"
#include "tests/runtime/model/scheme_folders.h"
#include "tests/runtime/model/w8a8_formula.h"

namespace llmq::runtime {
namespace {

using formats::Scheme;
using testing::Values;
using testing::W8A8Folder;
using testing::W8A8Linear;
using testing::WeightOnlyFolder;
using testing::WeightOnlyFormat;

constexpr const char* kModels[] = {"qwen2-untied", "llama-odd-sizes", "mistral", "qwen3-head-dim"};

template <typename Folder>
std::unique_ptr<Model> load(const Folder& folder, const ModelOptions& options = {}) {
  const testing::TemporaryFolder place;
  folder.write(place.path());
  return Model::load(place.path(), options);
}

/// Rows of ordinary values, of zeros, of halves of a code, of one outlier, and of subnormals.
Values activations(int64_t n_cols, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  Values x{9, n_cols, std::vector<float>(static_cast<size_t>(9 * n_cols))};
  for (int64_t row = 0; row < 9; ++row) {
    float* to = x.data.data() + row * n_cols;
    for (int64_t i = 0; i < n_cols; ++i) {
      to[i] = row == 1   ? 0.0F
              : row == 2 ? (static_cast<float>(random() % 255) - 127.0F) * 0.5F
              : row == 3 ? 0x1p-140F * static_cast<float>(random() % 9)
                         : normal(random) * std::ldexp(1.0F, static_cast<int>(row));
    }
    if (row == 2) to[0] = 127.0F;
    if (row == 4) to[n_cols - 1] = -30000.0F;
  }
  return x;
}

std::vector<float> product(const LinearWeights& linear, const Values& x, Phase phase) {
  quant::ThreadTeam team(2);
  std::vector<float> y(static_cast<size_t>(x.n_rows * linear.n_out));
  apply_linear(linear, x.view(), {y.data(), x.n_rows, linear.n_out, linear.n_out}, team, phase);
  return y;
}

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

TEST(Schemes, dynamic_w8a8_equals_its_formula_with_the_float_bias_in_both_phases) {
  int64_t n_biases = 0;
  for (const char* name : kModels) {
    const W8A8Folder folder = testing::int8_folder(name, "W8A8_DYNAMIC");
    const auto model = load(folder);
    const auto linears = testing::w8a8_linears(*model, Scheme::kW8A8Dynamic);
    EXPECT_EQ(linears.size(), folder.linears.size());
    for (const auto& at : linears) {
      const W8A8Linear& linear = folder.linears.at(at.module);
      n_biases += at.view->bias != nullptr ? 1 : 0;
      const Values x = activations(linear.k, static_cast<uint32_t>(linear.n));
      const std::vector<float> want = testing::dynamic_product(linear, x);
      EXPECT_TRUE(same_bits(product(*at.view, x, Phase::kPrefill), want)) << at.module;
      EXPECT_TRUE(same_bits(product(*at.view, x, Phase::kDecode), want)) << at.module;
    }
  }
  EXPECT_GT(n_biases, 0);
}

TEST(Schemes, mixed_w8a8_is_dynamic_in_prefill_and_static_in_decode) {
  for (const char* name : kModels) {
    const W8A8Folder folder = testing::int8_folder(name, "W8A8_MIX");
    const auto model = load(folder);
    const auto linears = testing::w8a8_linears(*model, Scheme::kW8A8Mix);
    EXPECT_EQ(linears.size(), folder.linears.size());
    for (const auto& at : linears) {
      const W8A8Linear& linear = folder.linears.at(at.module);
      const Values x = activations(linear.k, static_cast<uint32_t>(linear.n));
      EXPECT_TRUE(
          same_bits(product(*at.view, x, Phase::kPrefill), testing::dynamic_product(linear, x)))
          << at.module;
      EXPECT_TRUE(same_bits(product(*at.view, x, Phase::kDecode), testing::w8a8_product(linear, x)))
          << at.module;
    }
  }
}

TEST(Schemes, sparse_w8a8_runs_as_static_w8a8_without_weight_scales) {
  const std::vector<int32_t> tokens{5, 17, 3, 90, 41, 62, 8};
  for (const char* name : {"qwen2-untied", "llama-odd-sizes"}) {
    const auto sparse = load(testing::int8_folder(name, "W8A8S"));
    const auto dense = load(testing::w8a8_folder(name));
    EXPECT_EQ(sparse->layer(0).q.scheme, Scheme::kW8A8S);
    EXPECT_EQ(testing::all_logits(*sparse, tokens), testing::all_logits(*dense, tokens));
  }
}

TEST(Schemes, only_mixed_w8a8_differs_by_phase) {
  for (const formats::SchemeRow& row : formats::schemes())
    EXPECT_EQ(differs_by_phase(row.scheme), row.scheme == Scheme::kW8A8Mix) << row.tag;
}

TEST(Schemes, rows_of_scaled_codes_are_looked_up) {
  for (const char* tag : {"W8A8_DYNAMIC", "W8A8_MIX"}) {
    const W8A8Folder folder = testing::int8_folder("llama-odd-sizes", tag);
    const auto model = load(folder);
    const W8A8Linear& linear = folder.linears.at("lm_head");
    std::vector<float> row(static_cast<size_t>(linear.k));
    widen_row(model->outer().head, 11, row);
    for (int64_t i = 0; i < linear.k; ++i) {
      EXPECT_EQ(row[static_cast<size_t>(i)],
                static_cast<float>(linear.codes[static_cast<size_t>(11 * linear.k + i)]) *
                    linear.weight_scale[11]);
    }
  }
}

// ---- weight only --------------------------------------------------------------------------------

std::vector<WeightOnlyFormat> weight_only_formats() {
  std::vector<WeightOnlyFormat> formats;
  for (const char* tag : {"W4A16", "W8A16"}) {
    for (const int64_t group_size : {0, 8}) {
      for (const bool is_asymmetric : {false, true})
        formats.push_back({tag, group_size, is_asymmetric, true});
    }
  }
  return formats;
}

std::string title(const WeightOnlyFormat& format) {
  return format.tag + " group " + std::to_string(format.group_size) +
         (format.is_asymmetric ? " asymmetric" : " symmetric");
}

TEST(Schemes, weight_only_products_and_rows_equal_the_dequantized_weights_in_float64) {
  for (const WeightOnlyFormat& format : weight_only_formats()) {
    for (const char* name : {"qwen2-untied", "qwen2-yarn"}) {
      const WeightOnlyFolder folder = testing::weight_only_folder(name, format);
      const auto model = load(folder);
      const auto linears = testing::w8a8_linears(*model, formats::parse_scheme_tag(format.tag));
      EXPECT_EQ(linears.size(), 15U);
      for (const auto& at : linears) {
        const LinearWeights& view = *at.view;
        EXPECT_EQ(view.group_size, format.group_size);
        const std::vector<float> w =
            testing::float_values(folder.dequantized.at(at.module + ".weight"));
        const Values x = activations(view.n_in, 7);
        const std::vector<float> y = product(view, x, Phase::kPrefill);
        // Terms of one of 16 lanes, four levels of their tree, the dequantization, scale and bias.
        const double n_roundings = static_cast<double>(view.n_in) / 16 + 1 + 4 + 3;
        for (int64_t i = 0; i < x.n_rows * view.n_out; ++i) {
          const int64_t row = i / view.n_out;
          const int64_t col = i % view.n_out;
          double want = view.bias == nullptr ? 0.0 : view.bias[col];
          double magnitude = std::abs(want);
          for (int64_t j = 0; j < view.n_in; ++j) {
            const double term =
                static_cast<double>(x.data[static_cast<size_t>(row * view.n_in + j)]) *
                w[static_cast<size_t>(col * view.n_in + j)];
            want += term;
            magnitude += std::abs(term);
          }
          // Products below the normal range are rounded to multiples of 2^-149.
          EXPECT_NEAR(
              y[static_cast<size_t>(i)], want,
              magnitude * n_roundings * 0x1p-24 + static_cast<double>(view.n_in + 1) * 0x1p-150)
              << title(format) << " " << at.module;
        }
        std::vector<float> looked_up(static_cast<size_t>(view.n_in));
        widen_row(view, view.n_out - 1, looked_up);
        EXPECT_TRUE(same_bits(looked_up, {w.end() - view.n_in, w.end()})) << title(format);
      }
    }
  }
}

// The kernel of groups dequantizes first, so that even the bits are those of the float model.
TEST(Schemes, grouped_weights_give_the_logits_of_the_dequantized_model) {
  const std::vector<int32_t> tokens{5, 17, 3, 90, 41, 62, 8};
  for (const WeightOnlyFormat& format : weight_only_formats()) {
    if (format.group_size == 0) continue;
    const WeightOnlyFolder folder = testing::weight_only_folder("qwen2-untied", format);
    const testing::TemporaryFolder place;
    testing::write_model(place.path(), folder.config, folder.dequantized);
    const auto floats = Model::load(place.path());
    EXPECT_EQ(testing::all_logits(*load(folder), tokens), testing::all_logits(*floats, tokens))
        << title(format);
  }
}

TEST(Schemes, int4_codes_one_a_byte_run_as_packed_ones) {
  const std::vector<int32_t> tokens{5, 17, 3, 90, 41, 62, 8};
  for (const int64_t group_size : {0, 8}) {
    WeightOnlyFormat format{"W4A16", group_size, false, true};
    const auto packed = load(testing::weight_only_folder("qwen2-yarn", format));
    format.is_packed = false;
    WeightOnlyFolder folder = testing::weight_only_folder("qwen2-yarn", format);
    folder.description.erase("version");
    folder.description.erase("group_size");
    EXPECT_EQ(testing::all_logits(*load(folder), tokens), testing::all_logits(*packed, tokens));
  }
}

}  // namespace
}  // namespace llmq::runtime
