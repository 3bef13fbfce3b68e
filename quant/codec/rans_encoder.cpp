#include "quant/codec/rans_encoder.h"

#include <limits>

namespace llmq::quant {

RansEncoder::RansEncoder(const RansModel& model) : has_escape_(model.has_escape) {
  uint32_t first_slot = 0;
  for (size_t code = 0; code < entries_.size(); ++code) {
    const uint32_t frequency = model.frequency[code];
    if (frequency == 0) continue;
    Entry& entry = entries_[code];
    entry.frequency = frequency;
    entry.complement = kRansSlots - frequency;
    entry.bias = first_slot;
    entry.reciprocal = std::numeric_limits<uint64_t>::max() / frequency;
    if (frequency == 1) {
      entry.bias += entry.complement;  // the quotient comes out one too small
    } else {
      ++entry.reciprocal;
    }
    first_slot += frequency;
  }
  for (size_t code = 0; code < entries_.size(); ++code) {
    is_escaped_[code] = model.is_escaped(static_cast<uint8_t>(code));
    if (is_escaped_[code]) entries_[code] = entries_[model.escape_code];
  }
}

RansStreamBytes RansEncoder::encode(std::span<const uint8_t> codes, Scratch& scratch) const {
  __extension__ using Wide = unsigned __int128;

  scratch.words.resize(codes.size() + 1);  // a word is written before it is known to be needed
  uint16_t* const end = scratch.words.data() + scratch.words.size();
  uint16_t* next = end;
  RansStreamBytes result;
  std::array<uint32_t, kRansLanes>& states = result.states;
  states.fill(kRansLow);
  // The decoder goes forward and undoes the last step first. A branch would be mispredicted once in
  // five codes.
  for (size_t group = codes.size(); group > 0; group -= kRansLanes) {
    const uint8_t* const group_codes = codes.data() + group - kRansLanes;
#pragma GCC unroll 16
    for (size_t lane = kRansLanes; lane-- > 0;) {
      const Entry& entry = entries_[group_codes[lane]];
      uint32_t state = states[lane];
      next[-1] = static_cast<uint16_t>(state);
      const uint32_t is_full = state >> (32 - kRansSlotBits) >= entry.frequency ? 1 : 0;
      next -= is_full;
      state >>= 16 * is_full;
      const auto quotient = static_cast<uint32_t>(Wide{state} * entry.reciprocal >> 64);
      states[lane] = state + entry.bias + quotient * entry.complement;
    }
  }
  result.words = {next, end};
  scratch.escapes.clear();
  if (has_escape_) {
    for (const uint8_t code : codes) {
      if (is_escaped_[code]) scratch.escapes.push_back(code);
    }
  }
  result.escapes = scratch.escapes;
  return result;
}

}  // namespace llmq::quant
