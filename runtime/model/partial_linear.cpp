#include "runtime/model/partial_linear.h"

#include <algorithm>
#include <vector>

#include "quant/kernels/gemm_w8a8/gemm_w8a8.h"
#include "quant/kernels/gemm_w8a8sc/gemm_w8a8sc.h"

namespace llmq::runtime {
namespace {

using quant::ConstMatrixF32;
using quant::MatrixF32;
using quant::ThreadTeam;

/// Kept per thread that runs a rank, so that a token needs no allocation.
struct Scratch {
  std::vector<int8_t> codes;
  std::vector<int32_t> sums;
  std::vector<float> row_scale;
};

Scratch& scratch_of(const ConstMatrixF32& x, const MatrixF32& y) {
  static thread_local Scratch scratch;
  const auto grow = [](auto& vector, int64_t size) {
    if (vector.size() < static_cast<size_t>(size)) vector.resize(static_cast<size_t>(size));
  };
  grow(scratch.codes, x.n_rows * x.n_cols);
  grow(scratch.sums, y.n_rows * y.n_cols);
  grow(scratch.row_scale, x.n_rows);
  return scratch;
}

void sums_over_ranks(const LinearWeights& linear, int64_t n_rows, const int32_t* quant_bias,
                     Scratch& scratch, ThreadTeam& team) {
  const auto sums_of = [&]<typename Args, typename Weights>(Args, const Weights* weights) {
    return Args{.x = scratch.codes.data(),
                .m = n_rows,
                .x_stride = linear.n_in,
                .weights = weights,
                .quant_bias = quant_bias,
                .sums = scratch.sums.data(),
                .sums_stride = linear.n_out};
  };
  if (linear.packed_sc != nullptr) {
    quant::gemm_w8a8sc_sums(sums_of(quant::GemmW8A8scSumsArgs{}, linear.packed_sc), team);
  } else {
    quant::gemm_w8a8_sums(sums_of(quant::GemmW8A8SumsArgs{}, linear.packed), team);
  }
  linear.ranks->sum(std::span(scratch.sums).first(static_cast<size_t>(n_rows * linear.n_out)));
}

void apply_static(const LinearWeights& linear, const ConstMatrixF32& x, const MatrixF32& y,
                  ThreadTeam& team) {
  Scratch& scratch = scratch_of(x, y);
  quant::quantize_rows(x, linear.activation, scratch.codes.data(), linear.n_in, team);
  sums_over_ranks(linear, x.n_rows, linear.quant_bias, scratch, team);
  team.parallel_for(x.n_rows, [&](int64_t row, int) {
    const int32_t* sums = scratch.sums.data() + row * linear.n_out;
    float* to = y.data + row * y.row_stride;
    for (int64_t i = 0; i < linear.n_out; ++i)
      to[i] = static_cast<float>(sums[i]) * linear.deq_scale[i];
  });
}

void apply_scaled_rows(const LinearWeights& linear, const ConstMatrixF32& x, const MatrixF32& y,
                       ThreadTeam& team) {
  Scratch& scratch = scratch_of(x, y);
  float* row_scale = scratch.row_scale.data();
  quant::row_maxima(x, row_scale, team);
  linear.ranks->max({row_scale, static_cast<size_t>(x.n_rows)});
  quant::quantize_rows_by_maxima(x, row_scale, scratch.codes.data(), linear.n_in, row_scale, team);
  sums_over_ranks(linear, x.n_rows, nullptr, scratch, team);
  team.parallel_for(x.n_rows, [&](int64_t row, int) {
    const int32_t* sums = scratch.sums.data() + row * linear.n_out;
    float* to = y.data + row * y.row_stride;
    for (int64_t i = 0; i < linear.n_out; ++i) {
      to[i] = static_cast<float>(sums[i]) * linear.scale[i] * row_scale[row];
      if (linear.bias != nullptr) to[i] += linear.bias[i];
    }
  });
}

}  // namespace

void apply_codes_over_ranks(const LinearWeights& linear, InputForm form, const ConstMatrixF32& x,
                            const MatrixF32& y, ThreadTeam& team) {
  if (form == InputForm::kStaticCodes) return apply_static(linear, x, y, team);
  apply_scaled_rows(linear, x, y, team);
}

void sum_over_ranks(Communicator& ranks, const MatrixF32& y) {
  if (y.row_stride == y.n_cols) {
    ranks.sum(std::span(y.data, static_cast<size_t>(y.n_rows * y.n_cols)));
    return;
  }
  for (int64_t row = 0; row < y.n_rows; ++row)
    ranks.sum(std::span(y.data + row * y.row_stride, static_cast<size_t>(y.n_cols)));
}

}  // namespace llmq::runtime
