#include "runtime/attention/phase.h"

#include <fmt/format.h>

#include "formats/error.h"

namespace llmq::runtime {

std::string_view phase_name(Phase phase) {
  return phase == Phase::kPrefill ? "prefill" : "decode";
}

Phase parse_phase(std::string_view name) {
  for (const Phase phase : {Phase::kPrefill, Phase::kDecode}) {
    if (name == phase_name(phase)) return phase;
  }
  throw formats::usage_error(
      fmt::format("--phase {} is not known; choose prefill or decode", name));
}

std::vector<PhaseRun> phase_runs(std::span<const Phase> phases) {
  std::vector<PhaseRun> runs;
  for (size_t row = 0; row < phases.size(); ++row) {
    if (runs.empty() || runs.back().phase != phases[row])
      runs.push_back({phases[row], static_cast<int64_t>(row), 0});
    ++runs.back().n_rows;
  }
  return runs;
}

}  // namespace llmq::runtime
