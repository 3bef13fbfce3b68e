#include <immintrin.h>

#include "quant/kernels/attention/code_sums_simd.h"

namespace llmq::quant {
namespace {

struct LinesAvx2 {
  using Sums = __m256i;
  using Codes = __m256i;
  static constexpr int64_t kLanes = 8;
  static constexpr int kKeyRows = 8;
  static constexpr int kValueRows = 2;  // by four registers of lanes

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
  static Sums add(Sums sums, Codes codes, const int16_t* pair) {
    int32_t both;
    __builtin_memcpy(&both, pair, sizeof both);
    return _mm256_add_epi32(sums, _mm256_madd_epi16(codes, _mm256_set1_epi32(both)));
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
};

}  // namespace

const CodeSumsKernels kCodeSumsAvx2{Isa::kAvx2, key_sums<LinesAvx2>, value_sums<LinesAvx2>};

}  // namespace llmq::quant
