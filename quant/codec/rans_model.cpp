#include "quant/codec/rans_model.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <optional>

#include "formats/error.h"

namespace llmq::quant {
namespace {

using formats::bad_input;

constexpr int kNCodes = 256;
constexpr size_t kBitmapSizeBytes = kNCodes / 8;
constexpr size_t kFixedSizeBytes = 2 + kBitmapSizeBytes;
constexpr int kFractionBits = 24;

// log2(i) with kFractionBits binary places, rounded down. Floating point would differ in its last
// bits between libraries, and two models that cost the same could then be told apart.
const std::array<uint32_t, kRansSlots + 1>& log2_table() {
  static const auto table = [] {
    std::array<uint32_t, kRansSlots + 1> logs{};
    for (uint32_t i = 1; i <= kRansSlots; ++i) {
      uint32_t whole = 0;
      while (i >> (whole + 1) != 0) ++whole;
      uint64_t mantissa = uint64_t{i} << (31 - whole);  // 31 binary places, in [1, 2)
      uint32_t log = whole;
      for (int bit = 0; bit < kFractionBits; ++bit) {
        mantissa = mantissa * mantissa >> 31;
        const auto carry = static_cast<uint32_t>(mantissa >> 32);
        mantissa >>= carry;
        log = log << 1 | carry;
      }
      logs[i] = log;
    }
    return logs;
  }();
  return table;
}

// Price of a code of frequency f in bits.
uint64_t price(uint32_t frequency) {
  return (uint64_t{kRansSlotBits} << kFractionBits) - log2_table()[frequency];
}

using Frequencies = std::array<uint32_t, kNCodes>;

// The entry that a change of its frequency by `step` serves best, or costs least.
size_t best_entry(const CodeHistogram& counts, const Frequencies& frequencies, int step) {
  size_t best = 0;
  std::optional<uint64_t> best_difference;
  for (size_t i = 0; i < kNCodes; ++i) {
    if (counts[i] == 0 || (step < 0 && frequencies[i] == 1)) continue;
    const uint64_t before = price(frequencies[i]);
    const uint64_t after = price(frequencies[i] + static_cast<uint32_t>(step));
    const uint64_t difference = counts[i] * (step > 0 ? before - after : after - before);
    const bool better = !best_difference ||
                        (step > 0 ? difference > *best_difference : difference < *best_difference);
    if (better) {
      best = i;
      best_difference = difference;
    }
  }
  return best;
}

// Frequencies of at least 1 for all codes that occur, near their shares and with the right sum.
Frequencies normalize(const CodeHistogram& counts) {
  const uint64_t total = std::accumulate(counts.begin(), counts.end(), uint64_t{0});
  Frequencies frequencies{};
  uint32_t sum = 0;
  for (size_t i = 0; i < kNCodes; ++i) {
    if (counts[i] == 0) continue;
    frequencies[i] = static_cast<uint32_t>(std::max<uint64_t>(1, counts[i] * kRansSlots / total));
    sum += frequencies[i];
  }
  for (; sum < kRansSlots; ++sum) ++frequencies[best_entry(counts, frequencies, 1)];
  for (; sum > kRansSlots; --sum) --frequencies[best_entry(counts, frequencies, -1)];
  return frequencies;
}

struct Candidate {
  RansModel model;
  uint64_t cost = std::numeric_limits<uint64_t>::max();  // bits with kFractionBits places
};

// The model that escapes codes with fewer than `least_count` occurrences.
Candidate model_that_escapes(const CodeHistogram& histogram, uint64_t least_count) {
  Candidate candidate;
  RansModel& model = candidate.model;
  CodeHistogram counts = histogram;
  uint64_t n_escaped = 0;
  for (size_t i = 0; i < kNCodes; ++i) {
    if (counts[i] == 0 || counts[i] >= least_count) continue;
    if (!model.has_escape) model.escape_code = static_cast<uint8_t>(i);
    model.has_escape = true;
    n_escaped += counts[i];
    counts[i] = 0;
  }
  if (model.has_escape) counts[model.escape_code] = n_escaped;

  const Frequencies frequencies = normalize(counts);
  candidate.cost = (n_escaped * 8) << kFractionBits;
  for (size_t i = 0; i < kNCodes; ++i) {
    if (counts[i] == 0) continue;
    model.frequency[i] = static_cast<uint16_t>(frequencies[i]);
    candidate.cost += counts[i] * price(frequencies[i]) + (uint64_t{16} << kFractionBits);
  }
  return candidate;
}

uint32_t byte_at(std::span<const std::byte> bytes, size_t i) {
  return std::to_integer<uint32_t>(bytes[i]);
}

}  // namespace

double entropy_bits(const CodeHistogram& histogram) {
  const auto total =
      static_cast<double>(std::accumulate(histogram.begin(), histogram.end(), uint64_t{0}));
  double bits = 0.0;
  for (const uint64_t count : histogram) {
    if (count == 0) continue;
    const double share = static_cast<double>(count) / total;
    bits -= share * std::log2(share);
  }
  return bits;
}

RansModel choose_rans_model(const CodeHistogram& histogram) {
  const uint64_t total = std::accumulate(histogram.begin(), histogram.end(), uint64_t{0});
  if (total == 0 || total > uint64_t{1} << 35) {
    throw formats::Error(formats::ErrorCode::kInternal,
                         fmt::format("no model for {} codes", total));
  }
  Candidate best = model_that_escapes(histogram, 0);
  // A slot costs the others about total / 4096 · log2(e) bits, and saves a rare code 8 bits or so.
  for (int shift = kRansSlotBits - 1; shift <= kRansSlotBits + 6; ++shift) {
    const Candidate candidate = model_that_escapes(histogram, total >> shift);
    if (candidate.cost < best.cost) best = candidate;
  }
  return best.model;
}

std::vector<std::byte> serialize_rans_model(const RansModel& model) {
  std::vector<std::byte> bytes(kFixedSizeBytes);
  bytes[0] = static_cast<std::byte>(model.has_escape ? 1 : 0);
  bytes[1] = static_cast<std::byte>(model.escape_code);
  for (size_t i = 0; i < kNCodes; ++i) {
    const uint16_t frequency = model.frequency[i];
    if (frequency == 0) continue;
    bytes[2 + i / 8] |= static_cast<std::byte>(1U << i % 8);
    bytes.push_back(static_cast<std::byte>(frequency & 0xff));
    bytes.push_back(static_cast<std::byte>(frequency >> 8));
  }
  return bytes;
}

RansModel parse_rans_model(std::span<const std::byte> bytes) {
  if (bytes.size() < kFixedSizeBytes) {
    throw bad_input(fmt::format("the table of frequencies has {} bytes, fewer than {}",
                                bytes.size(), kFixedSizeBytes));
  }
  RansModel model;
  model.has_escape = byte_at(bytes, 0) == 1;
  model.escape_code = static_cast<uint8_t>(byte_at(bytes, 1));
  size_t position = kFixedSizeBytes;
  uint32_t sum = 0;
  for (size_t i = 0; i < kNCodes; ++i) {
    if ((byte_at(bytes, 2 + i / 8) >> i % 8 & 1) == 0) continue;
    if (bytes.size() - position < 2) throw bad_input("the table of frequencies is cut short");
    const uint32_t frequency = byte_at(bytes, position) | byte_at(bytes, position + 1) << 8;
    position += 2;
    sum += frequency;
    if (frequency == 0 || sum > kRansSlots) {
      throw bad_input(fmt::format("the frequency {} of code {} is not possible", frequency,
                                  static_cast<int8_t>(i)));
    }
    model.frequency[i] = static_cast<uint16_t>(frequency);
  }
  if (position != bytes.size() || sum != kRansSlots) {
    throw bad_input(fmt::format("the frequencies fill {} of {} bytes and sum to {} instead of {}",
                                position, bytes.size(), sum, kRansSlots));
  }
  const bool escape_is_right = model.has_escape ? model.frequency[model.escape_code] > 0
                                                : model.escape_code == 0 && byte_at(bytes, 0) == 0;
  if (!escape_is_right) throw bad_input("the escape of the table of frequencies is not possible");
  return model;
}

RansSlotTable make_rans_slots(const RansModel& model) {
  RansSlotTable slots{};
  size_t slot = 0;
  for (uint32_t code = 0; code < kNCodes; ++code) {
    const uint32_t frequency = model.frequency[code];
    for (uint32_t rank = 0; rank < frequency; ++rank) {
      slots.at(slot++) = rans_slot(frequency, rank, code);
    }
  }
  return slots;
}

}  // namespace llmq::quant
