#pragma once

// The engine that runs beside the hardware's tiles. Only for files compiled for AVX-512; everything
// has internal linkage.

#include <cstdint>

#include "quant/kernels/gemm_bf16/kernels.h"
#include "quant/kernels/intrinsics_avx512.h"

namespace llmq::quant {
namespace {

// Element j of line i becomes element i of line j.
inline void transpose_words(__m512i (&lines)[16]) {
  __m512i pairs[16];
#pragma GCC unroll 8
  for (int i = 0; i < 16; i += 2) {
    pairs[i] = _mm512_unpacklo_epi32(lines[i], lines[i + 1]);
    pairs[i + 1] = _mm512_unpackhi_epi32(lines[i], lines[i + 1]);
  }
  // quads[4g + c]: in its 128 bits number l, element 4l + c of lines 4g to 4g + 3.
  __m512i quads[16];
#pragma GCC unroll 4
  for (int i = 0; i < 16; i += 4) {
    quads[i] = _mm512_unpacklo_epi64(pairs[i], pairs[i + 2]);
    quads[i + 1] = _mm512_unpackhi_epi64(pairs[i], pairs[i + 2]);
    quads[i + 2] = _mm512_unpacklo_epi64(pairs[i + 1], pairs[i + 3]);
    quads[i + 3] = _mm512_unpackhi_epi64(pairs[i + 1], pairs[i + 3]);
  }
  constexpr int kEven = 0x88;  // 128-bit parts 0 and 2 of both operands
  constexpr int kOdd = 0xdd;   // parts 1 and 3
#pragma GCC unroll 4
  for (int c = 0; c < 4; ++c) {
    const __m512i even_0 = _mm512_shuffle_i32x4(quads[c], quads[4 + c], kEven);
    const __m512i even_1 = _mm512_shuffle_i32x4(quads[8 + c], quads[12 + c], kEven);
    const __m512i odd_0 = _mm512_shuffle_i32x4(quads[c], quads[4 + c], kOdd);
    const __m512i odd_1 = _mm512_shuffle_i32x4(quads[8 + c], quads[12 + c], kOdd);
    lines[c] = _mm512_shuffle_i32x4(even_0, even_1, kEven);
    lines[8 + c] = _mm512_shuffle_i32x4(even_0, even_1, kOdd);
    lines[4 + c] = _mm512_shuffle_i32x4(odd_0, odd_1, kEven);
    lines[12 + c] = _mm512_shuffle_i32x4(odd_0, odd_1, kOdd);
  }
}

struct TransposeAvx512 {
  static void load(const void* from, __m512i (&lines)[16]) {
#pragma GCC unroll 16
    for (int i = 0; i < 16; ++i)
      lines[i] = _mm512_load_si512(static_cast<const unsigned char*>(from) + 64 * i);
  }

  static void transpose(const void* from, void* to) {
    __m512i lines[16];
    load(from, lines);
    transpose_words(lines);
#pragma GCC unroll 16
    for (int i = 0; i < 16; ++i)
      _mm512_store_si512(static_cast<unsigned char*>(to) + 64 * i, lines[i]);
  }

  static void store_sums(const Bf16SumsTask& task) {
    __m512i lines[16];
    load(task.tile, lines);
    transpose_words(lines);
    const auto mask = static_cast<__mmask16>((1U << static_cast<unsigned>(task.n_cols)) - 1U);
    const bool has_bias = task.bias != nullptr;
    const __m512 bias = has_bias ? _mm512_maskz_loadu_ps(mask, task.bias) : _mm512_setzero_ps();
#pragma GCC unroll 16
    for (int row = 0; row < 16; ++row) {
      if (row >= task.n_rows) return;
      __m512 sums = _mm512_castsi512_ps(lines[row]);
      if (has_bias) sums = _mm512_add_ps(sums, bias);
      _mm512_mask_storeu_ps(task.y + row * task.y_stride, mask, sums);
    }
  }
};

}  // namespace
}  // namespace llmq::quant
