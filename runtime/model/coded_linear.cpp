#include "runtime/model/coded_linear.h"

#include "quant/kernels/gemm_w8a8/gemm_w8a8.h"
#include "quant/kernels/gemm_w8a8sc/gemm_w8a8sc.h"
#include "quant/kernels/huge_vector.h"

namespace llmq::runtime {
namespace {

using quant::ConstMatrixF32;
using quant::MatrixF32;
using quant::ThreadTeam;

template <typename Packed>
quant::W8A8Args<Packed> static_product(const LinearWeights& linear, const CodedRows& x,
                                       const Packed* weights, const MatrixF32& y) {
  return {.x = x.codes,
          .m = x.n_rows,
          .x_stride = x.n_cols,
          .weights = weights,
          .quant_bias = linear.quant_bias,
          .deq_scale = linear.deq_scale,
          .y = y};
}

void multiply_static(const LinearWeights& linear, const CodedRows& x, const MatrixF32& y,
                     ThreadTeam& team) {
  if (linear.packed_sc != nullptr)
    return quant::gemm_w8a8sc(static_product(linear, x, linear.packed_sc, y), team);
  quant::gemm_w8a8(static_product(linear, x, linear.packed, y), team);
}

void multiply_scaled_rows(const LinearWeights& linear, const CodedRows& x, const MatrixF32& y,
                          ThreadTeam& team) {
  quant::gemm_w8a8({.x = x.codes,
                    .m = x.n_rows,
                    .x_stride = x.n_cols,
                    .weights = linear.packed,
                    .deq_scale = linear.scale,
                    .row_scale = x.row_scale,
                    .bias = linear.bias,
                    .y = y},
                   team);
}

template <typename T>
T* grown(quant::HugeVector<T>& vector, int64_t size) {
  if (vector.size() < static_cast<size_t>(size)) vector.resize(static_cast<size_t>(size));
  return vector.data();
}

}  // namespace

CodedRows coded_room(int64_t n_rows, int64_t n_cols) {
  static thread_local quant::HugeVector<int8_t> codes;
  static thread_local quant::HugeVector<float> scales;
  return {grown(codes, n_rows * n_cols), grown(scales, n_rows), n_rows, n_cols};
}

bool share_codes(const LinearWeights& a, const LinearWeights& b, InputForm form) {
  return form == InputForm::kRowCodes || a.activation == b.activation;
}

void write_codes(const LinearWeights& linear, InputForm form, const ConstMatrixF32& x,
                 const CodedRows& to, int64_t first_row, ThreadTeam& team) {
  int8_t* codes = to.codes + first_row * to.n_cols;
  if (form == InputForm::kStaticCodes)
    return quant::quantize_rows(x, linear.activation, codes, to.n_cols, team);
  quant::quantize_rows_dynamic(x, codes, to.n_cols, to.row_scale + first_row, team);
}

void multiply_codes(const LinearWeights& linear, InputForm form, const CodedRows& x,
                    const MatrixF32& y, ThreadTeam& team) {
  if (form == InputForm::kStaticCodes) return multiply_static(linear, x, y, team);
  multiply_scaled_rows(linear, x, y, team);
}

}  // namespace llmq::runtime
