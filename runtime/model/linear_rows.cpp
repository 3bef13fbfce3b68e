#include "runtime/model/linear_rows.h"

#include <algorithm>
#include <vector>

#include "runtime/model/coded_linear.h"

namespace llmq::runtime {
namespace {

using quant::ConstMatrixF32;
using quant::MatrixF32;
using quant::ThreadTeam;

// Elements of one task: long against the start of a parallel region.
constexpr int64_t kElementsPerTask = int64_t{16} << 10;

template <typename Matrix>
Matrix rows_of(const Matrix& m, int64_t first_row, int64_t n_rows) {
  return {m.data + first_row * m.row_stride, n_rows, m.n_cols, m.row_stride};
}

/// Calls fn(row, thread) for rows of `n_cols` elements.
template <typename Fn>
void for_rows(int64_t n_rows, int64_t n_cols, ThreadTeam& team, const Fn& fn) {
  const int64_t step = std::max<int64_t>(1, kElementsPerTask / std::max<int64_t>(n_cols, 1));
  team.parallel_for((n_rows + step - 1) / step, [&](int64_t task, int thread) {
    const int64_t end = std::min(n_rows, (task + 1) * step);
    for (int64_t row = task * step; row < end; ++row) fn(row, thread);
  });
}

/// A row of floats for each thread of a team, kept by the calling thread.
float* row_room(int64_t n_cols, int n_threads) {
  static thread_local std::vector<float> rows;
  const auto size = static_cast<size_t>(n_cols * n_threads);
  if (rows.size() < size) rows.resize(size);
  return rows.data();
}

bool is_cut(const LinearWeights& linear) {
  return linear.ranks != nullptr && linear.ranks->size() > 1;
}

}  // namespace

LinearRows::LinearRows(const ConstMatrixF32& x, ThreadTeam& team)
    : x_(x), team_(team), is_made_(true) {}

const ConstMatrixF32& LinearRows::floats() {
  if (is_made_) return x_;
  for_rows(room_.n_rows, room_.n_cols, team_, [&](int64_t row, int) {
    produce_(producer_, row, room_.data + row * room_.row_stride);
  });
  is_made_ = true;
  return x_;
}

void LinearRows::apply(std::span<const LinearCall> calls, std::span<const PhaseRun> runs) {
  const bool is_uniform = std::none_of(calls.begin(), calls.end(), [](const LinearCall& call) {
    return differs_by_phase(call.linear->scheme);
  });
  if (is_uniform) return apply_run(calls, {Phase::kPrefill, 0, x_.n_rows});
  for (const PhaseRun& run : runs) apply_run(calls, run);
}

bool LinearRows::read_the_same_codes(std::span<const LinearCall> calls, const PhaseRun& run) const {
  const LinearWeights& first = *calls.front().linear;
  const InputForm form = input_form(first, run.phase);
  return form != InputForm::kFloats &&
         std::all_of(calls.begin(), calls.end(), [&](const LinearCall& call) {
           const LinearWeights& linear = *call.linear;
           return !is_cut(linear) && linear.n_in == x_.n_cols &&
                  input_form(linear, run.phase) == form && share_codes(first, linear, form);
         });
}

void LinearRows::apply_run(std::span<const LinearCall> calls, const PhaseRun& run) {
  if (calls.empty() || run.n_rows == 0) return;
  if (read_the_same_codes(calls, run)) return apply_coded(calls, run);
  const ConstMatrixF32 x = rows_of(floats(), run.first_row, run.n_rows);
  for (const LinearCall& call : calls)
    apply_linear(*call.linear, x, rows_of(call.y, run.first_row, run.n_rows), team_, run.phase);
}

void LinearRows::apply_coded(std::span<const LinearCall> calls, const PhaseRun& run) {
  const LinearWeights& first = *calls.front().linear;
  const InputForm form = input_form(first, run.phase);
  const CodedRows codes = coded_room(run.n_rows, x_.n_cols);
  if (is_made_) {
    write_codes(first, form, rows_of(x_, run.first_row, run.n_rows), codes, 0, team_);
  } else {
    float* room = row_room(x_.n_cols, team_.n_threads());
    for_rows(run.n_rows, x_.n_cols, team_, [&](int64_t row, int thread) {
      float* floats = room + thread * x_.n_cols;
      produce_(producer_, run.first_row + row, floats);
      write_codes(first, form, {floats, 1, x_.n_cols, x_.n_cols}, codes, row, team_);
    });
  }
  for (const LinearCall& call : calls)
    multiply_codes(*call.linear, form, codes, rows_of(call.y, run.first_row, run.n_rows), team_);
}

}  // namespace llmq::runtime
