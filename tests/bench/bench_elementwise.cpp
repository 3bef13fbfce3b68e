// Elementwise operations on one thread: arrays in the L1 cache in elements per nanosecond, keys and
// values of a long context beside the read bandwidth of one thread measured in the same run.

#include <benchmark/benchmark.h>
#include <fmt/format.h>

#include <functional>
#include <string>
#include <vector>

#include "quant/kernels/cpu.h"
#include "quant/kernels/elementwise/elementwise.h"
#include "tests/bench/floors.h"

namespace llmq::bench {
namespace {

using quant::ElementwiseKernels;
using quant::RowType;

constexpr int64_t kElements = 2048;
constexpr int64_t kHeadDim = 128;
constexpr int64_t kContext = int64_t{1} << 21;  // rows; 512 MiB of bf16

void register_array(const std::string& name, const std::function<void()>& run) {
  benchmark::RegisterBenchmark(name.c_str(), [run](benchmark::State& state) {
    constexpr int kCalls = 100;
    double best = 1e30;
    for (auto _ : state) {
      best = std::min(best, fastest_seconds(1, [&] {
                        for (int i = 0; i < kCalls; ++i) run();
                      }));
    }
    state.counters["elements/ns"] = kElements * kCalls / best * 1e-9;
  });
}

void register_arrays(const ElementwiseKernels& k) {
  static std::vector<float> x(kElements, 0.3F);
  static std::vector<float> weight(kElements, 1.5F);
  static std::vector<float> y(kElements);
  float* out = y.data();
  register_array("rms_norm", [&k, out] {
    k.rms_norm({x.data(), weight.data(), 1e-6F, kElements, out});
  });
  register_array("silu_multiply",
                 [&k, out] { k.silu_multiply(x.data(), weight.data(), out, kElements); });
  register_array("exp", [&k, out] { k.exp(x.data(), out, kElements); });
  register_array("exp_sum", [&k, out] { out[0] = k.exp_sum(x.data(), 0.3F, out, kElements); });
  register_array("row_max", [&k, out] { out[0] = k.row_max(x.data(), kElements); });
  register_array("rope", [&k, out] {
    k.rope({x.data(), weight.data(), weight.data() + 64, kElements / 2, out});
  });
}

// One pass over kContext rows of keys or values for n_queries heads that share them.
void register_rows(const ElementwiseKernels& k, bool keys, int64_t n_queries) {
  const std::string name =
      fmt::format("{}/bf16/d:{}/queries:{}", keys ? "dot_rows" : "add_rows", kHeadDim, n_queries);
  benchmark::RegisterBenchmark(name.c_str(), [&k, keys, n_queries](benchmark::State& state) {
    static const Arena arena(kContext * kHeadDim * 2);
    quant::ThreadTeam one(1);
    const double floor = measure_read_bandwidth(arena.data(), arena.size_bytes(), one);
    const quant::StoredRows rows{arena.data(), RowType::kBf16, kHeadDim * 2, kContext};
    std::vector<float> heads(static_cast<size_t>(n_queries * kHeadDim), 0.1F);
    std::vector<float> scores(static_cast<size_t>(n_queries * kContext), 0.1F);
    double best = 1e30;
    for (auto _ : state) {
      best = std::min(best, fastest_seconds(1, [&] {
                        if (keys) {
                          k.dot_rows({heads.data(), kHeadDim, n_queries, kHeadDim, rows, 0.1F,
                                      scores.data(), kContext});
                        } else {
                          k.add_rows({scores.data(), kContext, n_queries, kHeadDim, rows,
                                      heads.data(), kHeadDim});
                        }
                      }));
    }
    const double rate = static_cast<double>(arena.size_bytes()) / best * 1e-9;
    state.counters["GB/s"] = rate;
    state.counters["floor"] = floor;
    state.counters["share_%"] = 100.0 * rate / floor;
  })->Unit(benchmark::kMillisecond);
}

}  // namespace
}  // namespace llmq::bench

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  const llmq::quant::ElementwiseKernels& kernels = llmq::quant::elementwise_kernels();
  fmt::print("{}\n", llmq::quant::isa_name(kernels.isa));
  llmq::bench::register_arrays(kernels);
  for (const bool keys : {true, false}) {
    for (const int64_t n_queries : {1, 4, 8}) llmq::bench::register_rows(kernels, keys, n_queries);
  }
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
  return 0;
}
