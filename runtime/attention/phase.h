#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

namespace llmq::runtime {

/// What a token is fed for. Some schemes (W8A8_MIX) quantize activations differently in each.
enum class Phase : uint8_t {
  kPrefill,  ///< a token of a given text
  kDecode,   ///< a token that the model chose and reads again
};

/// "prefill" or "decode".
std::string_view phase_name(Phase phase);

/// The phase of a name. Throws Error{kUsage} for another one.
Phase parse_phase(std::string_view name);

/// Consecutive rows of one phase.
struct PhaseRun {
  Phase phase = Phase::kPrefill;
  int64_t first_row = 0;
  int64_t n_rows = 0;
};

/// The runs of rows with these phases, in order and as long as they can be.
std::vector<PhaseRun> phase_runs(std::span<const Phase> phases);

}  // namespace llmq::runtime
