#pragma once

#include <cstdint>

#include "quant/kernels/limits/limits.h"
#include "quant/kernels/thread_team.h"

/// The measured limits of quant/kernels/limits in the words of the benchmarks.
namespace llmq::bench {

using quant::Arena;
using quant::fastest_seconds;
using quant::measure_read_bandwidth;

/// int8 multiply-adds of the active instruction set, see quant::measure_peak.
struct Int8Floor {
  double gops = 0.0;
  double share_of_architecture = 0.0;  ///< 0.9 is the least
};
Int8Floor measure_int8_peak(quant::ThreadTeam& team);

/// float32 multiply-adds of the active instruction set, see quant::measure_peak.
struct FmaFloor {
  double gflops = 0.0;
  double share_of_architecture = 0.0;  ///< 0.9 is the least
};
FmaFloor measure_fma_peak(quant::ThreadTeam& team);

/// Best rate of bf16 products with the active instruction set in 10^9 operations a second, float32
/// multiply-adds included, since kernels widen where that is faster.
double measure_bf16_peak(quant::ThreadTeam& team);

}  // namespace llmq::bench
