#pragma once

#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "quant/kernels/gemm_w8a8/gemm_w8a8.h"

namespace llmq::quant {

/// One int8 product with random operands, which extremes visit often: a quarter of the codes is
/// −128, −127 or 127.
struct W8A8Problem {
  int64_t m;
  int64_t n;
  int64_t k;
  std::vector<int8_t> x;        // [m, k]
  std::vector<int8_t> weights;  // [n, k]
  std::vector<int32_t> quant_bias;
  std::vector<float> deq_scale;
  std::vector<float> row_scale;
  std::vector<float> bias;
  bool has_quant_bias = true;
  bool has_row_scale = true;
  bool has_bias = true;

  W8A8Problem(int64_t rows, int64_t cols, int64_t depth) : m(rows), n(cols), k(depth) {
    std::mt19937 random(static_cast<unsigned>(rows * 7919 + cols * 104729 + depth));
    std::normal_distribution<float> normal;
    const auto code = [&random] {
      static constexpr int8_t kExtremes[] = {-128, -127, 127, 127};
      const auto bits = static_cast<unsigned>(random());
      return bits % 4 == 0 ? kExtremes[bits / 4 % 4] : static_cast<int8_t>(bits >> 8 & 0xff);
    };
    x.resize(static_cast<size_t>(m * k));
    for (int8_t& v : x) v = code();
    weights.resize(static_cast<size_t>(n * k));
    for (int8_t& v : weights) v = code();
    quant_bias.resize(static_cast<size_t>(n));
    for (int32_t& v : quant_bias) v = static_cast<int32_t>(random());
    deq_scale.resize(static_cast<size_t>(n));
    for (float& v : deq_scale) v = 0.001F * normal(random);
    row_scale.resize(static_cast<size_t>(m));
    for (float& v : row_scale) v = 0.1F * normal(random);
    bias.resize(static_cast<size_t>(n));
    for (float& v : bias) v = 1000.0F * normal(random);
  }

  [[nodiscard]] PackedInt8 pack(ThreadTeam& team) const {
    return PackedInt8::pack(weights.data(), n, k, k, team);
  }

  /// Arguments for rows [begin, end), with y [m, packed.n()] of row stride `stride`: `packed` may
  /// hold the first rows of the weights only.
  [[nodiscard]] GemmW8A8Args args(const PackedInt8& packed, float* y, int64_t stride, int64_t begin,
                                  int64_t end) const {
    return {.x = x.data() + begin * k,
            .m = end - begin,
            .x_stride = k,
            .weights = &packed,
            .quant_bias = has_quant_bias ? quant_bias.data() : nullptr,
            .deq_scale = deq_scale.data(),
            .row_scale = has_row_scale ? row_scale.data() + begin : nullptr,
            .bias = has_bias ? bias.data() : nullptr,
            .y = {y + begin * stride, end - begin, packed.n(), stride}};
  }

  [[nodiscard]] std::vector<float> run(const PackedInt8& packed, ThreadTeam& team, Isa isa) const {
    std::vector<float> y(static_cast<size_t>(m * packed.n()), -7.0F);
    gemm_w8a8(args(packed, y.data(), packed.n(), 0, m), team, isa);
    return y;
  }

  [[nodiscard]] std::vector<float> run(ThreadTeam& team, Isa isa) const {
    return run(pack(team), team, isa);
  }

  [[nodiscard]] std::vector<int32_t> run_sums(const PackedInt8& packed, ThreadTeam& team,
                                              Isa isa) const {
    std::vector<int32_t> sums(static_cast<size_t>(m * n), -7);
    gemm_w8a8_sums({.x = x.data(),
                    .m = m,
                    .x_stride = k,
                    .weights = &packed,
                    .quant_bias = has_quant_bias ? quant_bias.data() : nullptr,
                    .sums = sums.data(),
                    .sums_stride = n},
                   team, isa);
    return sums;
  }

  [[nodiscard]] std::string text() const {
    return "m=" + std::to_string(m) + " n=" + std::to_string(n) + " k=" + std::to_string(k);
  }
};

}  // namespace llmq::quant
