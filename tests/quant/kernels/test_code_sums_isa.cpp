#include <gtest/gtest.h>

#include <cstdint>
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
                                     n_groups, sums.data(), stride});
    for (int64_t row = 1; row <= m; ++row)
      EXPECT_EQ(sums[static_cast<size_t>(row * stride - 1)], kGuard);
    return sums;
  }

  [[nodiscard]] std::vector<int32_t> value_sums(Isa isa) const {
    const int64_t stride = 2 * n_lane_pairs + 1;
    std::vector<int32_t> sums(static_cast<size_t>(m * stride), kGuard);
    code_sums_kernels(isa).value_sums({weights.data(), 2 * n_position_pairs, m, n_position_pairs,
                                       values.data(), n_lane_pairs, sums.data(), stride});
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

TEST(IsaCodeSums, every_set_runs_its_own_implementation) {
  EXPECT_EQ(code_sums_kernels(Isa::kScalar).isa, Isa::kScalar);
  EXPECT_EQ(code_sums_kernels(Isa::kAvx2).isa, Isa::kAvx2);
  EXPECT_EQ(code_sums_kernels(Isa::kAvxVnni).isa, Isa::kAvx2);
  EXPECT_EQ(code_sums_kernels(Isa::kAvx512Vnni).isa, Isa::kAvx512Vnni);
  EXPECT_EQ(code_sums_kernels(Isa::kAmx).isa, Isa::kAvx512Vnni);
}

}  // namespace
}  // namespace llmq::quant
