#include "quant/kernels/attention/code_sums_simd.h"
#include "quant/kernels/intrinsics_avx512.h"

namespace llmq::quant {
namespace {

struct LinesAvx512 {
  using Sums = __m512i;
  using Codes = __m512i;
  static constexpr int64_t kLanes = 16;
  static constexpr int kKeyRows = 12;  // by two registers of keys
  static constexpr int kValueRows = 7;
  static constexpr int kValueVecs = 2;  // a number is loaded once for both

  static Sums zero() { return _mm512_setzero_si512(); }
  static void ask(const int8_t* p) { _mm_prefetch(reinterpret_cast<const char*>(p), _MM_HINT_T0); }
  static Codes load(const int8_t* p) {
    return _mm512_cvtepi8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  }
  static Codes load(const int8_t* p, int64_t count) {
    const auto mask = static_cast<__mmask32>((uint64_t{1} << (2 * count)) - 1);
    return _mm512_cvtepi8_epi16(_mm256_maskz_loadu_epi8(mask, p));
  }
  static Sums add(Sums sums, Codes codes, Codes pair) {
    return _mm512_dpwssd_epi32(sums, codes, pair);
  }
  static Codes pair(const int16_t* p) {
    int32_t both;
    __builtin_memcpy(&both, p, sizeof both);
    return _mm512_set1_epi32(both);
  }
  static __mmask16 first(int64_t count) { return static_cast<__mmask16>((1U << count) - 1); }
  static Sums load_sums(const int32_t* p) { return _mm512_loadu_si512(p); }
  static Sums load_sums(const int32_t* p, int64_t count) {
    return _mm512_maskz_loadu_epi32(first(count), p);
  }
  static void store_sums(int32_t* p, Sums sums) { _mm512_storeu_si512(p, sums); }
  static void store_sums(int32_t* p, Sums sums, int64_t count) {
    _mm512_mask_storeu_epi32(p, first(count), sums);
  }

  using Floats = __m512;
  static Floats all(float value) { return _mm512_set1_ps(value); }
  static Floats load_floats(const float* p) { return _mm512_loadu_ps(p); }
  static void store_floats(float* p, Floats values) { _mm512_storeu_ps(p, values); }
  static Floats floats_of(Sums sums, int32_t offset) {
    return _mm512_cvtepi32_ps(_mm512_sub_epi32(sums, _mm512_set1_epi32(offset)));
  }
  static Floats multiply(Floats a, Floats b) { return _mm512_mul_ps(a, b); }
  static Sums plus(Sums a, Sums b) { return _mm512_add_epi32(a, b); }
  static Sums weight_codes(Floats weights, Floats steps, bool carries, Floats& left) {
    const __mmask16 is_above = _mm512_cmp_ps_mask(weights, _mm512_setzero_ps(), _CMP_GT_OQ);
    const Floats exact = _mm512_add_ps(_mm512_mul_ps(weights, steps), left);
    const Floats rounded =
        _mm512_roundscale_ps(exact, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    const Floats code = _mm512_maskz_min_ps(is_above, rounded, steps);
    if (carries) left = _mm512_mask_sub_ps(left, is_above, exact, code);
    return _mm512_cvtps_epi32(code);
  }
  static void store_codes(int16_t* p, Sums codes) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtsepi32_epi16(codes));
  }
};

}  // namespace

const CodeSumsKernels kCodeSumsAvx512Vnni{Isa::kAvx512Vnni, key_sums<LinesAvx512>,
                                          value_sums<LinesAvx512>, scores<LinesAvx512>,
                                          weight_codes<LinesAvx512>};

}  // namespace llmq::quant
