#include "quant/kernels/gemm_w8a8sc/gemm_w8a8sc.h"

#include <algorithm>
#include <array>

#include "quant/kernels/gemm_w8a8/int8_product.h"
#include "quant/kernels/gemm_w8a8/w8a8_epilogue.h"
#include "quant/kernels/gemm_w8a8sc/kernels.h"

namespace llmq::quant {
namespace {

constexpr int64_t kMostTilePanels = 4;

thread_local Scratch<int8_t> lines_buffer;

struct Implementation {
  const Int8Kernels& multiplying;
  const ExpandKernels& expanding;
  void (*stream)(const W8A8scStream&);  // null where lines are expanded first
};

Implementation implementation_for(Isa isa) {
  const Int8Kernels& multiplying = int8_kernels(isa);
  if (isa == Isa::kScalar) return {multiplying, kExpandScalar, nullptr};
  const bool is_wide = isa == Isa::kAvx512Vnni || isa == Isa::kAmx;
  if (is_wide && has_avx512_vbmi2())
    return {multiplying, kExpandAvx512Vbmi2, stream_w8a8sc_avx512vbmi2};
  return {multiplying, kExpandAvx2, nullptr};
}

// Expands the lines of a few panels block of k by block of k.
class PanelExpander {
 public:
  PanelExpander(const ExpandKernels& kernels, const PackedW8A8sc& w, int64_t panel,
                int64_t n_panels)
      : kernels_(kernels), n_panels_(n_panels) {
    for (int64_t p = 0; p < n_panels; ++p) {
      const int64_t* offset = w.panel_offsets() + panel + p;
      auto& [nibbles, escapes] = panels_.at(static_cast<size_t>(p));
      escapes = w.bytes() + offset[0];
      nibbles = w.bytes() + offset[1] - w.nibbles_size_bytes();
    }
  }

  // The next lines of each panel: `lines` is [n_panels, n_lines, 64].
  void expand(int64_t n_lines, int8_t* lines) {
    constexpr int64_t kLineCodes = int64_t{kPanelCols} * kGroup;
    for (int64_t p = 0; p < n_panels_; ++p) {
      auto& [nibbles, escapes] = panels_.at(static_cast<size_t>(p));
      escapes = kernels_.expand({nibbles, escapes, n_lines, lines + p * n_lines * kLineCodes});
      nibbles += n_lines * kLineCodes / 2;
    }
  }

 private:
  struct Place {
    const int8_t* nibbles = nullptr;
    const int8_t* escapes = nullptr;
  };
  const ExpandKernels& kernels_;
  int64_t n_panels_;
  std::array<Place, kMostTilePanels> panels_;
};

void run_scalar(const Implementation& impl, const Int8Product& p, const PackedW8A8sc& w,
                ThreadTeam& team) {
  const int64_t panel_bytes = w.padded_k() * kPanelCols;
  team.parallel_for(w.n_panels(), [&](int64_t panel, int) {
    int8_t* lines = lines_buffer.get(panel_bytes);
    if (w.k() > 0) PanelExpander(impl.expanding, w, panel, 1).expand(w.padded_k() / kGroup, lines);
    const int64_t col = panel * kPanelCols;
    impl.multiplying.multiply_columns({p.x, p.x_stride, p.m, w.k(), lines, panel_bytes, 0,
                                       std::min<int64_t>(kPanelCols, w.n() - col),
                                       p.epilogue_at(0, col)});
  });
}

void stream_task(const Implementation& impl, const Int8Task& task, const PackedW8A8sc& w) {
  impl.stream({.x = task.x + task.row * task.blocking.x_row_bytes,
               .x_row_bytes = task.blocking.x_row_bytes,
               .n_rows = task.n_rows,
               .bytes = w.bytes(),
               .panel_offsets = w.panel_offsets() + task.panel,
               .n_panels = task.n_panels,
               .n_lines = w.padded_k() / kGroup,
               .epilogue = task.product.epilogue_at(task.row, task.panel * kPanelCols)});
}

// A tile's panels are expanded for all rows of the task at once.
void expand_task(const Implementation& impl, const Int8Task& task, const PackedW8A8sc& w) {
  const Int8Blocking& b = task.blocking;
  const int64_t step = b.streams ? 1 : std::min(task.kernels.tile_panels, kMostTilePanels);
  int8_t* lines = lines_buffer.get(step * b.block_k * kPanelCols);
  for (int64_t panel = 0; panel < task.n_panels; panel += step) {
    Int8Task tile = task;
    tile.panel += panel;
    tile.n_panels = std::min(step, task.n_panels - panel);
    PanelExpander expander(impl.expanding, w, tile.panel, tile.n_panels);
    for (int64_t i = 0; i < b.n_blocks; ++i) {
      Int8Block block = tile.block(i);
      if (block.n_groups > 0) expander.expand(block.n_groups, lines);
      block.weights = lines;
      block.panel_bytes = block.n_groups * kGroup * kPanelCols;
      task.kernels.multiply(block);
    }
  }
}

void run(Isa isa, const Int8Product& p, const PackedW8A8sc& w, ThreadTeam& team) {
  if (p.m == 0 || w.n() == 0) return;
  const Implementation impl = implementation_for(isa);
  if (impl.multiplying.multiply_columns != nullptr) return run_scalar(impl, p, w, team);
  for_int8_tasks(impl.multiplying, p, team, [&](const Int8Task& task) {
    if (task.blocking.streams && impl.stream != nullptr) return stream_task(impl, task, w);
    expand_task(impl, task, w);
  });
}

Int8Weights view_of(const PackedW8A8sc& w, Isa isa) {
  return {.n = w.n(),
          .k = w.k(),
          .padded_k = w.padded_k(),
          .panel_bytes = w.panel_offsets()[w.n_panels()] / std::max<int64_t>(w.n_panels(), 1),
          .is_expanded = implementation_for(isa).stream == nullptr};
}

}  // namespace

void gemm_w8a8sc(const GemmW8A8scArgs& args, ThreadTeam& team, Isa isa) {
  const Int8Epilogue epilogue = checked_epilogue("gemm_w8a8sc", args);
  const PackedW8A8sc& w = *args.weights;
  if (w.n() == 0) return;
  run(isa, {args.x, args.m, args.x_stride, view_of(w, isa), epilogue}, w, team);
}

void gemm_w8a8sc_sums(const GemmW8A8scSumsArgs& args, ThreadTeam& team, Isa isa) {
  const Int8Epilogue epilogue = checked_epilogue("gemm_w8a8sc_sums", args);
  const PackedW8A8sc& w = *args.weights;
  if (w.n() == 0) return;
  run(isa, {args.x, args.m, args.x_stride, view_of(w, isa), epilogue}, w, team);
}

W8A8scImplementation gemm_w8a8sc_implementation(Isa isa) {
  const Implementation impl = implementation_for(isa);
  return {impl.multiplying.isa, impl.expanding.isa};
}

bool w8a8sc_pays(double escaped, Isa isa) {
  return implementation_for(isa).stream != nullptr && escaped <= 0.2;
}

}  // namespace llmq::quant
