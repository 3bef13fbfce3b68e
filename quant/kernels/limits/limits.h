#pragma once

#include <cstdint>
#include <functional>
#include <string_view>
#include <vector>

#include "quant/kernels/cpu.h"
#include "quant/kernels/limits/probes.h"
#include "quant/kernels/thread_team.h"

namespace llmq::quant {

/// The best rate of one instruction with the threads of a team, measured.
struct ProductPeak {
  LimitKind kind = LimitKind::kF32;
  /// Set that kernels must be allowed to use for it. VDPBF16PS counts as kAmx, since no narrower
  /// set includes it, and is measured wherever the CPU has it.
  Isa isa = Isa::kScalar;
  std::string_view instruction;
  double gops = 0.0;  ///< 10^9 operations a second; a multiplication and an addition are two
  /// Of clock × threads × units × products per instruction. A probe is trusted from 0.9 on; CPUs
  /// with fewer units than assumed give a half.
  double share_of_architecture = 0.0;
};

/// What this machine can do at best, measured, not looked up.
struct MachineLimits {
  int n_threads = 0;
  double read_gb_per_s = 0.0;  ///< from memory, 10^9 bytes
  /// Of every instruction that this machine has: int8, bf16, float32, each from the narrowest set.
  std::vector<ProductPeak> peaks;

  /// Best measured rate in 10^9 operations a second of a kind with the instructions of `isa` and
  /// those below it. bf16 includes float32, to which values are widened where that is faster; 0
  /// where there is none (scalar).
  [[nodiscard]] double best_gops(LimitKind kind, Isa isa = active_isa()) const;
};

/// "int8", "bf16" or "fp32".
std::string_view limit_kind_name(LimitKind kind);

/// The best of several short runs (together about 0.1 s) of every instruction that multiplies
/// `kind`, on all threads of the team, from the narrowest set to the widest.
std::vector<ProductPeak> measure_peaks(LimitKind kind, ThreadTeam& team);

/// The same of one set: its own instruction, or where it has none the widest below it. Throws
/// Error{kInternal} where there is none at all (scalar) or this machine lacks the set.
ProductPeak measure_peak(LimitKind kind, ThreadTeam& team, Isa isa);

/// Best read rate in GB/s (10^9 bytes) over [0, size_bytes) of `data`, divided over the team as one
/// contiguous part per thread, with the widest loads of `isa`. For the rate of memory the array
/// must be larger than the caches.
double measure_read_bandwidth(const unsigned char* data, int64_t size_bytes, ThreadTeam& team,
                              Isa isa = active_isa());

/// The same over an array of its own: 1 GiB, or 8 times the last cache where that is more, or less
/// where `most_bytes` says so (then caches help).
double measure_memory_bandwidth(ThreadTeam& team, int64_t most_bytes = int64_t{4} << 30);

/// All of the above; takes about a second.
MachineLimits measure_limits(ThreadTeam& team);

/// Seconds of the fastest of `n_runs` calls.
double fastest_seconds(int n_runs, const std::function<void()>& run);

/// Anonymous memory filled with 0x3c bytes (a small normal number in every float type), in pages of
/// the default size, as a mapped checkpoint has them. Throws std::bad_alloc.
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

}  // namespace llmq::quant
