#include <cstdint>

#include "quant/kernels/gemm_f16/kernels.h"
#include "quant/kernels/gemm_f32/lanes_avx512.h"
#include "quant/kernels/gemm_f32/tile_kernels.h"

namespace llmq::quant {
namespace {

template <class Weights>
void stream(const StreamTask& task) {
  stream_weights<Weights>(task);
}

template <class Weights>
void widen(const WidenTask& task) {
  widen_range<Weights>(task, task.k_begin, task.k_begin + task.count);
}

template <class Weights>
constexpr LaneGemmKernels table() {
  return {.isa = Isa::kAvx512Vnni,
          .max_stream_rows = kMaxStreamRows,
          .tile_rows = kTileRowsAvx512,
          .tile_cols = kTileColsAvx512,
          .stream = stream<Weights>,
          .widen = widen<Weights>,
          .tile = multiply_tile_avx512};
}

}  // namespace

const LaneGemmKernels kGemmBf16Avx512 = table<Bf16Values>();
const LaneGemmKernels kGemmFp16Avx512 = table<Fp16Values>();

}  // namespace llmq::quant
