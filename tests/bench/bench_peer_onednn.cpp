// oneDNN's matrix product at the shapes of the matrix kernels, beside the same peaks. Weights are
// in the layout that it chooses, packed before the clock starts, as they are for the kernels here.

#include <benchmark/benchmark.h>
#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <oneapi/dnnl/dnnl.hpp>
#include <string>
#include <vector>

#include "quant/kernels/thread_team.h"
#include "tests/bench/floors.h"
#include "tests/bench/peer_shapes.h"

namespace llmq::bench {
namespace {

using dnnl::memory;

struct Kind {
  const char* name;
  memory::data_type activations;
  memory::data_type weights;
  memory::data_type out;
  const char* share;
};

using dt = memory::data_type;
constexpr Kind kKinds[] = {{"onednn_u8s8", dt::u8, dt::s8, dt::f32, "share_of_int8_peak"},
                           {"onednn_s8s8", dt::s8, dt::s8, dt::f32, "share_of_int8_peak"},
                           {"onednn_bf16", dt::bf16, dt::bf16, dt::f32, "share_of_bf16_peak"},
                           {"onednn_f32", dt::f32, dt::f32, dt::f32, "share_of_fp32_peak"}};

double peak_of(const Kind& kind, quant::ThreadTeam& team) {
  if (kind.weights == dt::s8) return measure_int8_peak(team).gops;
  return kind.weights == dt::bf16 ? measure_bf16_peak(team) : measure_fma_peak(team).gflops;
}

// A small normal number in every float type, 60 in int8.
void fill(memory& m) {
  std::memset(m.get_data_handle(), 0x3c, m.get_desc().get_size());
}

double seconds_of(const Kind& kind, const PeerShape& shape, benchmark::State& state) {
  const dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  dnnl::stream stream(engine);
  const memory::desc x_desc({shape.m, shape.k}, kind.activations, memory::format_tag::ab);
  const memory::desc w_desc({shape.k, shape.n}, kind.weights, memory::format_tag::any);
  const memory::desc y_desc({shape.m, shape.n}, kind.out, memory::format_tag::ab);
  const dnnl::matmul::primitive_desc description(dnnl::matmul::desc(x_desc, w_desc, y_desc),
                                                 engine);
  memory x(x_desc, engine);
  memory weights(description.weights_desc(), engine);
  memory y(y_desc, engine);
  fill(x);
  fill(weights);
  const dnnl::matmul product(description);
  double best = 1e30;
  for (auto _ : state) {
    const double seconds = fastest_seconds(1, [&] {
      product.execute(stream, {{DNNL_ARG_SRC, x}, {DNNL_ARG_WEIGHTS, weights}, {DNNL_ARG_DST, y}});
      stream.wait();
    });
    best = std::min(best, seconds);
    state.SetIterationTime(seconds);
  }
  return best;
}

void run_product(benchmark::State& state, const Kind& kind, const PeerShape& shape) {
  quant::ThreadTeam team;
  const double peak = peak_of(kind, team);
  try {
    const double seconds = seconds_of(kind, shape, state);
    const double gops = 2.0 * static_cast<double>(shape.m * shape.n * shape.k) / seconds * 1e-9;
    state.counters["GOPS"] = gops;
    state.counters[kind.share] = gops / peak;
  } catch (const dnnl::error& error) {
    state.SkipWithError(error.what());
  }
}

}  // namespace
}  // namespace llmq::bench

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  for (const auto& kind : llmq::bench::kKinds) {
    for (const llmq::bench::PeerShape& shape : llmq::bench::kPeerShapes) {
      benchmark::RegisterBenchmark(
          fmt::format("{}/m:{}/k:{}/n:{}", kind.name, shape.m, shape.k, shape.n).c_str(),
          [&kind, shape](benchmark::State& state) { llmq::bench::run_product(state, kind, shape); })
          ->UseManualTime()
          ->MinTime(0.3)
          ->Unit(benchmark::kMillisecond);
    }
  }
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
  return 0;
}
