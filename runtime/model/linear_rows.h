#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "quant/kernels/gemm_f32/matrix_f32.h"
#include "quant/kernels/thread_team.h"
#include "runtime/attention/phase.h"
#include "runtime/model/linear.h"

namespace llmq::runtime {

/// A linear and where its outputs go.
struct LinearCall {
  const LinearWeights* linear = nullptr;
  quant::MatrixF32 y;  ///< [n_rows, n_out], overwritten
};

/// The activations that several linears read. A producer makes them row by row; where all linears
/// multiply the same int8 codes, each row becomes codes while it is in the nearest cache and no
/// matrix of floats is written. Linears with other activations, calibration and ranks that cut the
/// inputs get that matrix.
///
/// The outputs have the bits that apply_linear gives for the floats. Not thread-safe; work is
/// divided over the team, which must outlive the object, as must what its constructor is given.
class LinearRows {
 public:
  /// Rows [n_rows, n_in] that exist.
  LinearRows(const quant::ConstMatrixF32& x, quant::ThreadTeam& team);

  /// Rows that produce(int64_t row, float* to) writes, [n_cols] each, at most twice. Several
  /// threads call it at once for different rows. `room` [n_rows, n_cols] takes the floats when they
  /// are asked for, and may be what `produce` reads where it reads that row alone.
  template <typename Fn>
  LinearRows(const Fn& produce, const quant::MatrixF32& room, quant::ThreadTeam& team)
      : produce_(
            [](const void* fn, int64_t row, float* to) { (*static_cast<const Fn*>(fn))(row, to); }),
        producer_(std::addressof(produce)),
        room_(room),
        x_{room.data, room.n_rows, room.n_cols, room.row_stride},
        team_(team) {}

  /// The rows as floats, made by the first call.
  const quant::ConstMatrixF32& floats();

  /// Applies linears to all rows, each in its phase: `runs` cover the rows once and in order. What
  /// is written may not overlap the rows, the room included. Throws as apply_linear.
  void apply(std::span<const LinearCall> calls, std::span<const PhaseRun> runs);

 private:
  [[nodiscard]] bool read_the_same_codes(std::span<const LinearCall> calls,
                                         const PhaseRun& run) const;
  void apply_run(std::span<const LinearCall> calls, const PhaseRun& run);
  void apply_coded(std::span<const LinearCall> calls, const PhaseRun& run);

  void (*produce_)(const void* fn, int64_t row, float* to) = nullptr;
  const void* producer_ = nullptr;
  quant::MatrixF32 room_;
  quant::ConstMatrixF32 x_;
  quant::ThreadTeam& team_;
  bool is_made_ = false;
};

}  // namespace llmq::runtime
