// Products of a float activation with weights of every float family, beside the floors of this
// machine, the float32 multiply-add peak and the read bandwidth, whichever leaves less.
// Weights rotate through an array larger than the caches.

#include <benchmark/benchmark.h>
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <span>
#include <string>
#include <vector>

#include "quant/kernels/cpu.h"
#include "quant/kernels/gemm_bf16/gemm_bf16.h"
#include "quant/kernels/gemm_f16/gemm_f16.h"
#include "quant/kernels/gemm_f32/gemm_f32.h"
#include "quant/kernels/gemm_w4a16/gemm_w4a16.h"
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

  [[nodiscard]] int64_t codes_size_bytes() const {
    if (family == "w4a16") return n * k / 2;
    const int64_t per_weight = family == "f32" ? 4 : family == "w8a16" ? 1 : 2;
    return n * k * per_weight;
  }
  [[nodiscard]] int64_t scales_size_bytes() const { return group == 0 ? 0 : n * (k / group) * 4; }
  [[nodiscard]] int64_t size_bytes() const { return codes_size_bytes() + scales_size_bytes(); }
  [[nodiscard]] int64_t n_copies() const {
    return std::max<int64_t>(kArenaBytes / codes_size_bytes(), 1);
  }
};

// Everything that the benchmarks share; made once.
struct Machine {
  ThreadTeam team;
  Arena arena{kArenaBytes};
  Arena activations{int64_t{1} << 27};
  Arena scales{int64_t{1} << 27};
  std::vector<PackedInt4> int4;  // copies of the last shape
  std::vector<float> y;

  [[nodiscard]] const float* floats() const {
    return reinterpret_cast<const float*>(activations.data());
  }

  const PackedInt4& int4_copy(const Case& c, int64_t copy) {
    if (int4.empty() || int4.front().n() != c.n || int4.front().k() != c.k) {
      int4.clear();
      const std::span bytes(reinterpret_cast<const std::byte*>(arena.data()),
                            static_cast<size_t>(c.codes_size_bytes()));
      for (int64_t i = 0; i < c.n_copies(); ++i) {
        int4.push_back(PackedInt4::pack(bytes, formats::Int4Layout::kColumnPairs, c.n, c.k, team));
      }
    }
    return int4[static_cast<size_t>(copy)];
  }
};

Machine& machine() {
  static Machine instance;
  return instance;
}

void multiply(const Case& c, int64_t copy) {
  Machine& here = machine();
  here.y.resize(static_cast<size_t>(c.m * c.n));
  const unsigned char* weights = here.arena.data() + copy * c.codes_size_bytes();
  const auto* scales =
      reinterpret_cast<const float*>(here.scales.data() + copy * c.scales_size_bytes());
  const ConstMatrixF32 x{here.floats(), c.m, c.k, c.k};
  const MatrixF32 y{here.y.data(), c.m, c.n, c.n};
  if (c.family == "bf16_products") {
    gemm_bf16({x, weights, formats::DType::kBF16, c.k, nullptr, y}, here.team);
  } else if (c.family == "f32") {
    gemm_f32({x, weights, c.k, nullptr, y}, here.team);
  } else if (c.family == "w4a16") {
    gemm_w4a16({x, &here.int4_copy(c, copy), scales, nullptr, c.group, nullptr, y}, here.team);
  } else if (c.family == "w8a16") {
    gemm_w8a16(
        {x, reinterpret_cast<const int8_t*>(weights), c.k, scales, nullptr, c.group, nullptr, y},
        here.team);
  } else {
    const auto dtype = c.family == "bf16" ? formats::DType::kBF16 : formats::DType::kF16;
    gemm_f16({x, weights, dtype, c.k, nullptr, y}, here.team);
  }
}

double median(std::vector<double> values) {
  std::nth_element(values.begin(), values.begin() + static_cast<int64_t>(values.size() / 2),
                   values.end());
  return values[values.size() / 2];
}

