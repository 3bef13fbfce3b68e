#include <immintrin.h>

#include <cstdint>

#include "quant/kernels/gemm_w8a8sc/kernels.h"

namespace llmq::quant {
namespace {

constexpr int64_t kLineCodes = int64_t{kPanelCols} * kGroup;
constexpr int64_t kAheadBytes = 4096;

__m256i sign_extended(__m256i nibbles) {
  const __m256i table = _mm256_setr_epi8(0, 1, 2, 3, 4, 5, 6, 7, -8, -7, -6, -5, -4, -3, -2, -1,  //
                                         0, 1, 2, 3, 4, 5, 6, 7, -8, -7, -6, -5, -4, -3, -2, -1);
  return _mm256_shuffle_epi8(table, nibbles);
}

// The bytes of a line that stand for an escape.
uint64_t escaped(__m256i low, __m256i high) {
  const __m256i mark = _mm256_set1_epi8(-8);
  const auto first = static_cast<uint32_t>(_mm256_movemask_epi8(_mm256_cmpeq_epi8(low, mark)));
  const auto second = static_cast<uint32_t>(_mm256_movemask_epi8(_mm256_cmpeq_epi8(high, mark)));
  return static_cast<uint64_t>(second) << 32 | first;
}

// Writes a line and then, where most lines have nothing to do, the escapes over it.
const int8_t* write_line(__m256i low, __m256i high, const int8_t* escape, int8_t* line) {
  _mm256_store_si256(reinterpret_cast<__m256i*>(line), low);
  _mm256_store_si256(reinterpret_cast<__m256i*>(line + 32), high);
  for (uint64_t left = escaped(low, high); left != 0; left &= left - 1)
    line[__builtin_ctzll(left)] = *escape++;
  return escape;
}

const int8_t* expand(const ExpandTask& task) {
  const __m256i low_bits = _mm256_set1_epi8(15);
  const int8_t* escape = task.escapes;
  for (int64_t line = 0; line < task.n_lines; line += 2) {
    const int8_t* nibbles = task.nibbles + line * kLineCodes / 2;
    _mm_prefetch(reinterpret_cast<const char*>(nibbles) + kAheadBytes, _MM_HINT_T0);
    const __m256i first = _mm256_load_si256(reinterpret_cast<const __m256i*>(nibbles));
    const __m256i second = _mm256_load_si256(reinterpret_cast<const __m256i*>(nibbles + 32));
    int8_t* out = task.lines + line * kLineCodes;
    escape = write_line(sign_extended(_mm256_and_si256(first, low_bits)),
                        sign_extended(_mm256_and_si256(second, low_bits)), escape, out);
    escape = write_line(sign_extended(_mm256_and_si256(_mm256_srli_epi16(first, 4), low_bits)),
                        sign_extended(_mm256_and_si256(_mm256_srli_epi16(second, 4), low_bits)),
                        escape, out + kLineCodes);
  }
  return escape;
}

}  // namespace

const ExpandKernels kExpandAvx2{.isa = Isa::kAvx2, .expand = expand};

}  // namespace llmq::quant
