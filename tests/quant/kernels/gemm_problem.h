#pragma once

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <ostream>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "formats/float16.h"
#include "quant/kernels/gemm_f16/gemm_f16.h"
#include "quant/kernels/gemm_f32/gemm_f32.h"
#include "quant/kernels/gemm_w4a16/gemm_w4a16.h"
#include "quant/kernels/gemm_w8a16/gemm_w8a16.h"

namespace llmq::quant {

/// What distinguishes the products under test: family, weight type, offset, group.
struct GemmKind {
  std::string name;
  int weight_size_bytes = 4;
  formats::DType dtype = formats::DType::kF32;
  bool has_offset = false;
  int64_t group = 0;
  bool is_int4 = false;  ///< codes of −8..7, a byte each in `storage`, packed when they are run
};

inline std::ostream& operator<<(std::ostream& out, const GemmKind& kind) {
  return out << kind.name;
}

inline std::vector<GemmKind> gemm_kinds() {
  using formats::DType;
  return {{"f32", 4, DType::kF32, false, 0},
          {"bf16", 2, DType::kBF16, false, 0},
          {"fp16", 2, DType::kF16, false, 0},
          {"w8a16_per_row", 1, DType::kI8, false, 0},
          {"w8a16_per_row_offset", 1, DType::kI8, true, 0},
          {"w8a16_group32", 1, DType::kI8, false, 32},
          {"w8a16_group32_offset", 1, DType::kI8, true, 32},
          {"w8a16_group20_offset", 1, DType::kI8, true, 20},
          {"w4a16_per_row", 1, DType::kI8, false, 0, true},
          {"w4a16_per_row_offset", 1, DType::kI8, true, 0, true},
          {"w4a16_group32", 1, DType::kI8, false, 32, true},
          {"w4a16_group128_offset", 1, DType::kI8, true, 128, true},
          {"w4a16_group144_offset", 1, DType::kI8, true, 144, true},
          {"w4a16_group20_offset", 1, DType::kI8, true, 20, true}};
}

/// One product with random operands; weights are `misalignment` bytes off any alignment.
struct GemmProblem {
  GemmKind kind;
  int64_t m = 0;
  int64_t n = 0;
  int64_t k = 0;
  std::vector<float> x;
  std::vector<unsigned char> storage;
  int64_t misalignment = 0;
  std::vector<float> scale;
  std::vector<float> offset;
  std::vector<float> bias;
  bool has_bias = true;

  GemmProblem(const GemmKind& which, int64_t rows, int64_t cols, int64_t depth,
              int64_t misaligned = 1)
      : kind(which), m(rows), n(cols), k(depth), misalignment(misaligned) {
    std::mt19937 random(static_cast<unsigned>(rows * 7919 + cols * 104729 + depth));
    std::normal_distribution<float> normal;
    std::uniform_int_distribution<int> byte(kind.is_int4 ? -8 : -128, kind.is_int4 ? 7 : 127);
    x.resize(static_cast<size_t>(m * k));
    for (float& v : x) v = normal(random);
    storage.resize(static_cast<size_t>(misalignment + n * k * kind.weight_size_bytes));
    for (int64_t i = 0; i < n * k; ++i) {
      const float v = normal(random);
      if (kind.dtype == formats::DType::kI8) {
        storage[static_cast<size_t>(misalignment + i)] = static_cast<unsigned char>(byte(random));
      } else {
        set_weight(i, v);
      }
    }
    const int64_t n_groups = kind.group == 0 ? 1 : (k + kind.group - 1) / kind.group;
    scale.resize(static_cast<size_t>(n * n_groups));
    for (float& v : scale) v = 0.01F + 0.001F * std::fabs(normal(random));
    offset.resize(kind.has_offset ? scale.size() : 0);
    for (float& v : offset) v = static_cast<float>(byte(random));
    bias.resize(static_cast<size_t>(n));
    for (float& v : bias) v = normal(random);
  }

