#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <numeric>
#include <random>
#include <vector>

#include "quant/kernels/attention/code_sums.h"
#include "quant/kernels/cpu.h"

namespace llmq::quant {
namespace {

/// Operands of both products for a number of rows, lanes and positions.
struct Problem {
  Problem(int64_t n_rows, int64_t n_lanes, int64_t n_positions, bool is_extreme)
      : m(n_rows),
        n_lane_pairs((n_lanes + 1) / 2),
        n_groups((n_positions + 15) / 16),
        n_position_pairs((n_positions + 1) / 2) {
    std::mt19937 random(static_cast<uint32_t>(n_rows * 1009 + n_lanes * 31 + n_positions));
    const auto number = [&](int least, int most) {
      if (is_extreme) return random() % 2 == 0 ? least : most;
      return std::uniform_int_distribution<int>(least, most)(random);
    };
    const auto fill = [&](auto& codes, int64_t n, int least, int most) {
      codes.resize(static_cast<size_t>(n));
      for (auto& code : codes)
        code = static_cast<std::remove_reference_t<decltype(code)>>(number(least, most));
    };
    fill(queries, m * 2 * n_lane_pairs, -32767, 32767);
    fill(keys, n_groups * n_lane_pairs * 32, -128, 127);
    fill(weights, m * 2 * n_position_pairs, 0, 32767);
    fill(values, n_position_pairs * 4 * n_lane_pairs, -128, 127);
  }

  /// Sums of keys, with a word behind each row that must keep its value.
  [[nodiscard]] std::vector<int32_t> key_sums(Isa isa) const {
    const int64_t stride = 16 * n_groups + 1;
    std::vector<int32_t> sums(static_cast<size_t>(m * stride), kGuard);
    code_sums_kernels(isa).key_sums({queries.data(), 2 * n_lane_pairs, m, n_lane_pairs, keys.data(),
                                     n_groups, keys.data(), sums.data(), stride});
    for (int64_t row = 1; row <= m; ++row)
      EXPECT_EQ(sums[static_cast<size_t>(row * stride - 1)], kGuard);
    return sums;
  }

  [[nodiscard]] std::vector<int32_t> value_sums(Isa isa) const {
    const int64_t stride = 2 * n_lane_pairs + 1;
    std::vector<int32_t> sums(static_cast<size_t>(m * stride), kGuard);
    code_sums_kernels(isa).value_sums({weights.data(), 2 * n_position_pairs, m, n_position_pairs,
                                       values.data(), n_lane_pairs, values.data(), sums.data(),
                                       stride});
    for (int64_t row = 1; row <= m; ++row)
      EXPECT_EQ(sums[static_cast<size_t>(row * stride - 1)], kGuard);
    return sums;
  }

