// Products of a float activation with weights of every float family, beside the floors of this
// machine: many rows against the float32 multiply-add peak, one row against the read bandwidth.
// Weights rotate through an array larger than the caches.

#include <benchmark/benchmark.h>
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <string>
#include <vector>

#include "quant/kernels/cpu.h"
#include "quant/kernels/gemm_f16/gemm_f16.h"
#include "quant/kernels/gemm_f32/gemm_f32.h"
#include "quant/kernels/gemm_w8a16/gemm_w8a16.h"
#include "tests/bench/floors.h"

namespace llmq::bench {
namespace {

using namespace llmq::quant;  // NOLINT(google-build-using-namespace)

constexpr int64_t kArenaBytes = int64_t{1} << 30;

struct Case {
  std::string family;
  int64_t m;
  int64_t k;
  int64_t n;
  int64_t group = 0;

  [[nodiscard]] int64_t weight_size_bytes() const {
    if (family == "f32") return 4;
    return family == "w8a16" ? 1 : 2;
  }
  [[nodiscard]] int64_t weights_size_bytes() const { return n * k * weight_size_bytes(); }
};

// Everything that the benchmarks share; made once.
struct Machine {
  ThreadTeam team;
  Arena arena{kArenaBytes};
  Arena activations{int64_t{1} << 25};
  std::vector<float> y;

  [[nodiscard]] const float* floats() const {
    return reinterpret_cast<const float*>(activations.data());
  }
};

Machine& machine() {
  static Machine instance;
  return instance;
}

void multiply(const Case& c, const unsigned char* weights) {
  Machine& here = machine();
  here.y.resize(static_cast<size_t>(c.m * c.n));
  const ConstMatrixF32 x{here.floats(), c.m, c.k, c.k};
  const MatrixF32 y{here.y.data(), c.m, c.n, c.n};
  if (c.family == "f32") {
    gemm_f32({x, weights, c.k, nullptr, y}, here.team);
  } else if (c.family == "w8a16") {
    gemm_w8a16({x, reinterpret_cast<const int8_t*>(weights), c.k, here.floats(), nullptr, c.group,
                nullptr, y},
               here.team);
  } else {
    const auto dtype = c.family == "bf16" ? formats::DType::kBF16 : formats::DType::kF16;
    gemm_f16({x, weights, dtype, c.k, nullptr, y}, here.team);
  }
}

void run_case(benchmark::State& state, const Case& c) {
  Machine& here = machine();
  const int64_t n_copies = std::max<int64_t>(here.arena.size_bytes() / c.weights_size_bytes(), 1);
  const bool many_rows = c.m > 16;
  const auto measure_floor = [&] {
    return many_rows
               ? measure_fma_peak(here.team).gflops
               : measure_read_bandwidth(here.arena.data(), here.arena.size_bytes(), here.team);
  };
  double floor = measure_floor();
  int64_t copy = 0;
  double best = 1e30;
  // One row is timed over a pass through the whole array, so that no pass finds it in a cache.
  const int64_t calls = many_rows ? 1 : n_copies;
  for (auto _ : state) {
    const double seconds = fastest_seconds(1, [&] {
      for (int64_t call = 0; call < calls; ++call)
        multiply(c, here.arena.data() + (copy++ % n_copies) * c.weights_size_bytes());
    });
    best = std::min(best, seconds / static_cast<double>(calls));
    state.SetIterationTime(seconds);
  }
  floor = std::max(floor, measure_floor());
  const double operations = 2.0 * static_cast<double>(c.m * c.n * c.k);
  const double rate = (many_rows ? operations : static_cast<double>(c.weights_size_bytes())) / best;
  state.counters[many_rows ? "GFLOPS" : "GB/s"] = rate * 1e-9;
  state.counters["floor"] = floor;
  state.counters["share_%"] = 100.0 * rate * 1e-9 / floor;
}

void register_cases() {
  for (const int64_t m : {1, 4, 8, 16, 512}) {
    for (const auto& [k, n] : {std::pair{896, 4864}, {1536, 8960}, {4096, 4096}}) {
      for (const char* family : {"f32", "bf16", "fp16", "w8a16", "w8a16_group128"}) {
        const bool grouped = std::string(family) == "w8a16_group128";
        const Case c{grouped ? "w8a16" : family, m, k, n, grouped ? 128 : 0};
        benchmark::RegisterBenchmark(fmt::format("{}/m:{}/k:{}/n:{}", family, m, k, n).c_str(),
                                     [c](benchmark::State& state) { run_case(state, c); })
            ->UseManualTime()
            ->MinTime(0.3)
            ->Unit(benchmark::kMillisecond);
      }
    }
  }
}

}  // namespace
}  // namespace llmq::bench

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  llmq::bench::Machine& here = llmq::bench::machine();
  const llmq::bench::FmaFloor peak = llmq::bench::measure_fma_peak(here.team);
  const double bandwidth =
      llmq::bench::measure_read_bandwidth(here.arena.data(), here.arena.size_bytes(), here.team);
  fmt::print(
      "{} on {} threads: float32 multiply-add peak {:.1f} GFLOPS ({:.0f} % of clock × units), "
      "read bandwidth {:.1f} GB/s\n",
      llmq::quant::isa_name(llmq::quant::active_isa()), here.team.n_threads(), peak.gflops,
      100.0 * peak.share_of_architecture, bandwidth);
  llmq::bench::register_cases();
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
  return 0;
}
