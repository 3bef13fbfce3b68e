#include "quant/kernels/gemm_w8a8/gemm_w8a8.h"

#include <algorithm>

#include "quant/kernels/gemm_w8a8/driver.h"
#include "quant/kernels/gemm_w8a8/int8_product.h"
#include "quant/kernels/gemm_w8a8/kernels.h"
#include "quant/kernels/gemm_w8a8/w8a8_epilogue.h"

namespace llmq::quant {
namespace {

void run_scalar(const Int8Kernels& kernels, const Int8Product& p, const PackedInt8& w,
                ThreadTeam& team) {
  team.parallel_for(w.n_panels(), [&](int64_t panel, int) {
    const int64_t col = panel * kPanelCols;
    kernels.multiply_columns({p.x, p.x_stride, p.m, w.k(), w.panels(), w.panel_size_bytes(), col,
                              std::min(col + kPanelCols, w.n()), p.epilogue});
  });
}

void run_task(const Int8Task& task, const PackedInt8& w) {
  for (int64_t i = 0; i < task.blocking.n_blocks; ++i) {
    Int8Block block = task.block(i);
    block.weights =
        w.panels() + task.panel * w.panel_size_bytes() + i * task.blocking.block_k * kPanelCols;
    block.panel_bytes = w.panel_size_bytes();
    task.kernels.multiply(block);
  }
}

void run(const Int8Kernels& kernels, const Int8Product& p, const PackedInt8& w, ThreadTeam& team) {
  if (p.m == 0 || w.n() == 0) return;
  if (kernels.multiply_columns != nullptr) return run_scalar(kernels, p, w, team);
  for_int8_tasks(kernels, p, team, [&](const Int8Task& task) { run_task(task, w); });
}

Int8Weights view_of(const PackedInt8& w) {
  return {.n = w.n(), .k = w.k(), .padded_k = w.padded_k(), .panel_bytes = w.panel_size_bytes()};
}

}  // namespace

void gemm_w8a8_by(const Int8Kernels& kernels, const GemmW8A8Args& args, ThreadTeam& team) {
  const Int8Epilogue epilogue = checked_epilogue("gemm_w8a8", args);
  const PackedInt8& w = *args.weights;
  run(kernels, {args.x, args.m, args.x_stride, view_of(w), epilogue}, w, team);
}

void gemm_w8a8_sums_by(const Int8Kernels& kernels, const GemmW8A8SumsArgs& args, ThreadTeam& team) {
  const Int8Epilogue epilogue = checked_epilogue("gemm_w8a8_sums", args);
  const PackedInt8& w = *args.weights;
  run(kernels, {args.x, args.m, args.x_stride, view_of(w), epilogue}, w, team);
}

void gemm_w8a8(const GemmW8A8Args& args, ThreadTeam& team, Isa isa) {
  gemm_w8a8_by(int8_kernels(isa), args, team);
}

void gemm_w8a8_sums(const GemmW8A8SumsArgs& args, ThreadTeam& team, Isa isa) {
  gemm_w8a8_sums_by(int8_kernels(isa), args, team);
}

Isa gemm_w8a8_implementation(Isa isa) {
  return int8_kernels(isa).isa;
}

}  // namespace llmq::quant
