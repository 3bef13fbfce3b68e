// Attention of one layer: decode beside the read bandwidth, prefill beside the float peaks,
// measured in the same run with the same threads, and quantized attention beside that of bf16.

#include <benchmark/benchmark.h>
#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "quant/kernels/thread_team.h"
#include "runtime/attention/attention.h"
#include "tests/bench/floors.h"

namespace llmq::bench {
namespace {

using formats::DType;
using runtime::AttentionShape;

enum class Kind : uint8_t { kF32, kBf16, kInt8, kFaQuant };

struct Case {
  AttentionShape shape;
  Kind kind = Kind::kF32;
  int64_t depth = 0;
  int64_t n_queries = 1;
  int64_t batch = 1;
};

/// What is measured beside every case.
struct Bench {
  quant::ThreadTeam team;
  Arena arena{int64_t{1} << 30};

  double read_gbs() { return measure_read_bandwidth(arena.data(), arena.size_bytes(), team); }
};

DType dtype_of(Kind kind) {
  if (kind == Kind::kF32) return DType::kF32;
  return kind == Kind::kBf16 ? DType::kBF16 : DType::kI8;
}

// One layer over several sequences of the same depth.
class Problem {
 public:
  explicit Problem(const Case& c)
      : attention_(c.shape),
        n_lanes_(static_cast<size_t>(c.shape.n_heads * c.shape.head_dim)),
        q_(n_lanes_ * static_cast<size_t>(c.n_queries * c.batch), 0.3F),
        out_(q_.size()),
        q_scale_(static_cast<size_t>(c.shape.n_heads), 0.03F),
        q_offset_(q_scale_.size(), 0.0F),
        kv_scale_(static_cast<size_t>(c.shape.n_kv_heads), 0.03F),
        kv_offset_(kv_scale_.size(), 0.0F) {
    fa_ = {q_scale_, q_offset_, kv_scale_, kv_offset_, kv_scale_, kv_offset_};
    const auto table = std::make_shared<runtime::KvCodeTable>();
    table->add_layer(fa_, c.shape.head_dim);
    for (int64_t i = 0; i < c.batch; ++i) {
      caches_.push_back(
          std::make_unique<runtime::KvCache>(runtime::KvLayout{.n_layers = 1,
                                                               .n_kv_heads = c.shape.n_kv_heads,
                                                               .head_dim = c.shape.head_dim,
                                                               .dtype = dtype_of(c.kind),
                                                               .codes = table}));
      fill(c, *caches_.back());
      segments_.push_back({.cache = caches_.back().get(),
                           .first_row = i * c.n_queries,
                           .n_rows = c.n_queries,
                           .first_position = c.depth - c.n_queries});
    }
    const auto n_rows = c.n_queries * c.batch;
    const auto stride = static_cast<int64_t>(n_lanes_);
    args_.q = {q_.data(), n_rows, stride, stride};
    args_.out = {out_.data(), n_rows, stride, stride};
    args_.segments = segments_;
    if (c.kind == Kind::kFaQuant) args_.fa = &fa_;
  }

  void run(quant::ThreadTeam& team) { attention_.run(args_, team); }

 private:
  static void fill(const Case& c, runtime::KvCache& cache) {
    const auto n = static_cast<size_t>(c.shape.n_kv_heads * c.shape.head_dim);
    std::vector<float> row(n);
    cache.reserve(c.depth);
    for (int64_t position = 0; position < c.depth; ++position) {
      for (size_t i = 0; i < n; ++i)
        row[i] = static_cast<float>((static_cast<size_t>(position) * 31 + i * 17) % 101) * 0.02F;
      cache.store(0, position, row, row);
    }
  }