  static constexpr int32_t kGuard = 12345;
  int64_t m;
  int64_t n_lane_pairs;
  int64_t n_groups;
  int64_t n_position_pairs;
  std::vector<int16_t> queries;
  std::vector<int8_t> keys;
  std::vector<int16_t> weights;
  std::vector<int8_t> values;
};

TEST(CodeSums, layouts_hold_every_code_once) {
  for (const int64_t n_lanes : {1, 2, 15, 64, 80}) {
    const int64_t n_pairs = (n_lanes + 1) / 2;
    std::vector<int> keys(static_cast<size_t>(48 * 2 * n_pairs));
    std::vector<int> values(static_cast<size_t>(48 * 2 * n_pairs));
    for (int64_t position = 0; position < 48; ++position) {
      for (int64_t lane = 0; lane < 2 * n_pairs; ++lane) {
        ++keys.at(static_cast<size_t>(key_code_offset(position, lane, n_pairs)));
        ++values.at(static_cast<size_t>(value_code_offset(position, lane, n_pairs)));
      }
    }
    for (size_t i = 0; i < keys.size(); ++i) {
      EXPECT_EQ(keys[i], 1);
      EXPECT_EQ(values[i], 1);
    }
  }
}

TEST(IsaCodeSums, every_instruction_set_has_the_sums_of_scalar) {
  for (const Isa isa : supported_isas()) {
    for (const bool is_extreme : {false, true}) {
      for (const int64_t n_lanes : {2, 7, 16, 30, 64, 80, 128, 256}) {
        for (const int64_t n_rows : {1, 2, 3, 5, 6, 7, 12, 13, 25}) {
          const Problem problem(n_rows, n_lanes, n_rows == 5 ? 512 : 3 * n_rows + 14, is_extreme);
          SCOPED_TRACE(testing::Message() << isa_name(isa) << " rows " << n_rows << " lanes "
                                          << n_lanes << (is_extreme ? " extreme" : ""));
          ASSERT_EQ(problem.key_sums(isa), problem.key_sums(Isa::kScalar));
          ASSERT_EQ(problem.value_sums(isa), problem.value_sums(Isa::kScalar));
        }
      }
    }
  }
}

TEST(IsaCodeSums, scalar_has_the_sums_of_64_bit_integers) {
  const Problem problem(3, 80, 48, true);
  const std::vector<int32_t> keys = problem.key_sums(Isa::kScalar);
  const std::vector<int32_t> values = problem.value_sums(Isa::kScalar);
  for (int64_t row = 0; row < problem.m; ++row) {
    for (int64_t key = 0; key < 48; ++key) {
      int64_t sum = 0;
      for (int64_t lane = 0; lane < 80; ++lane) {
        sum += int64_t{problem.queries[static_cast<size_t>(row * 80 + lane)]} *
               problem.keys[static_cast<size_t>(((key / 16 * 40 + lane / 2) * 16 + key % 16) * 2 +
                                                lane % 2)];
      }
      EXPECT_EQ(keys[static_cast<size_t>(row * 49 + key)], sum);
    }
    for (int64_t lane = 0; lane < 80; ++lane) {
      int64_t sum = Problem::kGuard;
      for (int64_t position = 0; position < 48; ++position) {
        sum += int64_t{problem.weights[static_cast<size_t>(row * 48 + position)]} *
               problem.values[static_cast<size_t>((position / 2 * 80 + lane) * 2 + position % 2)];
      }
      EXPECT_EQ(values[static_cast<size_t>(row * 81 + lane)], sum);
    }
  }
}

TEST(IsaCodeSums, scores_are_those_of_scalar) {
  std::mt19937 random(5);
  const std::vector<int32_t> offset{0, 1073741823, -5, 7};
  const std::vector<float> factor{1.0F, 3e-9F, -0.7F, 1e-20F};
  for (const int64_t n : {0, 1, 7, 8, 15, 16, 33, 512}) {
    std::vector<int32_t> sums(static_cast<size_t>(4 * n));
    for (int32_t& sum : sums) sum = static_cast<int32_t>(random() >> 2) - (1 << 29);
    const auto scores = [&](Isa isa) {
      std::vector<float> out(static_cast<size_t>(4 * (n + 1)), 9.0F);
      code_sums_kernels(isa).scores(
          {sums.data(), n, 4, n, offset.data(), factor.data(), out.data(), n + 1});
      return out;
    };
    const std::vector<float> want = scores(Isa::kScalar);
    for (int64_t row = 0; row < 4; ++row) {
      for (int64_t i = 0; i < n; ++i) {
        const auto r = static_cast<size_t>(row);
        const auto difference =
            static_cast<float>(double{1} * sums[static_cast<size_t>(row * n + i)] - offset[r]);
        EXPECT_EQ(want[static_cast<size_t>(row * (n + 1) + i)], difference * factor[r]);
      }
      EXPECT_EQ(want[static_cast<size_t>(row * (n + 1) + n)], 9.0F);
    }
    for (const Isa isa : supported_isas()) EXPECT_EQ(scores(isa), want) << isa_name(isa) << n;
  }
}

/// Weights from 0 to 1 over many magnitudes, some of them 0 or no numbers.
std::vector<float> softmax_weights(int64_t n, int64_t seed) {
  std::mt19937 random(static_cast<uint32_t>(seed));
  std::uniform_real_distribution<float> exponent(-20.0F, 0.0F);
  std::vector<float> weights(static_cast<size_t>(n));
  for (float& weight : weights) weight = random() % 5 == 0 ? 0.0F : std::exp(exponent(random));
  if (n > 20) weights[3] = 1.0F;
  if (n > 20) weights[19] = std::nanf("");
  return weights;
}

TEST(IsaCodeSums, weight_codes_are_those_of_scalar) {
  for (const int64_t n : {0, 1, 15, 16, 17, 100, 512}) {
    for (const int64_t m : {1, 3, 4, 7, 9}) {
      const std::vector<float> weights = softmax_weights(m * (n + 2), n);
      for (const bool carries : {false, true}) {
        const auto codes = [&](Isa isa) {
          std::vector<int16_t> out(static_cast<size_t>(m * (n + 1)), 99);
          std::vector<int32_t> sums(static_cast<size_t>(m));
          code_sums_kernels(isa).weight_codes({weights.data(), n + 2, m, n,
                                               carries ? 32767.0F : 127.0F, carries, out.data(),
                                               n + 1, sums.data()});
          for (int64_t row = 0; row < m; ++row) {
            const auto first = out.begin() + row * (n + 1);
            EXPECT_EQ(first[n], 99);
            EXPECT_EQ(std::accumulate(first, first + n, 0), sums[static_cast<size_t>(row)]);
          }
          return out;
        };
        for (const Isa isa : supported_isas())
          EXPECT_EQ(codes(isa), codes(Isa::kScalar)) << isa_name(isa) << ' ' << m << ' ' << n;
      }
    }
  }
}

TEST(CodeSums, small_weights_keep_their_sum_where_rounding_is_carried) {
  const int64_t n = 512;
  const std::vector<float> weights(static_cast<size_t>(n), 0.3F / 32767);
  std::vector<int16_t> codes(static_cast<size_t>(n));
  int32_t sum = -1;
  WeightCodesTask task{weights.data(), n, 1, n, 32767.0F, false, codes.data(), n, &sum};
  code_sums_kernels(Isa::kScalar).weight_codes(task);
  EXPECT_EQ(sum, 0);
  task.carries = true;
  code_sums_kernels(Isa::kScalar).weight_codes(task);
  // 153.6, less than a half for each of the 16 lanes.
  EXPECT_NEAR(sum, 153.6, 8.0);
  for (const int16_t code : codes) EXPECT_LE(code, 1);
}

TEST(IsaCodeSums, every_set_runs_its_own_implementation) {
  EXPECT_EQ(code_sums_kernels(Isa::kScalar).isa, Isa::kScalar);
  EXPECT_EQ(code_sums_kernels(Isa::kAvx2).isa, Isa::kAvx2);
  EXPECT_EQ(code_sums_kernels(Isa::kAvxVnni).isa, Isa::kAvx2);
  EXPECT_EQ(code_sums_kernels(Isa::kAvx512Vnni).isa, Isa::kAvx512Vnni);
  EXPECT_EQ(code_sums_kernels(Isa::kAmx).isa, Isa::kAvx512Vnni);
}

}  // namespace
}  // namespace llmq::quant
