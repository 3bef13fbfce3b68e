// The specification of the rANS decoder.

#include "quant/kernels/rans/rans.h"

namespace llmq::quant::detail {
namespace {

bool decode_stream(const uint32_t* slots, RansStream& stream, int64_t n_codes) {
  int64_t n_used = 0;
  for (int64_t i = 0; i < n_codes; ++i) {
    uint32_t& state = stream.states[i % kRansLanes];
    const uint32_t slot = slots[state % kRansSlots];
    const uint32_t frequency = (slot >> 20) + 1;
    const uint32_t rank = slot >> 8 & (kRansSlots - 1);
    stream.codes[i] = static_cast<uint8_t>(slot);
    state = frequency * (state >> kRansSlotBits) + rank;
    if (state >= kRansLow) continue;
    if (n_used == stream.n_words) return false;
    const unsigned char* word = stream.words + 2 * n_used++;
    state = state << 16 | uint32_t{word[1]} << 8 | word[0];
  }
  for (const uint32_t state : stream.states) {
    if (state != kRansLow) return false;
  }
  return n_used == stream.n_words;
}

void decode(const uint32_t* slots, RansStream* streams, int64_t n_streams, int64_t n_codes) {
  for (int64_t i = 0; i < n_streams; ++i) {
    streams[i].complete = decode_stream(slots, streams[i], n_codes);
  }
}

}  // namespace

const RansKernels kRansScalar{Isa::kScalar, decode};

}  // namespace llmq::quant::detail
