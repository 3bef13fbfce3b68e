#include "quant/kernels/limits/limits.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstring>
#include <limits>
#include <new>
#include <string>

#include "formats/error.h"

namespace llmq::quant {
namespace {

constexpr std::array<const ProductProbe*, 8> kProbes{
    &kInt8ProbeAvx2,   &kInt8ProbeAvxVnni, &kInt8ProbeAvx512Vnni, &kInt8ProbeAmx,
    &kBf16ProbeAvx512, &kBf16ProbeAmx,     &kF32ProbeAvx2,        &kF32ProbeAvx512};

constexpr int kProductRuns = 60;
constexpr double kProductSeconds = 0.001;
constexpr int kReadRuns = 5;

bool can_run(const ProductProbe& probe) {
  if (&probe == &kBf16ProbeAvx512) {
    return isa_supported(Isa::kAvx512Vnni) && __builtin_cpu_supports("avx512bf16") != 0;
  }
  return isa_supported(probe.isa);
}

volatile int64_t discarded;  // keeps the probes' results alive

// A chain of dependent multiplications, three cycles each on every x86 core since 2011: its length
// over its time is the clock. (Additions would not do: some cores fold them before execution.)
double clock_hz() {
  constexpr int64_t kLength = 1 << 20;
  constexpr double kCycles = 3.0;
  const double seconds = fastest_seconds(10, [] {
    int64_t value = 3;
    for (int64_t i = 0; i < kLength / 16; ++i) {
#pragma GCC unroll 16
      for (int u = 0; u < 16; ++u) asm volatile("imul %0, %0" : "+r"(value));
    }
  });
  return kCycles * static_cast<double>(kLength) / seconds;
}

double run_on_team(const ProductProbe& probe, int64_t n_steps, int n_runs, ThreadTeam& team) {
  std::vector<int64_t> results(static_cast<size_t>(team.n_threads()));
  const double seconds = fastest_seconds(n_runs, [&] {
    team.parallel_for(
        team.n_threads(),
        [&](int64_t task, int) { results[static_cast<size_t>(task)] = probe.run(n_steps); },
        Partition::kStatic);
  });
  discarded = results.front();
  return seconds;
}

ProductPeak measure_probe(const ProductProbe& probe, ThreadTeam& team) {
  int64_t n_steps = 1 << 10;
  while (n_steps < int64_t{1} << 40 && run_on_team(probe, n_steps, 2, team) < kProductSeconds)
    n_steps *= 2;
  const double seconds = run_on_team(probe, n_steps, kProductRuns, team);
  const double n_threads = team.n_threads();
  const double per_second = n_threads * static_cast<double>(probe.operations_per_step) *
                            static_cast<double>(n_steps) / seconds;
  const double architecture =
      clock_hz() * n_threads * static_cast<double>(probe.operations_per_cycle);
  return {probe.kind, probe.isa, probe.instruction, per_second * 1e-9, per_second / architecture};
}

ReadProbe read_probe(Isa isa) {
  if (isa >= Isa::kAvx512Vnni) return read_avx512;
  return isa >= Isa::kAvx2 ? read_avx2 : read_scalar;
}

}  // namespace

double fastest_seconds(int n_runs, const std::function<void()>& run) {
  double best = std::numeric_limits<double>::infinity();
  for (int i = 0; i < n_runs; ++i) {
    const auto start = std::chrono::steady_clock::now();
    run();
    const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start;
    best = std::min(best, elapsed.count());
  }
  return best;
}

std::string_view limit_kind_name(LimitKind kind) {
  switch (kind) {
    case LimitKind::kInt8:
      return "int8";
    case LimitKind::kBf16:
      return "bf16";
    case LimitKind::kF32:
      return "fp32";
  }
  return "fp32";
}

double MachineLimits::best_gops(LimitKind kind, Isa isa) const {
  double best = 0.0;
  for (const ProductPeak& peak : peaks) {
    const bool serves =
        peak.kind == kind || (kind == LimitKind::kBf16 && peak.kind == LimitKind::kF32);
    if (serves && peak.isa <= isa) best = std::max(best, peak.gops);
  }
  return best;
}

std::vector<ProductPeak> measure_peaks(LimitKind kind, ThreadTeam& team) {
  std::vector<ProductPeak> peaks;
  for (const ProductProbe* probe : kProbes) {
    if (probe->kind == kind && can_run(*probe)) peaks.push_back(measure_probe(*probe, team));
  }
  return peaks;
}

ProductPeak measure_peak(LimitKind kind, ThreadTeam& team, Isa isa) {
  const ProductProbe* widest = nullptr;
  for (const ProductProbe* probe : kProbes) {
    if (probe->kind == kind && probe->isa <= isa && can_run(*probe)) widest = probe;
  }
  if (widest != nullptr && isa_supported(isa)) return measure_probe(*widest, team);
  throw formats::Error(formats::ErrorCode::kInternal,
                       "no instruction of " + std::string(isa_name(isa)) + " multiplies " +
                           std::string(limit_kind_name(kind)));
}

double measure_read_bandwidth(const unsigned char* data, int64_t size_bytes, ThreadTeam& team,
                              Isa isa) {
  const int64_t part = size_bytes / team.n_threads() / 256 * 256;
  const ReadProbe read = read_probe(isa);
  std::vector<int64_t> results(static_cast<size_t>(team.n_threads()));
  const double seconds = fastest_seconds(kReadRuns, [&] {
    team.parallel_for(
        team.n_threads(),
        [&](int64_t task, int) {
          results[static_cast<size_t>(task)] = read(data + task * part, part);
        },
        Partition::kStatic);
  });
  discarded = results.front();
  return static_cast<double>(part * team.n_threads()) / seconds * 1e-9;
}

double measure_memory_bandwidth(ThreadTeam& team, int64_t most_bytes) {
  const int64_t cache_bytes = std::max<int64_t>(::sysconf(_SC_LEVEL3_CACHE_SIZE), 0);
  const Arena arena(std::min(most_bytes, std::max(int64_t{1} << 30, 8 * cache_bytes)));
  return measure_read_bandwidth(arena.data(), arena.size_bytes(), team);
}

MachineLimits measure_limits(ThreadTeam& team) {
  MachineLimits limits;
  limits.n_threads = team.n_threads();
  limits.read_gb_per_s = measure_memory_bandwidth(team);
  for (const LimitKind kind : {LimitKind::kInt8, LimitKind::kBf16, LimitKind::kF32}) {
    const std::vector<ProductPeak> peaks = measure_peaks(kind, team);
    limits.peaks.insert(limits.peaks.end(), peaks.begin(), peaks.end());
  }
  return limits;
}

Arena::Arena(int64_t size_bytes) : size_bytes_(size_bytes) {
  void* p = mmap(nullptr, static_cast<size_t>(size_bytes), PROT_READ | PROT_WRITE,
                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
  if (p == MAP_FAILED) throw std::bad_alloc();
  data_ = static_cast<unsigned char*>(p);
  // Untouched pages would all be the one page of zeros; subnormal operands would be slow.
  std::memset(data_, 0x3c, static_cast<size_t>(size_bytes));
}

Arena::~Arena() {
  munmap(data_, static_cast<size_t>(size_bytes_));
}

}  // namespace llmq::quant
