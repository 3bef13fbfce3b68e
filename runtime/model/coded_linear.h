#pragma once

#include <cstdint>

#include "quant/kernels/gemm_f32/matrix_f32.h"
#include "quant/kernels/thread_team.h"
#include "runtime/attention/phase.h"
#include "runtime/model/linear.h"

namespace llmq::runtime {

/// What a linear multiplies its weights by.
enum class InputForm : uint8_t {
  kFloats,       ///< the activations themselves
  kStaticCodes,  ///< int8 codes by LinearWeights::activation
  kRowCodes,     ///< int8 codes with a scale for each row, from its largest magnitude
};

/// What `linear` multiplies in `phase`. Throws Error{kInternal} for a scheme that is not executed.
InputForm input_form(const LinearWeights& linear, Phase phase);

/// Rows of activations as int8 codes.
struct CodedRows {
  int8_t* codes = nullptr;     ///< [n_rows, n_cols] row-major
  float* row_scale = nullptr;  ///< [n_rows], of kRowCodes
  int64_t n_rows = 0;
  int64_t n_cols = 0;
};

/// Room for codes of [n_rows, n_cols] that the calling thread keeps, so that a token needs no
/// allocation. What was in it before is lost; valid until the thread's next call.
CodedRows coded_room(int64_t n_rows, int64_t n_cols);

/// True when linears that both read codes of `form` read the same ones of the same rows.
bool share_codes(const LinearWeights& a, const LinearWeights& b, InputForm form);

/// Rows [first_row, first_row + x.n_rows) of `to` become the codes of x, as `linear` reads them in
/// `form` (not kFloats). Formulas: quant::quantize_rows, quant::quantize_rows_dynamic. Different
/// rows may be written by several threads at once; inside a task of `team` it runs on the calling
/// thread.
void write_codes(const LinearWeights& linear, InputForm form, const quant::ConstMatrixF32& x,
                 const CodedRows& to, int64_t first_row, quant::ThreadTeam& team);

/// y = what `linear` makes of rows that write_codes coded in `form`, without regard to ranks:
/// (codes · Wᵀ + quant_bias) · deq_scale, or (codes · Wᵀ) · scale · row_scale + bias. y [n_rows,
/// n_out] is overwritten. Throws Error{kInternal} where shapes do not fit.
void multiply_codes(const LinearWeights& linear, InputForm form, const CodedRows& x,
                    const quant::MatrixF32& y, quant::ThreadTeam& team);

}  // namespace llmq::runtime
