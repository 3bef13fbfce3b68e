#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "quant/kernels/rans/rans.h"

/// The order-0 model of a matrix of int8 codes. Codes are named by their two's complement byte, 0
/// to 255, throughout.
namespace llmq::quant {

/// How often each code occurs.
using CodeHistogram = std::array<uint64_t, 256>;

/// Order-0 entropy: Σ −p·log2 p in bits per code; 0 for an empty histogram.
double entropy_bits(const CodeHistogram& histogram);

/// Frequencies of the coder, and the codes that it escapes: where the decoder has `escape_code`,
/// the true code follows as a byte of its own.
struct RansModel {
  std::array<uint16_t, 256> frequency{};  ///< sums to kRansSlots; 0: not coded, or escaped
  bool has_escape = false;
  uint8_t escape_code = 0;  ///< has a frequency where has_escape

  /// The frequency under which a code is coded: its own, or that of the escape.
  [[nodiscard]] bool is_escaped(uint8_t code) const {
    return has_escape && (frequency[code] == 0 || code == escape_code);
  }
};

/// The model with which the codes of `histogram` (at most 2^35 of them, at least one) take the
/// least space: frequencies that cost most where rounding them hurts most, and rare codes escaped
/// where a slot of their own would cost the others more. Integer arithmetic, so that the same
/// histogram gives the same model on every machine.
RansModel choose_rans_model(const CodeHistogram& histogram);

/// The bytes of a model: flag, escape code, a bit per code with a frequency, then their frequencies
/// as little-endian uint16.
std::vector<std::byte> serialize_rans_model(const RansModel& model);

/// The inverse over all of `bytes`. Throws Error{kBadInput} for anything that
/// serialize_rans_model does not write.
RansModel parse_rans_model(std::span<const std::byte> bytes);

/// The table of a decoder.
using RansSlotTable = std::array<uint32_t, kRansSlots>;
RansSlotTable make_rans_slots(const RansModel& model);

}  // namespace llmq::quant
