// AVX2: two registers hold the 16 states of a stream. There is no expansion instruction; a table
// says for every set of low lanes which of the next words each of them takes.

#include <immintrin.h>

#include "quant/kernels/rans/rans.h"

namespace llmq::quant::detail {
namespace {

constexpr int kHalf = kRansLanes / 2;

// For each set of lanes: the number of members below each lane.
struct ExpandTable {
  alignas(64) uint8_t source[1 << kHalf][kHalf];
};

constexpr ExpandTable make_expand_table() {
  ExpandTable table{};
  for (int set = 0; set < 1 << kHalf; ++set) {
    uint8_t n_below = 0;
    for (int lane = 0; lane < kHalf; ++lane) {
      table.source[set][lane] = n_below;
      n_below = static_cast<uint8_t>(n_below + (set >> lane & 1));
    }
  }
  return table;
}

constexpr ExpandTable kExpand = make_expand_table();

// Single loads, as in avx512.cpp: gather instructions are slower.
inline __m128i look_up_four(const uint32_t* index, const uint32_t* slots) {
  const __m128i first = _mm_cvtsi32_si128(static_cast<int>(slots[index[0]]));
  const __m128i second = _mm_cvtsi32_si128(static_cast<int>(slots[index[2]]));
  return _mm_unpacklo_epi64(_mm_insert_epi32(first, static_cast<int>(slots[index[1]]), 1),
                            _mm_insert_epi32(second, static_cast<int>(slots[index[3]]), 1));
}

inline __m256i look_up(__m256i index, const uint32_t* slots) {
  alignas(32) uint32_t indices[kHalf];
  _mm256_store_si256(reinterpret_cast<__m256i*>(indices), index);
  return _mm256_inserti128_si256(_mm256_castsi128_si256(look_up_four(indices, slots)),
                                 look_up_four(indices + 4, slots), 1);
}

// Decodes a code of each of 8 lanes; `codes` gets slots, whose low bytes are the codes.
inline __m256i advance(__m256i state, const uint32_t* slots, __m256i* codes) {
  const __m256i slot_mask = _mm256_set1_epi32(kRansSlots - 1);
  const __m256i slot = look_up(_mm256_and_si256(state, slot_mask), slots);
  *codes = slot;
  const __m256i frequency = _mm256_add_epi32(_mm256_srli_epi32(slot, 20), _mm256_set1_epi32(1));
  const __m256i rank = _mm256_and_si256(_mm256_srli_epi32(slot, 8), slot_mask);
  state = _mm256_mullo_epi32(frequency, _mm256_srli_epi32(state, kRansSlotBits));
  return _mm256_add_epi32(state, rank);
}

inline __m256i refill(__m256i state, const unsigned char** words) {
  const __m256i low = _mm256_cmpeq_epi32(_mm256_srli_epi32(state, 16), _mm256_setzero_si256());
  const auto set = static_cast<unsigned>(_mm256_movemask_ps(_mm256_castsi256_ps(low)));
  const __m256i next =
      _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(*words)));
  const __m256i source =
      _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(kExpand.source[set])));
  *words += 2 * _mm_popcnt_u32(set);
  const __m256i filled =
      _mm256_or_si256(_mm256_slli_epi32(state, 16), _mm256_permutevar8x32_epi32(next, source));
  return _mm256_blendv_epi8(state, filled, low);
}

// The low bytes of four registers of 8 slots, in order.
inline __m256i pack_codes(const __m256i* slots) {
  const __m256i byte_mask = _mm256_set1_epi32(0xff);
  const __m256i low = _mm256_packus_epi32(_mm256_and_si256(slots[0], byte_mask),
                                          _mm256_and_si256(slots[1], byte_mask));
  const __m256i high = _mm256_packus_epi32(_mm256_and_si256(slots[2], byte_mask),
                                           _mm256_and_si256(slots[3], byte_mask));
  return _mm256_permutevar8x32_epi32(_mm256_packus_epi16(low, high),
                                     _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
}

template <int N>
void decode_together(const uint32_t* slots, RansStream* streams, int64_t n_codes) {
  __m256i states[N][2];
  const unsigned char* words[N];
  const unsigned char* ends[N];
  bool overrun[N] = {};
  for (int s = 0; s < N; ++s) {
    for (int half = 0; half < 2; ++half) {
      states[s][half] =
          _mm256_loadu_si256(reinterpret_cast<const __m256i*>(streams[s].states + half * kHalf));
    }
    words[s] = streams[s].words;
    ends[s] = words[s] + 2 * streams[s].n_words;
  }
  for (int64_t i = 0; i < n_codes; i += kRansCodeMultiple) {
    __m256i codes[N][4];
#pragma GCC unroll 4
    for (int s = 0; s < N; ++s) {
      if (__builtin_expect(words[s] > ends[s], 0)) {
        overrun[s] = true;
        words[s] = ends[s];
      }
    }
#pragma GCC unroll 4
    for (int quarter = 0; quarter < 4; ++quarter) {
#pragma GCC unroll 4
      for (int s = 0; s < N; ++s) {
        __m256i& state = states[s][quarter % 2];
        state = refill(advance(state, slots, &codes[s][quarter]), &words[s]);
      }
    }
#pragma GCC unroll 4
    for (int s = 0; s < N; ++s) {
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(streams[s].codes + i), pack_codes(codes[s]));
    }
  }
  for (int s = 0; s < N; ++s) {
    const __m256i end = _mm256_set1_epi32(kRansLow);
    const __m256i ended = _mm256_and_si256(_mm256_cmpeq_epi32(states[s][0], end),
                                           _mm256_cmpeq_epi32(states[s][1], end));
    streams[s].complete = !overrun[s] && words[s] == ends[s] && _mm256_movemask_epi8(ended) == -1;
  }
}

void decode(const uint32_t* slots, RansStream* streams, int64_t n_streams, int64_t n_codes) {
  int64_t i = 0;
  for (; i + 4 <= n_streams; i += 4) decode_together<4>(slots, streams + i, n_codes);
  for (; i + 2 <= n_streams; i += 2) decode_together<2>(slots, streams + i, n_codes);
  if (i < n_streams) decode_together<1>(slots, streams + i, n_codes);
}

}  // namespace

const RansKernels kRansAvx2{Isa::kAvx2, decode};

}  // namespace llmq::quant::detail
