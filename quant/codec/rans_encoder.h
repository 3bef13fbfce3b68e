#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "quant/codec/rans_model.h"

namespace llmq::quant {

/// What a stream of codes became.
struct RansStreamBytes {
  std::array<uint32_t, kRansLanes> states{};  ///< with which the decoder starts
  std::span<const uint16_t> words;            ///< in the order in which the decoder takes them
  std::span<const uint8_t> escapes;           ///< the escaped codes in their order
};

/// The inverse of the decoder in quant/kernels/rans. Immutable after construction; thread safe.
class RansEncoder {
 public:
  /// Buffers of one thread; results lie in them.
  struct Scratch {
    std::vector<uint16_t> words;
    std::vector<uint8_t> escapes;
  };

  explicit RansEncoder(const RansModel& model);

  /// Encodes codes [n], n a multiple of kRansLanes, as their two's complement bytes. Each must have
  /// a frequency in the model or be escaped by it (unchecked; a stream with another code decodes to
  /// something else). The result is valid until `scratch` is used again.
  RansStreamBytes encode(std::span<const uint8_t> codes, Scratch& scratch) const;

 private:
  // How a code changes a state x: division of x by the frequency as a multiplication.
  struct Entry {
    uint64_t reciprocal = 0;  // ⌈2^64 / f⌉, but 2^64 − 1 for f = 1
    uint32_t frequency = 0;   // 0: the code cannot occur
    uint32_t complement = 0;  // kRansSlots − f
    uint32_t bias = 0;        // first slot; for f = 1 also what its reciprocal lacks
  };

  std::array<Entry, 256> entries_;
  std::array<bool, 256> is_escaped_{};
  bool has_escape_ = false;
};

}  // namespace llmq::quant
