// Eigen's float32 product at the shapes of the matrix kernels, beside the same peaks: what a
// general library reaches here.

#include <benchmark/benchmark.h>
#include <fmt/format.h>

#include <Eigen/Core>
#include <algorithm>

#include "quant/kernels/thread_team.h"
#include "tests/bench/floors.h"
#include "tests/bench/peer_shapes.h"

namespace llmq::bench {
namespace {

using Matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

void run_product(benchmark::State& state, const PeerShape& shape) {
  quant::ThreadTeam team;
  const double peak = measure_fma_peak(team).gflops;
  Eigen::setNbThreads(team.n_threads());
  const Matrix x = Matrix::Constant(shape.m, shape.k, 0.5F);
  const Matrix weights = Matrix::Constant(shape.n, shape.k, 0.25F);
  Matrix y(shape.m, shape.n);
  double best = 1e30;
  for (auto _ : state) {
    const double seconds = fastest_seconds(1, [&] {
      y.noalias() = x * weights.transpose();
      benchmark::DoNotOptimize(y.data());
    });
    best = std::min(best, seconds);
    state.SetIterationTime(seconds);
  }
  const double gflops = 2.0 * static_cast<double>(shape.m * shape.n * shape.k) / best * 1e-9;
  state.counters["GFLOPS"] = gflops;
  state.counters["share_of_fp32_peak"] = gflops / peak;
}

}  // namespace
}  // namespace llmq::bench

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  for (const llmq::bench::PeerShape& shape : llmq::bench::kPeerShapes) {
    benchmark::RegisterBenchmark(
        fmt::format("eigen_f32/m:{}/k:{}/n:{}", shape.m, shape.k, shape.n).c_str(),
        [shape](benchmark::State& state) { llmq::bench::run_product(state, shape); })
        ->UseManualTime()
        ->MinTime(0.3)
        ->Unit(benchmark::kMillisecond);
  }
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
  return 0;
}
