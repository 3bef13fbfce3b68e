#include <immintrin.h>

#include "quant/kernels/attention/code_sums_simd.h"

namespace llmq::quant {
namespace {

struct LinesAvx2 {
  using Sums = __m256i;
  using Codes = __m256i;
  static constexpr int64_t kLanes = 8;
  static constexpr int kKeyRows = 6;  // by two registers of keys
  static constexpr int kValueRows = 2;
  static constexpr int kValueVecs = 4;

  static Sums zero() { return _mm256_setzero_si256(); }
  static void ask(const int8_t* p) { _mm_prefetch(reinterpret_cast<const char*>(p), _MM_HINT_T0); }
  static Codes load(const int8_t* p) {
    return _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  }
  static Codes load(const int8_t* p, int64_t count) {
    alignas(16) int8_t codes[16] = {};
    __builtin_memcpy(codes, p, static_cast<size_t>(2 * count));
    return load(codes);
  }
  // A pair of products stays far from the limits of 32 bits, since codes have eight.
  static Sums add(Sums sums, Codes codes, Codes pair) {
    return _mm256_add_epi32(sums, _mm256_madd_epi16(codes, pair));
  }
  static Codes pair(const int16_t* p) {
    int32_t both;
    __builtin_memcpy(&both, p, sizeof both);
    return _mm256_set1_epi32(both);
  }
  static Sums load_sums(const int32_t* p) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  }
  static Sums load_sums(const int32_t* p, int64_t count) {
    alignas(32) int32_t sums[8] = {};
    __builtin_memcpy(sums, p, static_cast<size_t>(4 * count));
    return load_sums(sums);
  }
  static void store_sums(int32_t* p, Sums sums) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), sums);
  }
  static void store_sums(int32_t* p, Sums sums, int64_t count) {
    alignas(32) int32_t stored[8];
    store_sums(stored, sums);
    __builtin_memcpy(p, stored, static_cast<size_t>(4 * count));
  }

  using Floats = __m256;
  static Floats all(float value) { return _mm256_set1_ps(value); }
  static Floats load_floats(const float* p) { return _mm256_loadu_ps(p); }
  static void store_floats(float* p, Floats values) { _mm256_storeu_ps(p, values); }
  static Floats floats_of(Sums sums, int32_t offset) {
    return _mm256_cvtepi32_ps(_mm256_sub_epi32(sums, _mm256_set1_epi32(offset)));
  }
  static Floats multiply(Floats a, Floats b) { return _mm256_mul_ps(a, b); }
  static Sums plus(Sums a, Sums b) { return _mm256_add_epi32(a, b); }
  static Sums weight_codes(Floats weights, Floats steps, bool carries, Floats& left) {
    const Floats is_above = _mm256_cmp_ps(weights, _mm256_setzero_ps(), _CMP_GT_OQ);
    const Floats exact = _mm256_add_ps(_mm256_mul_ps(weights, steps), left);
    const Floats rounded = _mm256_round_ps(exact, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    const Floats code = _mm256_and_ps(_mm256_min_ps(rounded, steps), is_above);
    if (carries) left = _mm256_blendv_ps(left, _mm256_sub_ps(exact, code), is_above);
    return _mm256_cvtps_epi32(code);
  }
  static void store_codes(int16_t* p, Sums codes) {
    _mm_storeu_si128(
        reinterpret_cast<__m128i*>(p),
        _mm_packs_epi32(_mm256_castsi256_si128(codes), _mm256_extracti128_si256(codes, 1)));
  }
};

}  // namespace

const CodeSumsKernels kCodeSumsAvx2{Isa::kAvx2, key_sums<LinesAvx2>, value_sums<LinesAvx2>,
                                    scores<LinesAvx2>, weight_codes<LinesAvx2>};

}  // namespace llmq::quant