// Floors and product are measured in turns, so that what else runs on the machine slows both.
void run_case(benchmark::State& state, const Case& c) {
  Machine& here = machine();
  const int64_t n_copies = c.n_copies();
  multiply(c, 0);  // makes what is made once
  const double operations = 2.0 * static_cast<double>(c.m * c.n * c.k);
  const auto bytes = static_cast<double>(c.size_bytes());
  const bool many_rows = c.m > 16;
  int64_t copy = 0;
  // Few rows are timed over a pass through the whole array, so that no pass finds it in a cache.
  const int64_t calls = many_rows ? 1 : n_copies;
  std::vector<double> limits;  // seconds of a call at the tighter of both floors
  std::vector<double> times;
  std::vector<double> bandwidths;
  std::vector<double> peaks;
  for (auto _ : state) {
    peaks.push_back(measure_fma_peak(here.team).gflops);
    bandwidths.push_back(
        measure_read_bandwidth(here.arena.data(), here.arena.size_bytes(), here.team));
    limits.push_back(std::max(operations / peaks.back(), bytes / bandwidths.back()) * 1e-9);
    const double seconds = fastest_seconds(1, [&] {
      for (int64_t call = 0; call < calls; ++call) multiply(c, copy++ % n_copies);
    });
    times.push_back(seconds / static_cast<double>(calls));
    state.SetIterationTime(times.back());
  }
  const auto best = [](const std::vector<double>& v) {
    return *std::min_element(v.begin(), v.end());
  };
  state.counters["GFLOPS"] = operations / median(times) * 1e-9;
  state.counters["GB/s"] = bytes / median(times) * 1e-9;
  state.counters["GFLOPS_peak"] = median(peaks);
  state.counters["GB/s_peak"] = median(bandwidths);
  // Floats of any width are multiplied as float32.
  const bool is_computing = operations / median(peaks) > bytes / median(bandwidths);
  state.counters[is_computing ? "share_of_fp32_peak" : "share_of_bandwidth"] =
      is_computing ? operations / median(times) * 1e-9 / median(peaks)
                   : bytes / median(times) * 1e-9 / median(bandwidths);
  state.counters["of_limit_%"] = 100.0 * median(limits) / median(times);
  state.counters["best_%"] = 100.0 * best(limits) / best(times);
}

// Products of bfloat16 on both sides, beside the peak of such products with the active set.
void run_bf16_case(benchmark::State& state, const Case& c) {
  Machine& here = machine();
  multiply(c, 0);
  const double operations = 2.0 * static_cast<double>(c.m * c.n * c.k);
  int64_t copy = 0;
  std::vector<double> times;
  std::vector<double> peaks{measure_bf16_peak(here.team)};
  for (auto _ : state) {
    times.push_back(fastest_seconds(1, [&] { multiply(c, copy++ % c.n_copies()); }));
    state.SetIterationTime(times.back());
    peaks.push_back(measure_bf16_peak(here.team));
  }
  const double peak = *std::max_element(peaks.begin(), peaks.end());
  state.counters["GFLOPS"] = operations / median(times) * 1e-9;
  state.counters["GFLOPS_peak"] = peak;
  // Scalar has no peak.
  if (peak > 0) state.counters["share_of_bf16_peak"] = operations / median(times) * 1e-9 / peak;
}

void register_bf16_cases() {
  for (const int64_t m : {16, 256, 512, 2048}) {
    for (const auto& [k, n] : {std::pair{1536, 8960}, {8960, 1536}, {3584, 18944}, {4096, 4096}}) {
      const Case c{"bf16_products", m, k, n};
      benchmark::RegisterBenchmark(fmt::format("bf16_products/m:{}/k:{}/n:{}", m, k, n).c_str(),
                                   [c](benchmark::State& state) { run_bf16_case(state, c); })
          ->UseManualTime()
          ->Iterations(m == 2048 ? 3 : 7)
          ->Unit(benchmark::kMillisecond);
    }
  }
}

void register_cases() {
  for (const int64_t m : {1, 2, 4, 8, 256, 2048}) {
    for (const auto& [k, n] : {std::pair{1536, 8960}, {8960, 1536}, {3584, 18944}, {4096, 4096}}) {
      for (const char* family :
           {"f32", "bf16", "fp16", "w8a16", "w8a16_group128", "w4a16", "w4a16_group128"}) {
        const std::string name = family;
        const bool grouped = name.ends_with("_group128");
        const Case c{name.substr(0, name.find('_')), m, k, n, grouped ? 128 : 0};
        benchmark::RegisterBenchmark(fmt::format("{}/m:{}/k:{}/n:{}", family, m, k, n).c_str(),
                                     [c](benchmark::State& state) { run_case(state, c); })
            ->UseManualTime()
            ->Iterations(m == 2048  ? 3
                         : m == 256 ? 5
                                    : 7)
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
  llmq::bench::register_bf16_cases();
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
  return 0;
}
