#include "quant/kernels/gemm_w8a8/quantize_rows.h"

#include <fmt/format.h>

#include <algorithm>
#include <span>

#include "formats/error.h"
#include "quant/kernels/choose_kernels.h"
#include "quant/kernels/gemm_w8a8/reciprocal_kernels.h"
#include "quant/kernels/rounding/rounding.h"

namespace llmq::quant {
namespace {

constexpr auto kFp32 = static_cast<size_t>(FloatType::kFp32);
// Smallest scale of the project, FLT_EPSILON.
constexpr float kMinScale = 0x1p-23F;

const ReciprocalKernels& reciprocal_kernels(Isa isa) {
  return choose_kernels(isa, kReciprocalScalar, kReciprocalAvx2, kReciprocalAvx512);
}

void check(const ConstMatrixF32& x, int64_t codes_stride) {
  const bool fits = x.n_rows >= 0 && x.n_cols >= 0 &&
                    (x.n_rows <= 1 || (x.row_stride >= x.n_cols && codes_stride >= x.n_cols));
  if (!fits) {
    throw formats::Error(
        formats::ErrorCode::kInternal,
        fmt::format("quantize_rows: x [{}, {}] (stride {}) and codes of stride {} do not fit "
                    "together",
                    x.n_rows, x.n_cols, x.row_stride, codes_stride));
  }
}

// Calls fn(row) for all rows, several of them in one task where they are short.
template <typename Fn>
void for_rows(const ConstMatrixF32& x, ThreadTeam& team, const Fn& fn) {
  constexpr int64_t kTaskElements = 16384;
  const int64_t n_rows = std::max<int64_t>(kTaskElements / std::max<int64_t>(x.n_cols, 1), 1);
  team.parallel_for((x.n_rows + n_rows - 1) / n_rows, [&](int64_t task, int) {
    const int64_t end = std::min(x.n_rows, (task + 1) * n_rows);
    for (int64_t row = task * n_rows; row < end; ++row) fn(row);
  });
}

// Returns the row's scale.
float quantize_row(const RoundingKernels& rounding, std::span<const float> x, float maximum,
                   int8_t* codes) {
  const float scale = std::max(maximum / 127.0F, kMinScale);
  const RoundingParams params{scale, 0.0F, -127.0F, 127.0F};
  rounding.quantize[kFp32](x.data(), static_cast<int64_t>(x.size()), &params, codes);
  return scale;
}

}  // namespace

void quantize_rows(const ConstMatrixF32& x, const ActivationRule& rule, int8_t* codes,
                   int64_t codes_stride, ThreadTeam& team, Isa isa) {
  check(x, codes_stride);
  const RoundingKernels& rounding = rounding_kernels(isa);
  const ReciprocalKernels& multiplying = reciprocal_kernels(isa);
  const RoundingParams params{rule.scale, rule.offset, -128.0F, 127.0F};
  for_rows(x, team, [&](int64_t row) {
    const float* from = x.data + row * x.row_stride;
    int8_t* to = codes + row * codes_stride;
    if (rule.by_reciprocal) {
      multiplying.quantize(from, x.n_cols, rule.reciprocal, rule.offset, to);
    } else {
      rounding.quantize[kFp32](from, x.n_cols, &params, to);
    }
  });
}

void quantize_rows_dynamic(const ConstMatrixF32& x, int8_t* codes, int64_t codes_stride,
                           float* row_scale, ThreadTeam& team, Isa isa) {
  check(x, codes_stride);
  const RoundingKernels& rounding = rounding_kernels(isa);
  for_rows(x, team, [&](int64_t row) {
    const float* from = x.data + row * x.row_stride;
    RowRange range;
    rounding.range[kFp32](from, x.n_cols, &range);
    row_scale[row] = quantize_row(rounding, {from, static_cast<size_t>(x.n_cols)}, range.absmax,
                                  codes + row * codes_stride);
  });
}

void row_maxima(const ConstMatrixF32& x, float* maxima, ThreadTeam& team, Isa isa) {
  check(x, x.n_cols);
  const RoundingKernels& rounding = rounding_kernels(isa);
  for_rows(x, team, [&](int64_t row) {
    RowRange range;
    rounding.range[kFp32](x.data + row * x.row_stride, x.n_cols, &range);
    maxima[row] = range.absmax;
  });
}

void quantize_rows_by_maxima(const ConstMatrixF32& x, const float* maxima, int8_t* codes,
                             int64_t codes_stride, float* row_scale, ThreadTeam& team, Isa isa) {
  check(x, codes_stride);
  const RoundingKernels& rounding = rounding_kernels(isa);
  for_rows(x, team, [&](int64_t row) {
    row_scale[row] =
        quantize_row(rounding, {x.data + row * x.row_stride, static_cast<size_t>(x.n_cols)},
                     maxima[row], codes + row * codes_stride);
  });
}

Isa quantize_rows_implementation(Isa isa) {
  return reciprocal_kernels(isa).isa;
}

}  // namespace llmq::quant
