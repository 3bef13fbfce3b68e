#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>
#include <vector>

#include "formats/dialect.h"
#include "formats/error.h"
#include "formats/float16.h"
#include "runtime/model/linear.h"

namespace llmq::runtime {
namespace {

using formats::DType;
using formats::Scheme;

constexpr int64_t kOut = 37;
constexpr int64_t kIn = 48;

/// A linear with its memory, and the float64 values its weights stand for.
struct Case {
  LinearWeights view;
  std::vector<std::byte> bytes;
  std::vector<float> scale;
  std::vector<float> offset;
  std::vector<float> bias;
  std::vector<double> values;  // [kOut, kIn]
};

/// `misalign` bytes stand before the weights.
Case float_case(DType dtype, size_t misalign) {
  std::mt19937 random(5);
  std::normal_distribution<float> normal;
  Case c;
  const size_t element = formats::dtype_size_bytes(dtype);
  c.bytes.resize(misalign + kOut * kIn * element);
  for (size_t i = 0; i < kOut * kIn; ++i) {
    float value = normal(random);
    std::byte* to = c.bytes.data() + misalign + i * element;
    if (dtype == DType::kF32) {
      std::memcpy(to, &value, element);
    } else {
      const bool is_bf16 = dtype == DType::kBF16;
      const uint16_t bits = is_bf16 ? formats::float_to_bf16(value) : formats::float_to_fp16(value);
      std::memcpy(to, &bits, element);
      value = is_bf16 ? formats::bf16_to_float(bits) : formats::fp16_to_float(bits);
    }
    c.values.push_back(value);
  }
  for (int64_t i = 0; i < kOut; ++i) c.bias.push_back(normal(random));
  c.view = {.dtype = dtype,
            .weight = std::span(c.bytes).subspan(misalign),
            .n_out = kOut,
            .n_in = kIn,
            .bias = c.bias.data()};
  return c;
}

Case int8_case(int64_t group_size, bool has_offset) {
  std::mt19937 random(6);
  Case c;
  const int64_t group = group_size > 0 ? group_size : kIn;
  c.bytes.resize(kOut * kIn);
  for (int64_t i = 0; i < kOut * kIn / group; ++i) {
    c.scale.push_back(0.01F + static_cast<float>(random() % 100) * 0.001F);
    c.offset.push_back(has_offset ? static_cast<float>(random() % 21) - 10.0F : 0.0F);
  }
  for (int64_t i = 0; i < kOut * kIn; ++i) {
    const auto code = static_cast<int8_t>(random() % 256);
    c.bytes[static_cast<size_t>(i)] = static_cast<std::byte>(code);
    const auto at = static_cast<size_t>(i / kIn * (kIn / group) + i % kIn / group);
    c.values.push_back((static_cast<double>(code) - c.offset[at]) * c.scale[at]);
  }
  c.view = {.scheme = Scheme::kW8A16,
            .dtype = DType::kI8,
            .weight = c.bytes,
            .n_out = kOut,
            .n_in = kIn,
            .group_size = group_size,
            .scale = c.scale.data(),
            .offset = has_offset ? c.offset.data() : nullptr};
  return c;
}

/// int8_case with codes of 4 bits; `packed` keeps what the view points to.
Case int4_case(int64_t group_size, quant::PackedInt4& packed) {
  Case c = int8_case(group_size, true);
  const int64_t group = group_size > 0 ? group_size : kIn;
  for (int64_t i = 0; i < kOut * kIn; ++i) {
    const auto code =
        static_cast<int8_t>(static_cast<int>(c.bytes[static_cast<size_t>(i)]) % 16 - 8);
    c.bytes[static_cast<size_t>(i)] = static_cast<std::byte>(code);
    const auto at = static_cast<size_t>(i / kIn * (kIn / group) + i % kIn / group);
    c.values[static_cast<size_t>(i)] = (static_cast<double>(code) - c.offset[at]) * c.scale[at];
  }
  quant::ThreadTeam team(2);
  packed = quant::PackedInt4::pack(c.bytes, formats::Int4Layout::kOnePerByte, kOut, kIn, team);
  c.view.scheme = Scheme::kW4A16;
  c.view.packed_int4 = &packed;
  return c;
}

void expect_product(const Case& c) {
  check_linear(c.view);
  quant::ThreadTeam team(2);
  for (const int64_t m : {1, 33}) {
    std::mt19937 random(8);
    std::normal_distribution<float> normal;
    std::vector<float> x(static_cast<size_t>(m * kIn));
    for (float& value : x) value = normal(random);
    std::vector<float> y(static_cast<size_t>(m * kOut));
    apply_linear(c.view, {x.data(), m, kIn, kIn}, {y.data(), m, kOut, kOut}, team);
    for (int64_t row = 0; row < m; ++row) {
      for (int64_t col = 0; col < kOut; ++col) {
        double want = c.bias.empty() ? 0.0 : c.bias[static_cast<size_t>(col)];
        double magnitude = std::abs(want);
        for (int64_t i = 0; i < kIn; ++i) {
          const double term = static_cast<double>(x[static_cast<size_t>(row * kIn + i)]) *
                              c.values[static_cast<size_t>(col * kIn + i)];
          want += term;
          magnitude += std::abs(term);
        }
        // Three terms a lane, four levels of the tree, scale, offset and bias.
        EXPECT_NEAR(y[static_cast<size_t>(row * kOut + col)], want, magnitude * 10 * 0x1p-24);
      }
    }
  }
}

void expect_rows(const Case& c) {
  std::vector<float> row(kIn);
  for (const int64_t index : {int64_t{0}, kOut - 1}) {
    widen_row(c.view, index, row);
    for (int64_t i = 0; i < kIn; ++i) {
      const double want = c.values[static_cast<size_t>(index * kIn + i)];
      EXPECT_NEAR(row[static_cast<size_t>(i)], want, std::abs(want) * 0x1p-23);
    }
  }
}

TEST(Linear, float_weights_of_every_dtype_and_alignment) {
  for (const DType dtype : {DType::kF32, DType::kF16, DType::kBF16}) {
    for (const size_t misalign : {size_t{0}, size_t{1}}) {
      const Case c = float_case(dtype, misalign);
      expect_product(c);
      expect_rows(c);
    }
  }
}

TEST(Linear, int8_weights_with_scales_offsets_and_groups) {
  for (const int64_t group_size : {0, 16, 24}) {
    for (const bool has_offset : {false, true}) {
      const Case c = int8_case(group_size, has_offset);
      expect_product(c);
      expect_rows(c);
    }
  }
}

TEST(Linear, int4_weights_run_from_their_packed_codes_alone) {
  for (const int64_t group_size : {0, 16, 24}) {
    quant::PackedInt4 packed;
    Case c = int4_case(group_size, packed);
    std::fill(c.bytes.begin(), c.bytes.end(), std::byte{0x55});  // what is stored is not read
    expect_product(c);
    expect_rows(c);
  }
}

TEST(Linear, incomplete_views_are_refused) {
  const auto refused = [](LinearWeights view) {
    try {
      check_linear(view);
    } catch (const formats::Error& error) {
      return error.code() == formats::ErrorCode::kBadInput;
    }
    return false;
  };
  const Case good = int8_case(0, true);
  LinearWeights view = good.view;
  view.dtype = DType::kF32;
  EXPECT_TRUE(refused(view));
  view = good.view;
  view.weight = view.weight.subspan(1);
  EXPECT_TRUE(refused(view));
  view = good.view;
  view.scale = nullptr;
  EXPECT_TRUE(refused(view));
  view = good.view;
  view.group_size = 13;
  EXPECT_TRUE(refused(view));
  quant::PackedInt4 packed;
  const Case int4 = int4_case(0, packed);
  view = int4.view;
  view.packed_int4 = nullptr;
  EXPECT_TRUE(refused(view));
  view = int4.view;
  view.n_in -= 1;
  EXPECT_TRUE(refused(view));
  view = int4.view;
  view.scale = nullptr;
  EXPECT_TRUE(refused(view));
  view = good.view;
  view.scheme = Scheme::kC8;
  EXPECT_TRUE(refused(view));
  EXPECT_FALSE(can_execute(Scheme::kC8));
}

}  // namespace
}  // namespace llmq::runtime
