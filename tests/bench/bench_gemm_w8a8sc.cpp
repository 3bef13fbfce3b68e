// Products by weights of W8A8S that stay packed, each beside gemm_w8a8 on the same codes. Both
// cycle over matrices that together are larger than the caches, call by call in turn, so that what
// else the machine does falls on both; counters are medians of the calls.

#include <benchmark/benchmark.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <utility>
#include <vector>

#include "quant/kernels/cpu.h"
#include "quant/kernels/gemm_w8a8/gemm_w8a8.h"
#include "quant/kernels/gemm_w8a8sc/gemm_w8a8sc.h"
#include "tests/bench/floors.h"

namespace llmq::bench {
namespace {

using namespace llmq::quant;  // NOLINT(google-build-using-namespace)

constexpr int64_t kWeightsBytes = int64_t{1} << 30;  // of each kind

struct Shape {
  int64_t k;
  int64_t n;
  friend bool operator==(const Shape&, const Shape&) = default;
};

// Which codes: Gaussian weights whose threshold, seven steps, is so many deviations.
struct Codes {
  const char* name;
  double deviations;
};
constexpr Codes kSigma3{"sigma3", 3.0};
constexpr Codes kTenth{"fraction0.1", 1.645};

struct Machine {
  ThreadTeam team;
  Arena arena{kWeightsBytes};
  std::vector<int8_t> x;
  std::vector<float> scale;
  std::vector<float> y;
};

Machine& machine() {
  static Machine instance;
  return instance;
}

std::vector<int8_t> make_codes(const Shape& shape, const Codes& kind) {
  std::mt19937 random(7);
  std::normal_distribution<float> normal(0.0F, static_cast<float>(7.0 / kind.deviations));
  std::vector<int8_t> codes(static_cast<size_t>(shape.k * shape.n));
  for (int8_t& code : codes)
    code = static_cast<int8_t>(std::clamp(std::rint(normal(random)), -128.0F, 127.0F));
  return codes;
}

// Copies of one matrix, those of a kind together as large as kWeightsBytes.
struct Copies {
  std::vector<PackedInt8> int8;
  std::vector<PackedW8A8sc> sc;
};

const Copies& copies_of(const Shape& shape, const Codes& kind) {
  static Copies copies;
  static std::pair<Shape, const char*> made{{0, 0}, nullptr};
  if (made == std::pair{shape, kind.name}) return copies;
  copies = {};
  ThreadTeam& team = machine().team;
  const std::vector<int8_t> codes = make_codes(shape, kind);
  int64_t size_bytes = 0;
  while (size_bytes < kWeightsBytes) {
    copies.int8.push_back(PackedInt8::pack(codes.data(), shape.n, shape.k, shape.k, team));
    size_bytes += shape.k * shape.n;
  }
  size_bytes = 0;
  while (size_bytes < kWeightsBytes) {
    copies.sc.push_back(PackedW8A8sc::pack(codes.data(), shape.n, shape.k, shape.k, team));
    size_bytes += static_cast<int64_t>(copies.sc.back().size_bytes());
  }
  made = {shape, kind.name};
  return copies;
}

template <typename Args, typename Weights>
Args operands(int64_t m, const Weights& weights) {
  Machine& here = machine();
  return {.x = here.x.data(),
          .m = m,
          .x_stride = weights.k(),
          .weights = &weights,
          .deq_scale = here.scale.data(),
          .y = {here.y.data(), m, weights.n(), weights.n()}};
}

double median(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

void run_product(benchmark::State& state, int64_t m, const Shape& shape, const Codes& kind) {
  Machine& here = machine();
  const Copies& copies = copies_of(shape, kind);
  here.x.resize(static_cast<size_t>(m * shape.k), 5);
  here.scale.resize(static_cast<size_t>(shape.n), 0.01F);
  here.y.resize(static_cast<size_t>(m * shape.n));
  std::vector<double> int8_seconds;
  std::vector<double> sc_seconds;
  std::vector<double> ratios;
  size_t copy = 0;
  for (auto _ : state) {
    const PackedInt8& int8 = copies.int8[copy % copies.int8.size()];
    const PackedW8A8sc& sc = copies.sc[copy % copies.sc.size()];
    ++copy;
    int8_seconds.push_back(
        fastest_seconds(1, [&] { gemm_w8a8(operands<GemmW8A8Args>(m, int8), here.team); }));
    sc_seconds.push_back(
        fastest_seconds(1, [&] { gemm_w8a8sc(operands<GemmW8A8scArgs>(m, sc), here.team); }));
    ratios.push_back(int8_seconds.back() / sc_seconds.back());
    state.SetIterationTime(sc_seconds.back());
  }
  const auto int8_bytes = static_cast<double>(copies.int8.front().size_bytes());
  const auto sc_bytes = static_cast<double>(copies.sc.front().size_bytes());
  const double bandwidth =
      measure_read_bandwidth(here.arena.data(), here.arena.size_bytes(), here.team);
  const double rate = sc_bytes * 1e-9 / median(sc_seconds);
  state.counters["MB"] = sc_bytes * 1e-6;
  state.counters["bytes_ratio"] = int8_bytes / sc_bytes;
  state.counters["speed_ratio"] = median(ratios);
  state.counters["int8_GB/s"] = int8_bytes * 1e-9 / median(int8_seconds);
  state.counters["GB/s"] = rate;
  state.counters["times_reference"] = median(ratios);
  state.counters["share_of_bandwidth"] = rate / bandwidth;
}

void register_case(int64_t m, const Shape& shape, const Codes& kind) {
  benchmark::RegisterBenchmark(
      fmt::format("w8a8sc/{}/m:{}/k:{}/n:{}", kind.name, m, shape.k, shape.n).c_str(),
      [=](benchmark::State& state) { run_product(state, m, shape, kind); })
      ->UseManualTime()
      ->MinTime(0.3)
      ->Unit(benchmark::kMillisecond);
}

void register_pack() {
  benchmark::RegisterBenchmark("pack/k:4096/n:4096", [](benchmark::State& state) {
    const Shape shape{4096, 4096};
    const std::vector<int8_t> codes = make_codes(shape, kSigma3);
    for (auto _ : state) {
      benchmark::DoNotOptimize(
          PackedW8A8sc::pack(codes.data(), shape.n, shape.k, shape.k, machine().team));
    }
    state.SetBytesProcessed(state.iterations() * shape.n * shape.k);
  })->UseRealTime();
}

void register_cases() {
  const std::vector<Shape> shapes{{1536, 8960}, {8960, 1536}, {3584, 18944}, {4096, 4096}};
  for (const Shape& shape : shapes) {
    for (const int64_t m : {1, 2, 4, 8, 16, 64, 512}) register_case(m, shape, kSigma3);
    register_case(1, shape, kTenth);
  }
  register_pack();
}

}  // namespace
}  // namespace llmq::bench

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  llmq::bench::Machine& here = llmq::bench::machine();
  fmt::print(
      "{} on {} threads: read bandwidth {:.1f} GB/s\n",
      llmq::quant::isa_name(llmq::quant::active_isa()), here.team.n_threads(),
      llmq::bench::measure_read_bandwidth(here.arena.data(), here.arena.size_bytes(), here.team));
  llmq::bench::register_cases();
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
  return 0;
}
