#include "tests/bench/floors.h"

#include "quant/kernels/cpu.h"

namespace llmq::bench {

using quant::LimitKind;

Int8Floor measure_int8_peak(quant::ThreadTeam& team) {
  const auto peak = quant::measure_peak(LimitKind::kInt8, team, quant::active_isa());
  return {peak.gops, peak.share_of_architecture};
}

FmaFloor measure_fma_peak(quant::ThreadTeam& team) {
  const auto peak = quant::measure_peak(LimitKind::kF32, team, quant::active_isa());
  return {peak.gops, peak.share_of_architecture};
}

double measure_bf16_peak(quant::ThreadTeam& team) {
  quant::MachineLimits limits;
  limits.peaks = quant::measure_peaks(LimitKind::kBf16, team);
  limits.peaks.push_back(quant::measure_peak(LimitKind::kF32, team, quant::active_isa()));
  return limits.best_gops(LimitKind::kBf16);
}

}  // namespace llmq::bench
