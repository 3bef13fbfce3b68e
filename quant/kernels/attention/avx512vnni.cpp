#include <immintrin.h>

#include "quant/kernels/attention/code_sums_simd.h"

namespace llmq::quant {
namespace {

struct LinesAvx512 {
  using Sums = __m512i;
  using Codes = __m512i;
  static constexpr int64_t kLanes = 16;
  static constexpr int kKeyRows = 12;   // and a register of codes
  static constexpr int kValueRows = 6;  // by four registers of lanes

  static Sums zero() { return _mm512_setzero_si512(); }
  static void ask(const int8_t* p) { _mm_prefetch(reinterpret_cast<const char*>(p), _MM_HINT_T0); }
  static Codes load(const int8_t* p) {
    return _mm512_cvtepi8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  }
  static Codes load(const int8_t* p, int64_t count) {
    const auto mask = static_cast<__mmask32>((uint64_t{1} << (2 * count)) - 1);
    return _mm512_cvtepi8_epi16(_mm256_maskz_loadu_epi8(mask, p));
  }
  static Sums add(Sums sums, Codes codes, const int16_t* pair) {
    int32_t both;
    __builtin_memcpy(&both, pair, sizeof both);
    return _mm512_dpwssd_epi32(sums, codes, _mm512_set1_epi32(both));
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
};

}  // namespace

const CodeSumsKernels kCodeSumsAvx512Vnni{Isa::kAvx512Vnni, key_sums<LinesAvx512>,
                                          value_sums<LinesAvx512>};

}  // namespace llmq::quant
