#pragma once

#include <cstdint>
#include <functional>

#include "quant/kernels/thread_team.h"

namespace llmq::bench {

/// What this machine can do at best with the threads of a team, measured, not looked up.
struct Int8Floor {
  double gops = 0.0;  ///< int8 multiply-adds in registers, two operations each
  double share_of_architecture =
      0.0;  ///< of clock × threads × 2 units × products; 0.9 is the least
};

/// Best of several short runs of independent int8 products: 512-bit or 256-bit VPDPBUSD, or
/// VPMADDWD and an addition, whichever is the widest that the active instruction set has. The two
/// instructions of AVX2 share its units on some cores, so that half of its architecture is the most
/// there.
Int8Floor measure_int8_peak(quant::ThreadTeam& team);

/// What this machine can do at best with the threads of a team, measured, not looked up.
struct FmaFloor {
  double gflops = 0.0;                 ///< float32 multiply-adds in registers, two operations each
  double share_of_architecture = 0.0;  ///< of clock × threads × 2 units × lanes; 0.9 is the least
};

/// Best of several short runs of independent fused multiply-adds in the widest registers that the
/// active instruction set has.
FmaFloor measure_fma_peak(quant::ThreadTeam& team);

/// Best read rate in GB/s (10^9 bytes) over [0, size_bytes) of `data`, divided over the team as one
/// contiguous part per thread. For the rate of memory the array must be larger than the caches.
double measure_read_bandwidth(const unsigned char* data, int64_t size_bytes,
                              quant::ThreadTeam& team);

/// Seconds of the fastest of `n_runs` calls.
double fastest_seconds(int n_runs, const std::function<void()>& run);

/// Anonymous memory filled with 0x3c bytes, in pages of the default size, as a mapped checkpoint
/// has them.
class Arena {
 public:
  explicit Arena(int64_t size_bytes);
  ~Arena();
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;

  [[nodiscard]] unsigned char* data() const { return data_; }
  [[nodiscard]] int64_t size_bytes() const { return size_bytes_; }

 private:
  unsigned char* data_ = nullptr;
  int64_t size_bytes_ = 0;
};

}  // namespace llmq::bench