  runtime::Attention attention_;
  size_t n_lanes_;
  std::vector<float> q_;
  std::vector<float> out_;
  std::vector<float> q_scale_;
  std::vector<float> q_offset_;
  std::vector<float> kv_scale_;
  std::vector<float> kv_offset_;
  runtime::FaScales fa_;
  std::vector<std::unique_ptr<runtime::KvCache>> caches_;
  std::vector<runtime::BatchSegment> segments_;
  runtime::AttentionArgs args_;
};

double pairs_of(const Case& c) {
  // The masked half of the new tokens' own square is not counted.
  return static_cast<double>(c.batch * c.n_queries) *
         (static_cast<double>(c.depth) - static_cast<double>(c.n_queries - 1) / 2.0);
}

std::string name_of(const std::string& family, const Case& c) {
  static constexpr const char* kNames[] = {"f32", "bf16", "int8", "faquant"};
  return fmt::format("{}/{}/heads:{}:{}/d:{}/depth:{}/batch:{}", family,
                     kNames[static_cast<int>(c.kind)], c.shape.n_heads, c.shape.n_kv_heads,
                     c.shape.head_dim, c.depth, c.batch);
}

/// A token's attention: bytes of keys and values over the bandwidth of reading.
void decode(Bench& bench, const Case& c) {
  benchmark::RegisterBenchmark(
      name_of("attention_decode", c).c_str(), [c, &bench](benchmark::State& state) {
        Problem problem(c);
        double best = 1e30;
        double read_gbs = bench.read_gbs();
        for (auto _ : state)
          best = std::min(best, fastest_seconds(1, [&] { problem.run(bench.team); }));
        read_gbs = std::max(read_gbs, bench.read_gbs());
        const double bytes =
            2.0 * static_cast<double>(c.batch * c.depth * c.shape.n_kv_heads * c.shape.head_dim) *
            static_cast<double>(formats::dtype_size_bytes(dtype_of(c.kind)));
        state.counters["ms"] = best * 1e3;
        state.counters["GB/s"] = bytes / best * 1e-9;
        state.counters["share_of_bandwidth"] = bytes / best * 1e-9 / read_gbs;
      });
}

/// The last tokens of a prompt, beside the peaks of floats.
void prefill(Bench& bench, const Case& c) {
  benchmark::RegisterBenchmark(
      name_of("attention_prefill", c).c_str(), [c, &bench](benchmark::State& state) {
        Problem problem(c);
        double best = 1e30;
        double fp32 = measure_fma_peak(bench.team).gflops;
        double bf16 = measure_bf16_peak(bench.team);
        for (auto _ : state)
          best = std::min(best, fastest_seconds(1, [&] { problem.run(bench.team); }));
        fp32 = std::max(fp32, measure_fma_peak(bench.team).gflops);
        bf16 = std::max(bf16, measure_bf16_peak(bench.team));
        const double gflops = 4.0 * pairs_of(c) *
                              static_cast<double>(c.shape.n_heads * c.shape.head_dim) / best * 1e-9;
        state.counters["ms"] = best * 1e3;
        state.counters["GFLOPS"] = gflops;
        state.counters["share_of_fp32_peak"] = gflops / fp32;
        state.counters["share_of_bf16_peak"] = gflops / bf16;
      });
}

/// Quantized attention beside that over a bf16 cache, in turns.
void compare(Bench& bench, const Case& c) {
  benchmark::RegisterBenchmark(
      name_of("attention_fa", c).c_str(), [c, &bench](benchmark::State& state) {
        Problem problem(c);
        Case float_case = c;
        float_case.kind = Kind::kBf16;
        Problem reference(float_case);
        double best = 1e30;
        double best_reference = 1e30;
        for (auto _ : state) {
          best = std::min(best, fastest_seconds(1, [&] { problem.run(bench.team); }));
          best_reference =
              std::min(best_reference, fastest_seconds(1, [&] { reference.run(bench.team); }));
        }
        state.counters["ms"] = best * 1e3;
        state.counters["times_reference"] = best_reference / best;
      });
}

void register_all(Bench& bench) {
  constexpr int64_t kNewTokens = 256;
  for (const AttentionShape& shape :
       {AttentionShape{12, 2, 128}, AttentionShape{14, 2, 64}, AttentionShape{28, 4, 128}}) {
    for (const Kind kind : {Kind::kBf16, Kind::kInt8, Kind::kFaQuant}) {
      for (const int64_t batch : {1, 8}) decode(bench, {shape, kind, 32768, 1, batch});
      for (const int64_t depth : {8192, 32768}) {
        prefill(bench, {shape, kind, depth, kNewTokens});
        if (kind == Kind::kFaQuant) compare(bench, {shape, kind, depth, kNewTokens});
      }
    }
  }
}

}  // namespace
}  // namespace llmq::bench

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  llmq::bench::Bench bench;
  llmq::bench::register_all(bench);
  benchmark::RunSpecifiedBenchmarks();
}
