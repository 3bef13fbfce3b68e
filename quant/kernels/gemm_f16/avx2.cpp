#include <immintrin.h>

#include <cstdint>

#include "quant/kernels/gemm_f16/kernels.h"
#include "quant/kernels/gemm_f32/lanes_avx2.h"
#include "quant/kernels/gemm_f32/tile_kernels.h"

namespace llmq::quant {
namespace {

struct Bf16Weights {
  static __m256 widen(__m128i bits) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
  }
};

struct Fp16Weights {
  static __m256 widen(__m128i bits) { return _mm256_cvtph_ps(bits); }
};

// 16-bit floats that Type::widen makes 32-bit, eight at a time.
template <class Type>
struct Float16Weights {
  static constexpr int64_t kStepBytes = 32;
  struct Row {};
  static Row row(const WeightRows&, int64_t, int64_t) { return {}; }
  static Lanes load(const unsigned char* p, Row) {
    return {Type::widen(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))),
            Type::widen(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p + 16)))};
  }
  static Lanes load(int64_t count, const unsigned char* p, Row) {
    if (count <= 8) return {Type::widen(load_bytes(p, count * 2)), _mm256_setzero_ps()};
    return {Type::widen(load_bytes(p, 16)), Type::widen(load_bytes(p + 16, (count - 8) * 2))};
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
  return {.isa = Isa::kAvx2,
          .max_stream_rows = kMaxStreamRows,
          .tile_rows = kTileRowsAvx2,
          .tile_cols = kTileColsAvx2,
          .stream = stream<Weights>,
          .widen = widen<Weights>,
          .tile = multiply_tile_avx2};
}

}  // namespace

const LaneGemmKernels kGemmBf16Avx2 = table<Float16Weights<Bf16Weights>>();
const LaneGemmKernels kGemmFp16Avx2 = table<Float16Weights<Fp16Weights>>();

}  // namespace llmq::quant
