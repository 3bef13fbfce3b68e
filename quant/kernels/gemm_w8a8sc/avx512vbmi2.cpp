#include <cstdint>

#include "quant/kernels/gemm_w8a8/sums_avx512.h"
// After the sums, whose functions its templates use.
#include "quant/kernels/gemm_w8a8/block_multiply.h"
#include "quant/kernels/gemm_w8a8sc/kernels.h"

namespace llmq::quant {
namespace {

// What finish_row() of gemm_w8a8 wants to know.
struct Engine : SumsAvx512 {
  static constexpr bool kShift = true;
};
constexpr int kMostRows = 8;

// Reads a panel: two lines for each 64 bytes of nibbles.
class LineReader {
 public:
  explicit LineReader(const int8_t* escapes) : escapes_(escapes) {}

  [[nodiscard]] const int8_t* escapes() const { return escapes_; }

  __m512i low_line(__m512i bytes) { return line(_mm512_and_si512(bytes, low_bits_)); }
  __m512i high_line(__m512i bytes) {
    return line(_mm512_and_si512(_mm512_srli_epi16(bytes, 4), low_bits_));
  }

 private:
  // VPEXPANDB puts the next escapes in the places that are marked for them. No branch: a line in
  // twelve has an escape in a typical matrix, which is often enough to be mispredicted.
  __m512i line(__m512i nibbles) {
    const __mmask64 escaped = _mm512_cmpeq_epi8_mask(nibbles, escape_mark_);
    const __m512i codes = _mm512_shuffle_epi8(table_, nibbles);
    const __m512i line = _mm512_mask_expand_epi8(codes, escaped, _mm512_loadu_si512(escapes_));
    escapes_ += __builtin_popcountll(escaped);
    return line;
  }

  const int8_t* escapes_;
  const __m512i low_bits_ = _mm512_set1_epi8(15);
  const __m512i escape_mark_ = _mm512_set1_epi8(kEscapeNibble);
  const __m512i table_ =
      _mm512_broadcast_i32x4(_mm_setr_epi8(0, 1, 2, 3, 4, 5, 6, 7, -8, -7, -6, -5, -4, -3, -2, -1));
};

__m512i load_group(const unsigned char* x) {
  int32_t group;
  __builtin_memcpy(&group, x, sizeof group);
  return _mm512_set1_epi32(group);
}

// One panel by kRows rows. Consecutive lines take turns in kChains sets of accumulators, so that
// few rows need not wait for the multiplier's latency.
template <int kRows, int kChains>
void stream_panel(const W8A8scStream& s, int64_t panel) {
  __m512i sums[kChains][kRows];
#pragma GCC unroll 4
  for (int c = 0; c < kChains; ++c) {
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) sums[c][r] = _mm512_setzero_si512();
  }
  LineReader reader(s.bytes + s.panel_offsets[panel]);
  const int8_t* nibbles = s.bytes + s.panel_offsets[panel + 1] - s.n_lines * (kLineBytes / 2);
  const unsigned char* x = s.x;
  for (int64_t line = 0; line < s.n_lines; line += kChains) {
#pragma GCC unroll 2
    for (int c = 0; c < kChains; c += 2) {
      _mm_prefetch(reinterpret_cast<const char*>(nibbles) + kStreamAheadBytes, _MM_HINT_T0);
      const __m512i bytes = _mm512_load_si512(nibbles);
      const __m512i low = reader.low_line(bytes);
      const __m512i high = reader.high_line(bytes);
#pragma GCC unroll 8
      for (int r = 0; r < kRows; ++r) {
        const unsigned char* groups = x + r * s.x_row_bytes;
        sums[c][r] = _mm512_dpbusd_epi32(sums[c][r], load_group(groups), low);
        sums[c + 1][r] = _mm512_dpbusd_epi32(sums[c + 1][r], load_group(groups + kGroup), high);
      }
      nibbles += kLineBytes;
      x += int64_t{2} * kGroup;
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (int c = 1; c < kChains; ++c) sums[0][r] = add(sums[0][r], sums[c][r]);
    finish_row<Engine>(s.epilogue, r, panel, sums[0][r]);
  }
}

template <int kRows>
void stream_rows_of(const W8A8scStream& s) {
  if constexpr (kRows > 1) {
    if (s.n_rows < kRows) return stream_rows_of<kRows - 1>(s);
  }
  constexpr int kChains = kRows == 1 ? 4 : 2;
  for (int64_t panel = 0; panel < s.n_panels; ++panel) stream_panel<kRows, kChains>(s, panel);
}

const int8_t* expand(const ExpandTask& task) {
  LineReader reader(task.escapes);
  for (int64_t line = 0; line < task.n_lines; line += 2) {
    const int8_t* nibbles = task.nibbles + line * (kLineBytes / 2);
    _mm_prefetch(reinterpret_cast<const char*>(nibbles) + kStreamAheadBytes, _MM_HINT_T0);
    const __m512i bytes = _mm512_load_si512(nibbles);
    int8_t* out = task.lines + line * kLineBytes;
    _mm512_store_si512(out, reader.low_line(bytes));
    _mm512_store_si512(out + kLineBytes, reader.high_line(bytes));
  }
  return reader.escapes();
}

}  // namespace

const ExpandKernels kExpandAvx512Vbmi2{.isa = Isa::kAvx512Vnni, .expand = expand};

void stream_w8a8sc_avx512vbmi2(const W8A8scStream& stream) {
  stream_rows_of<kMostRows>(stream);
}

}  // namespace llmq::quant
