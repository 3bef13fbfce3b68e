#include "runtime/model/swiglu.h"

#include <array>

#include "quant/kernels/elementwise/elementwise.h"

namespace llmq::runtime {

void run_swiglu(const SwigluTask& task, LinearRows& x, const LayerObserver& observer,
                quant::ThreadTeam& team) {
  const quant::MatrixF32& gate = task.gate_room;
  const quant::MatrixF32& up = task.up_room;
  observe(observer, task.gate_up_group, task.expert, x);
  x.apply(std::array{LinearCall{task.gate, gate}, LinearCall{task.up, up}}, task.runs);
  const quant::ElementwiseKernels& kernels = quant::elementwise_kernels();
  const auto multiply = [&](int64_t row, float* to) {
    kernels.silu_multiply(gate.data + row * gate.row_stride, up.data + row * up.row_stride, to,
                          gate.n_cols);
  };
  LinearRows inner(multiply, gate, team);
  observe(observer, task.down_group, task.expert, inner);
  inner.apply(std::array{LinearCall{task.down, task.out}}, task.runs);
}

}  // namespace llmq::runtime
