#include "runtime/attention/rope.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numbers>

#include "formats/error.h"
#include "quant/kernels/elementwise/elementwise.h"

namespace llmq::runtime {
namespace {

using formats::ModelConfig;
using formats::RopeScaling;
using formats::RopeScalingKind;

constexpr double kPi = std::numbers::pi;

int64_t rotary_dim_of(const ModelConfig& config) {
  const auto dim =
      static_cast<int64_t>(static_cast<double>(config.head_dim) * config.partial_rotary_factor);
  if (dim < 2 || dim % 2 != 0) {
    throw formats::bad_input(
        fmt::format("partial_rotary_factor {} rotates {} of the {} lanes of a head; the number "
                    "must be even and at least 2",
                    config.partial_rotary_factor, dim, config.head_dim));
  }
  return dim;
}

double original_positions(const ModelConfig& config) {
  return static_cast<double>(config.rope_scaling.original_max_position_embeddings.value_or(
      config.max_position_embeddings));
}

double llama3_frequency(double plain, const RopeScaling& scaling, double original) {
  const double wavelength = 2.0 * kPi / plain;
  if (wavelength < original / scaling.high_freq_factor) return plain;
  if (wavelength > original / scaling.low_freq_factor) return plain / scaling.factor;
  const double blend = (original / wavelength - scaling.low_freq_factor) /
                       (scaling.high_freq_factor - scaling.low_freq_factor);
  return (1.0 - blend) * plain / scaling.factor + blend * plain;
}

/// YaRN's ramp over pairs: 0 keeps a frequency, 1 divides it by the factor.
struct YarnRamp {
  double first;
  double last;

  YarnRamp(const ModelConfig& config, double dim) {
    const RopeScaling& scaling = config.rope_scaling;
    const double original = original_positions(config);
    const auto pair_of_turns = [&](double turns) {
      return dim * std::log(original / (2.0 * kPi * turns)) / (2.0 * std::log(config.rope_theta));
    };
    first = pair_of_turns(scaling.beta_fast);
    last = pair_of_turns(scaling.beta_slow);
    if (scaling.truncate) {
      first = std::floor(first);
      last = std::ceil(last);
    }
    first = std::max(first, 0.0);
    last = std::min(last, dim - 1.0);
    if (first == last) last += 0.001;
  }

  [[nodiscard]] double at(int64_t pair) const {
    return std::clamp((static_cast<double>(pair) - first) / (last - first), 0.0, 1.0);
  }
};

double yarn_temperature(double factor, double mscale) {
  return factor <= 1.0 ? 1.0 : 0.1 * mscale * std::log(factor) + 1.0;
}

double yarn_attention_factor(const RopeScaling& scaling) {
  if (scaling.attention_factor) return *scaling.attention_factor;
  const double mscale = scaling.mscale.value_or(0.0);
  const double mscale_all_dim = scaling.mscale_all_dim.value_or(0.0);
  if (mscale != 0.0 && mscale_all_dim != 0.0) {
    return yarn_temperature(scaling.factor, mscale) /
           yarn_temperature(scaling.factor, mscale_all_dim);
  }
  return yarn_temperature(scaling.factor, 1.0);
}

void scale_frequencies(const ModelConfig& config, std::vector<double>& frequencies) {
  const RopeScaling& scaling = config.rope_scaling;
  const auto n_pairs = static_cast<int64_t>(frequencies.size());
  switch (scaling.kind) {
    case RopeScalingKind::kNone:
      return;
    case RopeScalingKind::kLinear:
      for (double& frequency : frequencies) frequency /= scaling.factor;
      return;
    case RopeScalingKind::kLlama3:
      for (double& frequency : frequencies)
        frequency = llama3_frequency(frequency, scaling, original_positions(config));
      return;
    case RopeScalingKind::kYarn: {
      const YarnRamp ramp(config, static_cast<double>(2 * n_pairs));
      for (int64_t pair = 0; pair < n_pairs; ++pair) {
        const double weight = ramp.at(pair);
        double& frequency = frequencies[static_cast<size_t>(pair)];
        frequency = weight * frequency / scaling.factor + (1.0 - weight) * frequency;
      }
      return;
    }
    case RopeScalingKind::kDynamic:
    case RopeScalingKind::kLongRope:
      break;
  }
  throw formats::bad_input(
      fmt::format("rope_scaling of type {} is not supported; known are linear, llama3 and yarn",
                  scaling.kind == RopeScalingKind::kDynamic ? "dynamic" : "longrope"));
}

}  // namespace

RopeFrequencies rope_frequencies(const ModelConfig& config) {
  const int64_t dim = rotary_dim_of(config);
  std::vector<double> exact(static_cast<size_t>(dim / 2));
  for (size_t pair = 0; pair < exact.size(); ++pair) {
    const double exponent = -2.0 * static_cast<double>(pair) / static_cast<double>(dim);
    exact[pair] = std::pow(config.rope_theta, exponent);
  }
  scale_frequencies(config, exact);

  RopeFrequencies result;
  result.inv_freq.reserve(exact.size());
  for (const double frequency : exact) result.inv_freq.push_back(static_cast<float>(frequency));
  if (config.rope_scaling.kind == RopeScalingKind::kYarn)
    result.attention_factor = yarn_attention_factor(config.rope_scaling);
  return result;
}

int64_t max_positions(const ModelConfig& config) {
  const RopeScaling& scaling = config.rope_scaling;
  if (scaling.kind != RopeScalingKind::kLinear && scaling.kind != RopeScalingKind::kYarn)
    return config.max_position_embeddings;
  constexpr double kMost = 9e15;  // whole numbers in float64
  const double extended = std::min(std::floor(original_positions(config) * scaling.factor), kMost);
  return std::max(config.max_position_embeddings, static_cast<int64_t>(extended));
}

void RopeTable::set_positions(std::span<const int64_t> positions) {
  const size_t n_pairs = frequencies_.inv_freq.size();
  cos_.resize(positions.size() * n_pairs);
  sin_.resize(positions.size() * n_pairs);
  for (size_t row = 0; row < positions.size(); ++row) {
    const auto position = static_cast<double>(positions[row]);
    for (size_t pair = 0; pair < n_pairs; ++pair) {
      const double angle = position * static_cast<double>(frequencies_.inv_freq[pair]);
      const size_t at = row * n_pairs + pair;
      cos_[at] = static_cast<float>(std::cos(angle) * frequencies_.attention_factor);
      sin_[at] = static_cast<float>(std::sin(angle) * frequencies_.attention_factor);
    }
  }
}

void RopeTable::rotate(int64_t row, float* heads, int64_t n_heads, int64_t head_dim) const {
  const auto n_pairs = static_cast<int64_t>(frequencies_.inv_freq.size());
  const float* cos = cos_.data() + row * n_pairs;
  const float* sin = sin_.data() + row * n_pairs;
  for (int64_t head = 0; head < n_heads; ++head) {
    float* x = heads + head * head_dim;
    quant::elementwise_kernels().rope({.x = x, .cos = cos, .sin = sin, .n_pairs = n_pairs, .y = x});
  }
}

std::span<const float> RopeTable::cosines(int64_t row) const {
  const size_t n_pairs = frequencies_.inv_freq.size();
  return {cos_.data() + static_cast<size_t>(row) * n_pairs, n_pairs};
}

std::span<const float> RopeTable::sines(int64_t row) const {
  const size_t n_pairs = frequencies_.inv_freq.size();
  return {sin_.data() + static_cast<size_t>(row) * n_pairs, n_pairs};
}

}  // namespace llmq::runtime
