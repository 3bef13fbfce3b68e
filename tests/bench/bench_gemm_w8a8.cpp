// Products of int8 codes, beside the floors of this machine: many rows against the peak of the int8
// multipliers, few rows against the read bandwidth. Weights rotate through packed matrices that
// together are larger than the caches.

#include <benchmark/benchmark.h>
#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include "quant/kernels/cpu.h"
#include "quant/kernels/gemm_w8a8/gemm_w8a8.h"
#include "quant/kernels/gemm_w8a8/quantize_rows.h"
#include "quant/kernels/huge_vector.h"
#include "tests/bench/floors.h"

namespace llmq::bench {
namespace {

using namespace llmq::quant;  // NOLINT(google-build-using-namespace)

constexpr int64_t kWeightsBytes = int64_t{1} << 30;
constexpr int64_t kManyRows = 16;  // from more rows on, the multipliers are the floor

struct Shape {
  int64_t k;
  int64_t n;
};

// Everything that the benchmarks share; made once.
struct Machine {
  ThreadTeam team;
  Arena arena{kWeightsBytes};
  std::vector<int8_t> x;
  std::vector<float> scale;
  HugeVector<float> y;
};

Machine& machine() {
  static Machine instance;
  return instance;
}

// Copies of one matrix, together as large as the arena.
const std::vector<PackedInt8>& packed_copies(const Shape& shape) {
  static std::vector<PackedInt8> copies;
  static Shape packed{0, 0};
  if (packed.k == shape.k && packed.n == shape.n) return copies;
  copies.clear();
  Machine& here = machine();
  const auto* codes = reinterpret_cast<const int8_t*>(here.arena.data());
  for (int64_t i = 0; i < kWeightsBytes / (shape.k * shape.n); ++i)
    copies.push_back(PackedInt8::pack(codes, shape.n, shape.k, shape.k, here.team));
  packed = shape;
  return copies;
}

void multiply(int64_t m, const PackedInt8& weights) {
  Machine& here = machine();
  here.x.resize(static_cast<size_t>(m * weights.k()), 5);
  here.scale.resize(static_cast<size_t>(weights.n()), 0.01F);
  here.y.resize(static_cast<size_t>(m * weights.n()));
  gemm_w8a8({.x = here.x.data(),
             .m = m,
             .x_stride = weights.k(),
             .weights = &weights,
             .deq_scale = here.scale.data(),
             .y = {here.y.data(), m, weights.n(), weights.n()}},
            here.team);
}

double measure_floor(bool many_rows) {
  Machine& here = machine();
  return many_rows ? measure_int8_peak(here.team).gops
                   : measure_read_bandwidth(here.arena.data(), here.arena.size_bytes(), here.team);
}

void run_product(benchmark::State& state, int64_t m, const Shape& shape) {
  const std::vector<PackedInt8>& copies = packed_copies(shape);
  const bool many_rows = m > kManyRows;
  double floor = measure_floor(many_rows);
  size_t copy = 0;
  multiply(m, copies.front());  // the first call pays for the pages of y
  double best = 1e30;
  // Few rows are timed over a pass through all copies, so that no pass finds them in a cache.
  const size_t calls = many_rows ? 1 : copies.size();
  for (auto _ : state) {
    const double seconds = fastest_seconds(1, [&] {
      for (size_t call = 0; call < calls; ++call) multiply(m, copies[copy++ % copies.size()]);
    });
    best = std::min(best, seconds / static_cast<double>(calls));
    state.SetIterationTime(seconds);
  }
  floor = std::max(floor, measure_floor(many_rows));
  const auto weights_size = static_cast<double>(shape.k * shape.n);
  const double rate = weights_size * (many_rows ? 2.0 * static_cast<double>(m) : 1.0) / best;
  state.counters[many_rows ? "GOPS" : "GB/s"] = rate * 1e-9;
  state.counters["floor"] = floor;
  state.counters[many_rows ? "share_of_int8_peak" : "share_of_bandwidth"] = rate * 1e-9 / floor;
}

// Float rows to codes; four bytes are read for each that is written.
void run_quantize(benchmark::State& state, int64_t m, int64_t k, bool dynamic) {
  Machine& here = machine();
  std::vector<float> x(static_cast<size_t>(m * k), 0.3F);
  std::vector<int8_t> codes(x.size());
  std::vector<float> row_scale(static_cast<size_t>(m));
  const ConstMatrixF32 view{x.data(), m, k, k};
  for (auto _ : state) {
    if (dynamic) {
      quantize_rows_dynamic(view, codes.data(), k, row_scale.data(), here.team);
    } else {
      quantize_rows(view, {.scale = 0.02F, .offset = 3.0F}, codes.data(), k, here.team);
    }
  }
  state.SetItemsProcessed(state.iterations() * m * k);
}

void register_cases() {
  for (const Shape& shape :
       {Shape{1536, 8960}, Shape{8960, 1536}, Shape{4096, 4096}, Shape{896, 4864}}) {
    for (const int64_t m : {1, 2, 4, 8, 16, 32, 64, 256, 512, 2048}) {
      benchmark::RegisterBenchmark(
          fmt::format("w8a8/m:{}/k:{}/n:{}", m, shape.k, shape.n).c_str(),
          [m, shape](benchmark::State& state) { run_product(state, m, shape); })
          ->UseManualTime()
          ->MinTime(0.3)
          ->Unit(benchmark::kMillisecond);
    }
  }
  for (const bool dynamic : {false, true}) {
    for (const int64_t m : {1, 512}) {
      const char* name = dynamic ? "quantize_rows_dynamic" : "quantize_rows";
      benchmark::RegisterBenchmark(
          fmt::format("{}/m:{}/k:4096", name, m).c_str(),
          [m, dynamic](benchmark::State& state) { run_quantize(state, m, 4096, dynamic); })
          ->UseRealTime();
    }
  }
}

}  // namespace
}  // namespace llmq::bench

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  llmq::bench::Machine& here = llmq::bench::machine();
  const llmq::bench::Int8Floor peak = llmq::bench::measure_int8_peak(here.team);
  const double bandwidth =
      llmq::bench::measure_read_bandwidth(here.arena.data(), here.arena.size_bytes(), here.team);
  fmt::print(
      "{} on {} threads: int8 multiply-add peak {:.1f} GOPS ({:.0f} % of clock × units), "
      "read bandwidth {:.1f} GB/s\n",
      llmq::quant::isa_name(llmq::quant::active_isa()), here.team.n_threads(), peak.gops,
      100.0 * peak.share_of_architecture, bandwidth);
  llmq::bench::register_cases();
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
  return 0;
}
