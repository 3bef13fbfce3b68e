#include "tests/bench/floors.h"

#include <immintrin.h>
#include <sys/mman.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <limits>
#include <new>
#include <vector>

#include "quant/kernels/cpu.h"

namespace llmq::bench {
namespace {

using quant::Isa;
using quant::ThreadTeam;

constexpr int64_t kFmaSteps = 1 << 18;
constexpr int kFmaChains = 12;

// kFmaChains independent chains: more than latency (4) × units (2).
__attribute__((target("avx512f"))) float fma_chains_avx512() {
  __m512 acc[kFmaChains];
  for (int c = 0; c < kFmaChains; ++c) acc[c] = _mm512_set1_ps(static_cast<float>(c));
  const __m512 a = _mm512_set1_ps(0.5F);
  for (int64_t i = 0; i < kFmaSteps; ++i) {
#pragma GCC unroll 12
    for (int c = 0; c < kFmaChains; ++c) acc[c] = _mm512_fmadd_ps(acc[c], a, a);
  }
  float lanes[16];
  __m512 sum = acc[0];
  for (int c = 1; c < kFmaChains; ++c) sum = _mm512_add_ps(sum, acc[c]);
  _mm512_storeu_ps(lanes, sum);
  return lanes[0];
}

__attribute__((target("avx2,fma"))) float fma_chains_avx2() {
  __m256 acc[kFmaChains];
  for (int c = 0; c < kFmaChains; ++c) acc[c] = _mm256_set1_ps(static_cast<float>(c));
  const __m256 a = _mm256_set1_ps(0.5F);
  for (int64_t i = 0; i < kFmaSteps; ++i) {
#pragma GCC unroll 12
    for (int c = 0; c < kFmaChains; ++c) acc[c] = _mm256_fmadd_ps(acc[c], a, a);
  }
  float lanes[8];
  __m256 sum = acc[0];
  for (int c = 1; c < kFmaChains; ++c) sum = _mm256_add_ps(sum, acc[c]);
  _mm256_storeu_ps(lanes, sum);
  return lanes[0];
}

// More than latency (5) × units (2).
constexpr int kInt8Chains = 12;

__attribute__((target("avx512f,avx512vnni"))) int64_t int8_chains_avx512vnni() {
  __m512i acc[kInt8Chains];
  for (int c = 0; c < kInt8Chains; ++c) acc[c] = _mm512_set1_epi32(c);
  const __m512i a = _mm512_set1_epi8(3);
  for (int64_t i = 0; i < kFmaSteps; ++i) {
#pragma GCC unroll 12
    for (int c = 0; c < kInt8Chains; ++c) acc[c] = _mm512_dpbusd_epi32(acc[c], a, a);
  }
  int64_t lanes[8];
  __m512i sum = acc[0];
  for (int c = 1; c < kInt8Chains; ++c) sum = _mm512_xor_si512(sum, acc[c]);
  _mm512_storeu_si512(lanes, sum);
  return lanes[0];
}

__attribute__((target("avx2,avxvnni"))) int64_t int8_chains_avxvnni() {
  __m256i acc[kInt8Chains];
  for (int c = 0; c < kInt8Chains; ++c) acc[c] = _mm256_set1_epi32(c);
  const __m256i a = _mm256_set1_epi8(3);
  for (int64_t i = 0; i < kFmaSteps; ++i) {
#pragma GCC unroll 12
    for (int c = 0; c < kInt8Chains; ++c) acc[c] = _mm256_dpbusd_avx_epi32(acc[c], a, a);
  }
  __m256i sum = acc[0];
  for (int c = 1; c < kInt8Chains; ++c) sum = _mm256_xor_si256(sum, acc[c]);
  return _mm256_extract_epi64(sum, 0);
}

__attribute__((target("avx2"))) int64_t int8_chains_avx2() {
  __m256i acc[kInt8Chains];
  for (int c = 0; c < kInt8Chains; ++c) acc[c] = _mm256_set1_epi32(c);
  __m256i a = _mm256_set1_epi16(3);
  for (int64_t i = 0; i < kFmaSteps; ++i) {
    asm volatile("" : "+x"(a));  // else the products are taken out of the loop
#pragma GCC unroll 12
    for (int c = 0; c < kInt8Chains; ++c)
      acc[c] = _mm256_add_epi32(acc[c], _mm256_madd_epi16(a, a));
  }
  __m256i sum = acc[0];
  for (int c = 1; c < kInt8Chains; ++c) sum = _mm256_xor_si256(sum, acc[c]);
  return _mm256_extract_epi64(sum, 0);
}

// A chain of dependent multiplications, three cycles each on every x86 core since 2011: its length
// over its time is the clock. (Additions would not do: some cores fold them before execution.)
double clock_hz() {
  constexpr int64_t kLength = 1 << 20;
  constexpr double kCycles = 3.0;
  const double seconds = fastest_seconds(20, [] {
    int64_t value = 3;
    for (int64_t i = 0; i < kLength / 16; ++i) {
#pragma GCC unroll 16
      for (int u = 0; u < 16; ++u) asm volatile("imul %0, %0" : "+r"(value));
    }
  });
  return kCycles * static_cast<double>(kLength) / seconds;
}

__attribute__((target("avx512f"))) int64_t sum_avx512(const unsigned char* p, int64_t size_bytes) {
  __m512i sum[4] = {};
  for (int64_t i = 0; i + 256 <= size_bytes; i += 256) {
#pragma GCC unroll 4
    for (int u = 0; u < 4; ++u) {
      _mm_prefetch(reinterpret_cast<const char*>(p + i + 64 * u + 4096), _MM_HINT_T0);
      sum[u] = _mm512_xor_si512(sum[u], _mm512_loadu_si512(p + i + 64 * u));
    }
  }
  const __m512i all =
      _mm512_xor_si512(_mm512_xor_si512(sum[0], sum[1]), _mm512_xor_si512(sum[2], sum[3]));
  int64_t lanes[8];
  _mm512_storeu_si512(lanes, all);
  return lanes[0] ^ lanes[7];
}

__attribute__((target("avx2"))) int64_t sum_avx2(const unsigned char* p, int64_t size_bytes) {
  __m256i sum[4] = {};
  for (int64_t i = 0; i + 128 <= size_bytes; i += 128) {
    _mm_prefetch(reinterpret_cast<const char*>(p + i + 4096), _MM_HINT_T0);
    _mm_prefetch(reinterpret_cast<const char*>(p + i + 4160), _MM_HINT_T0);
#pragma GCC unroll 4
    for (int u = 0; u < 4; ++u) {
      const auto* at = reinterpret_cast<const __m256i*>(p + i + 32 * u);
      sum[u] = _mm256_xor_si256(sum[u], _mm256_loadu_si256(at));
    }
  }
  const __m256i all =
      _mm256_xor_si256(_mm256_xor_si256(sum[0], sum[1]), _mm256_xor_si256(sum[2], sum[3]));
  return _mm256_extract_epi64(all, 0) ^ _mm256_extract_epi64(all, 3);
}

bool has_avx512() {
  return quant::active_isa() >= Isa::kAvx512Vnni;
}

volatile int64_t discarded;  // keeps the probes' results alive

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

FmaFloor measure_fma_peak(ThreadTeam& team) {
  const bool wide = has_avx512();
  const int lanes = wide ? 16 : 8;
  const int n_threads = team.n_threads();
  std::vector<float> results(static_cast<size_t>(n_threads));
  const double seconds = fastest_seconds(30, [&] {
    team.parallel_for(
        n_threads,
        [&](int64_t task, int) {
          results[static_cast<size_t>(task)] = wide ? fma_chains_avx512() : fma_chains_avx2();
        },
        quant::Partition::kStatic);
  });
  discarded = static_cast<int64_t>(results[0]);
  const double operations = 2.0 * lanes * kFmaChains * kFmaSteps * n_threads;
  const double architecture = clock_hz() * n_threads * 2.0 * lanes * 2.0;
  return {operations / seconds * 1e-9, operations / seconds / architecture};
}

Int8Floor measure_int8_peak(ThreadTeam& team) {
  struct Probe {
    int64_t (*run)();
    int products;  // per instruction
  };
  const Isa isa = quant::active_isa();
  const Probe probe = isa >= Isa::kAvx512Vnni ? Probe{int8_chains_avx512vnni, 64}
                      : isa == Isa::kAvxVnni  ? Probe{int8_chains_avxvnni, 32}
                                              : Probe{int8_chains_avx2, 16};
  const int n_threads = team.n_threads();
  std::vector<int64_t> results(static_cast<size_t>(n_threads));
  const double seconds = fastest_seconds(30, [&] {
    team.parallel_for(
        n_threads, [&](int64_t task, int) { results[static_cast<size_t>(task)] = probe.run(); },
        quant::Partition::kStatic);
  });
  discarded = results[0];
  const double operations = 2.0 * probe.products * kInt8Chains * kFmaSteps * n_threads;
  const double architecture = clock_hz() * n_threads * 2.0 * probe.products * 2.0;
  return {operations / seconds * 1e-9, operations / seconds / architecture};
}

double measure_read_bandwidth(const unsigned char* data, int64_t size_bytes, ThreadTeam& team) {
  const bool wide = has_avx512();
  const int64_t part = size_bytes / team.n_threads() / 256 * 256;
  std::vector<int64_t> results(static_cast<size_t>(team.n_threads()));
  const double seconds = fastest_seconds(5, [&] {
    team.parallel_for(
        team.n_threads(),
        [&](int64_t task, int) {
          const unsigned char* p = data + task * part;
          results[static_cast<size_t>(task)] = wide ? sum_avx512(p, part) : sum_avx2(p, part);
        },
        quant::Partition::kStatic);
  });
  discarded = results[0];
  return static_cast<double>(part * team.n_threads()) / seconds * 1e-9;
}

Arena::Arena(int64_t size_bytes) : size_bytes_(size_bytes) {
  void* p = mmap(nullptr, static_cast<size_t>(size_bytes), PROT_READ | PROT_WRITE,
                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
  if (p == MAP_FAILED) throw std::bad_alloc();
  data_ = static_cast<unsigned char*>(p);
  // A small normal number in every float type: subnormal operands would be slow.
  std::memset(data_, 0x3c, static_cast<size_t>(size_bytes));
}

Arena::~Arena() {
  munmap(data_, static_cast<size_t>(size_bytes_));
}

}  // namespace llmq::bench
