#pragma once

#include <cstdint>
#include <string>

namespace llmq::runtime {

/// A stream of numbers that is a function of two seeds alone: SplitMix64 (Steele, Lea, Flood 2014)
/// started at their mixed value. The same on every machine.
class SeededNumbers {
 public:
  SeededNumbers(uint64_t seed, uint64_t stream);

  uint64_t next();
  /// Uniform in [0, bound) but for a bias below bound · 2⁻⁶⁴; bound >= 1.
  uint64_t below(uint64_t bound);

 private:
  uint64_t state_;
};

/// A short sentence of plain words, with a space behind it and without digits:
/// "The quiet baker waits near the old bridge. ".
std::string filler_sentence(SeededNumbers& numbers);

/// A version 4 UUID in lower case: "1b4e28ba-2fa1-4d2f-883f-0016d3cca427".
std::string random_uuid(SeededNumbers& numbers);

}  // namespace llmq::runtime
