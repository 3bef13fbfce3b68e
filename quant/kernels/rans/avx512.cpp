// AVX-512: the 16 states of a stream fill one register, and lanes that run low are refilled by one
// expansion. A step waits for its look-ups and a multiplication, so that several streams are
// decoded at once, each filling the time that the others wait.

#include "quant/kernels/intrinsics_avx512.h"
#include "quant/kernels/rans/rans.h"

namespace llmq::quant::detail {
namespace {

constexpr int64_t kMostStreams = 4;

// Single loads: gather instructions are slower here, by more than half on four streams.
inline __m128i look_up_four(const uint32_t* index, const uint32_t* slots) {
  const __m128i first = _mm_cvtsi32_si128(static_cast<int>(slots[index[0]]));
  const __m128i second = _mm_cvtsi32_si128(static_cast<int>(slots[index[2]]));
  return _mm_unpacklo_epi64(_mm_insert_epi32(first, static_cast<int>(slots[index[1]]), 1),
                            _mm_insert_epi32(second, static_cast<int>(slots[index[3]]), 1));
}

inline __m512i look_up(__m512i index, const uint32_t* slots) {
  alignas(64) uint32_t indices[kRansLanes];
  _mm512_store_si512(indices, index);
  const __m256i low = _mm256_inserti128_si256(_mm256_castsi128_si256(look_up_four(indices, slots)),
                                              look_up_four(indices + 4, slots), 1);
  const __m256i high =
      _mm256_inserti128_si256(_mm256_castsi128_si256(look_up_four(indices + 8, slots)),
                              look_up_four(indices + 12, slots), 1);
  return _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1);
}

inline __m512i step(__m512i state, const uint32_t* slots, const unsigned char** words,
                    uint8_t* codes) {
  const __m512i slot_mask = _mm512_set1_epi32(kRansSlots - 1);
  const __m512i slot = look_up(_mm512_and_si512(state, slot_mask), slots);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(codes), _mm512_cvtepi32_epi8(slot));
  const __m512i frequency = _mm512_add_epi32(_mm512_srli_epi32(slot, 20), _mm512_set1_epi32(1));
  const __m512i rank = _mm512_and_si512(_mm512_srli_epi32(slot, 8), slot_mask);
  state = _mm512_mullo_epi32(frequency, _mm512_srli_epi32(state, kRansSlotBits));
  state = _mm512_add_epi32(state, rank);

  const __mmask16 low = _mm512_cmplt_epu32_mask(state, _mm512_set1_epi32(kRansLow));
  const __m512i next =
      _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(*words)));
  *words += 2 * _mm_popcnt_u32(low);
  return _mm512_mask_or_epi32(state, low, _mm512_slli_epi32(state, 16),
                              _mm512_maskz_expand_epi32(low, next));
}

template <int N>
void decode_together(const uint32_t* slots, RansStream* streams, int64_t n_codes) {
  __m512i states[N];
  const unsigned char* words[N];
  const unsigned char* ends[N];
  bool overrun[N] = {};
  for (int s = 0; s < N; ++s) {
    states[s] = _mm512_loadu_si512(streams[s].states);
    words[s] = streams[s].words;
    ends[s] = words[s] + 2 * streams[s].n_words;
  }
  for (int64_t i = 0; i < n_codes; i += kRansCodeMultiple) {
#pragma GCC unroll 4
    for (int s = 0; s < N; ++s) {
      if (__builtin_expect(words[s] > ends[s], 0)) {
        overrun[s] = true;
        words[s] = ends[s];
      }
    }
#pragma GCC unroll 2
    for (int half = 0; half < 2; ++half) {
#pragma GCC unroll 4
      for (int s = 0; s < N; ++s) {
        states[s] = step(states[s], slots, &words[s], streams[s].codes + i + half * kRansLanes);
      }
    }
  }
  for (int s = 0; s < N; ++s) {
    const __mmask16 ended = _mm512_cmpeq_epi32_mask(states[s], _mm512_set1_epi32(kRansLow));
    streams[s].complete = !overrun[s] && words[s] == ends[s] && ended == 0xffff;
  }
}

void decode(const uint32_t* slots, RansStream* streams, int64_t n_streams, int64_t n_codes) {
  int64_t i = 0;
  for (; i + kMostStreams <= n_streams; i += kMostStreams) {
    decode_together<kMostStreams>(slots, streams + i, n_codes);
  }
  if (i + 2 <= n_streams) {
    decode_together<2>(slots, streams + i, n_codes);
    i += 2;
  }
  if (i < n_streams) decode_together<1>(slots, streams + i, n_codes);
}

}  // namespace

const RansKernels kRansAvx512{Isa::kAvx512Vnni, decode};

}  // namespace llmq::quant::detail
