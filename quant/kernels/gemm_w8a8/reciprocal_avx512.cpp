#include <cstdint>

#include "quant/kernels/gemm_w8a8/reciprocal_kernels.h"
#include "quant/kernels/intrinsics_avx512.h"

namespace llmq::quant {
namespace {

void quantize(const float* x, int64_t n, float reciprocal, float offset, int8_t* codes) {
  const __m512 r = _mm512_set1_ps(reciprocal);
  const __m512 o = _mm512_set1_ps(offset);
  for (int64_t i = 0; i < n; i += 16) {
    const auto mask = n - i < 16 ? static_cast<__mmask16>((1U << static_cast<unsigned>(n - i)) - 1U)
                                 : __mmask16{0xffff};
    const __m512 value = _mm512_add_ps(_mm512_mul_ps(_mm512_maskz_loadu_ps(mask, x + i), r), o);
    const __m512 rounded =
        _mm512_roundscale_ps(value, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    // The bound comes second: it is what both instructions return when the first operand is NaN.
    const __m512 at_least = _mm512_max_ps(rounded, _mm512_set1_ps(-128.0F));
    const __m512 clamped = _mm512_min_ps(at_least, _mm512_set1_ps(127.0F));
    _mm_mask_storeu_epi8(codes + i, mask, _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(clamped)));
  }
}

}  // namespace

const ReciprocalKernels kReciprocalAvx512{.isa = Isa::kAvx512Vnni, .quantize = quantize};

}  // namespace llmq::quant
