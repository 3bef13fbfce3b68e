#include <cstdint>

#include "quant/kernels/gemm_f16/kernels.h"
#include "quant/kernels/gemm_f32/lanes_avx512.h"
#include "quant/kernels/gemm_f32/tile_kernels.h"

namespace llmq::quant {
namespace {

struct Bf16Weights {
  static constexpr int64_t kStepBytes = 32;
  struct Row {};
  static Row row(const WeightRows&, int64_t, int64_t) { return {}; }
  static __m512 widen(__m256i bits) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
  }
  static __m512 load(const unsigned char* p, Row) {
    return widen(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  }
  static __m512 load(__mmask16 mask, const unsigned char* p, Row) {
    return widen(_mm256_maskz_loadu_epi16(mask, p));
  }
};

struct Fp16Weights {
  static constexpr int64_t kStepBytes = 32;
  struct Row {};
  static Row row(const WeightRows&, int64_t, int64_t) { return {}; }
  static __m512 load(const unsigned char* p, Row) {
    return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  }
  static __m512 load(__mmask16 mask, const unsigned char* p, Row) {
    return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(mask, p));
  }
};

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

const LaneGemmKernels kGemmBf16Avx512 = table<Bf16Weights>();
const LaneGemmKernels kGemmFp16Avx512 = table<Fp16Weights>();

}  // namespace llmq::quant
