#pragma once

#include <cstdint>
#include <span>

#include "formats/architecture.h"
#include "quant/kernels/gemm_f32/matrix_f32.h"
#include "quant/kernels/thread_team.h"
#include "runtime/attention/phase.h"
#include "runtime/model/layer_observer.h"
#include "runtime/model/layer_weights.h"
#include "runtime/model/linear_rows.h"

namespace llmq::runtime {

/// An MLP and the matrices that it needs. All have n_rows of x.
struct SwigluTask {
  const LinearWeights* gate = nullptr;
  const LinearWeights* up = nullptr;
  const LinearWeights* down = nullptr;
  std::span<const PhaseRun> runs;  ///< phases of the rows, covering them once and in order
  quant::MatrixF32 gate_room;      ///< [n_rows, intermediate]; what is in it afterwards is open
  quant::MatrixF32 up_room;        ///< [n_rows, intermediate]
  quant::MatrixF32 out;            ///< [n_rows, hidden], overwritten; may be the floats of x
  /// What the observer is told that linears belong to: gate and up, down, and the expert.
  formats::FusedGroup gate_up_group = formats::FusedGroup::kGateUp;
  formats::FusedGroup down_group = formats::FusedGroup::kDown;
  int64_t expert = -1;
};

/// out = down(SiLU(gate(x)) · up(x)), SwiGLU (arXiv 2002.05202), in which gate and up read one set
/// of codes and the product of both is quantized as it arises. The observer sees what gate and up
/// read, then what down reads. Throws as apply_linear. Not thread-safe; work is divided over
/// `team`.
void run_swiglu(const SwigluTask& task, LinearRows& x, const LayerObserver& observer,
                quant::ThreadTeam& team);

}  // namespace llmq::runtime