  /// Stores `value` as element i of the weights, rounded to their float type.
  void set_weight(int64_t i, float value) {
    unsigned char* p = storage.data() + misalignment + i * kind.weight_size_bytes;
    if (kind.dtype == formats::DType::kF32) {
      std::memcpy(p, &value, 4);
    } else {
      const uint16_t bits = kind.dtype == formats::DType::kBF16 ? formats::float_to_bf16(value)
                                                                : formats::float_to_fp16(value);
      std::memcpy(p, &bits, 2);
    }
  }

  /// Weight (row, i) as float32 before any scale: the stored float, or q − offset.
  [[nodiscard]] float unscaled_weight(int64_t row, int64_t i) const {
    const unsigned char* p = storage.data() + misalignment + (row * k + i) * kind.weight_size_bytes;
    if (kind.dtype == formats::DType::kF32) {
      float value = 0;
      std::memcpy(&value, p, 4);
      return value;
    }
    if (kind.dtype == formats::DType::kI8) {
      const auto q = static_cast<float>(static_cast<int8_t>(*p));
      return kind.has_offset ? q - offset[scale_index(row, i)] : q;
    }
    uint16_t bits = 0;
    std::memcpy(&bits, p, 2);
    return kind.dtype == formats::DType::kBF16 ? formats::bf16_to_float(bits)
                                               : formats::fp16_to_float(bits);
  }

  [[nodiscard]] size_t scale_index(int64_t row, int64_t i) const {
    if (kind.group == 0) return static_cast<size_t>(row);
    return static_cast<size_t>(row * ((k + kind.group - 1) / kind.group) + i / kind.group);
  }

  [[nodiscard]] bool is_int8() const { return kind.dtype == formats::DType::kI8; }

  /// Rows [begin, end) of y, [m, n] with row stride `y_stride`, written by the family.
  void run(ThreadTeam& team, Isa isa, MatrixF32 y, int64_t begin, int64_t end) const {
    const ConstMatrixF32 x_rows{x.data() + begin * k, end - begin, k, k};
    const MatrixF32 y_rows{y.data + begin * y.row_stride, end - begin, n, y.row_stride};
    const unsigned char* weights = storage.data() + misalignment;
    const float* b = has_bias ? bias.data() : nullptr;
    if (kind.dtype == formats::DType::kF32) {
      gemm_f32({x_rows, weights, k, b, y_rows}, team, isa);
    } else if (kind.is_int4) {
      const PackedInt4 packed = PackedInt4::pack(
          std::as_bytes(std::span(storage)).subspan(static_cast<size_t>(misalignment)),
          formats::Int4Layout::kOnePerByte, n, k, team);
      gemm_w4a16({x_rows, &packed, scale.data(), kind.has_offset ? offset.data() : nullptr,
                  kind.group, b, y_rows},
                 team, isa);
    } else if (is_int8()) {
      gemm_w8a16({x_rows, reinterpret_cast<const int8_t*>(weights), k, scale.data(),
                  kind.has_offset ? offset.data() : nullptr, kind.group, b, y_rows},
                 team, isa);
    } else {
      gemm_f16({x_rows, weights, kind.dtype, k, b, y_rows}, team, isa);
    }
  }

  [[nodiscard]] std::vector<float> run(ThreadTeam& team, Isa isa) const {
    std::vector<float> y(static_cast<size_t>(m * n), -7.0F);
    run(team, isa, {y.data(), m, n, n}, 0, m);
    return y;
  }

  [[nodiscard]] std::string text() const {
    return kind.name + " m=" + std::to_string(m) + " n=" + std::to_string(n) +
           " k=" + std::to_string(k);
  }
};

/// Equal bits; all NaNs are one value.
inline bool same_bits(float a, float b) {
  return std::bit_cast<uint32_t>(a) == std::bit_cast<uint32_t>(b) ||
         (std::isnan(a) && std::isnan(b));
}

inline ::testing::AssertionResult same_bits(const std::vector<float>& a,
                                            const std::vector<float>& b) {
  if (a.size() != b.size()) return ::testing::AssertionFailure() << "sizes differ";
  for (size_t i = 0; i < a.size(); ++i) {
    if (!same_bits(a[i], b[i])) {
      return ::testing::AssertionFailure()
             << "element " << i << ": " << std::hexfloat << a[i] << " and " << b[i];
    }
  }
  return ::testing::AssertionSuccess();
}

}  // namespace llmq::quant
