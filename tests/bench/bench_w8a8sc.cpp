// Compression of W8A8SC on Gaussian weights: entropy, size and speed for the thresholds that the
// options allow, as the table of docs/w8a8sc.md. Rates are in 10^9 (GB) or 10^6 (MB) bytes of int8
// codes a second on one thread, checksums included.
//   bench_w8a8sc [ROWS COLUMNS]

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <random>
#include <string>
#include <vector>

#include "quant/codec/w8a8sc.h"
#include "quant/sparse.h"
#include "tests/bench/floors.h"

namespace llmq::bench {
namespace {

using quant::W8A8scCodec;

struct Shape {
  int64_t n = 4096;
  int64_t k = 4096;
  [[nodiscard]] int64_t n_codes() const { return n * k; }
};

struct Case {
  std::string name;
  quant::SparseSpec spec;
};

std::vector<Case> cases() {
  std::vector<Case> result;
  for (const double sigma : {3.0, 3.5, 4.0}) {
    result.push_back(
        {fmt::format("sigma_factor {}", sigma), {.use_sigma = true, .sigma_factor = sigma}});
  }
  for (const double fraction : {0.011, 0.02, 0.1}) {
    result.push_back({fmt::format("fraction {}", fraction), {.fraction = fraction}});
  }
  return result;
}

std::vector<float> gaussian_weights(const Shape& shape) {
  std::mt19937 random(7);
  std::normal_distribution<float> normal(0.0F, 0.02F);
  std::vector<float> weights(static_cast<size_t>(shape.n_codes()));
  for (float& weight : weights) weight = normal(random);
  return weights;
}

std::vector<int8_t> sparse_codes(const std::vector<float>& weights, const Shape& shape,
                                 const quant::SparseSpec& spec) {
  std::vector<int8_t> codes(weights.size());
  for (int64_t row = 0; row < shape.n; ++row) {
    const auto first = static_cast<size_t>(row * shape.k);
    const auto values = std::span(weights).subspan(first, static_cast<size_t>(shape.k));
    const auto scale =
        static_cast<float>(quant::sparse_threshold(values, spec)) / quant::kSparseSteps;
    for (size_t i = 0; i < values.size(); ++i) {
      const float code = std::nearbyint(values[i] / scale);
      codes[first + i] = static_cast<int8_t>(std::clamp(code, -127.0F, 127.0F));
    }
  }
  return codes;
}

struct Timing {
  double encode = 0.0;  // seconds
  double encode_two_threads = 0.0;
  std::vector<double> decode;  // by supported instruction set
};

Timing measure(const formats::ConstCodes& codes, W8A8scCodec codec) {
  quant::ThreadTeam one(1);
  quant::ThreadTeam two(2);
  Timing timing;
  timing.encode = fastest_seconds(3, [&] { quant::compress_codes(codes, codec, one); });
  timing.encode_two_threads = fastest_seconds(3, [&] { quant::compress_codes(codes, codec, two); });
  const quant::CompressedCodes compressed = quant::compress_codes(codes, codec, one);
  const quant::CompressedReader reader({compressed.weight, compressed.index, compressed.info});
  std::vector<int8_t> decoded(static_cast<size_t>(codes.n * codes.k));
  for (const quant::Isa isa : quant::supported_isas()) {
    timing.decode.push_back(fastest_seconds(5, [&] {
      reader.decode({decoded.data(), codes.n, codes.k, codes.k}, one, isa);
    }));
  }
  return timing;
}

void print_row(const Case& row, const Shape& shape, const std::vector<float>& weights,
               W8A8scCodec codec) {
  const std::vector<int8_t> codes = sparse_codes(weights, shape, row.spec);
  const formats::ConstCodes view{codes.data(), shape.n, shape.k, shape.k};
  quant::ThreadTeam one(1);
  const quant::CompressedCodes compressed = quant::compress_codes(view, codec, one);
  const auto n_codes = static_cast<double>(shape.n_codes());
  const double entropy = quant::entropy_bits(quant::count_codes(view, one));
  const double coded = 8.0 * static_cast<double>(compressed.weight.size()) / n_codes;
  const double stored = coded + 8.0 * static_cast<double>(compressed.index.size()) / n_codes;
  const Timing timing = measure(view, codec);
  fmt::print("| {} | {} | {:.4f} | {:.4f} | {:.4f} | {:+.2f} % | {:.0f} | {:.2f} |", row.name,
             quant::codec_name(codec), entropy, stored, stored / 8.0,
             100.0 * (stored / entropy - 1.0), n_codes / timing.encode * 1e-6,
             timing.encode / timing.encode_two_threads);
  for (const double seconds : timing.decode) fmt::print(" {:.2f} |", n_codes / seconds * 1e-9);
  fmt::print("\n");
}

void print_table(const Shape& shape) {
  fmt::print("Gaussian weights [{}, {}], one thread\n\n", shape.n, shape.k);
  fmt::print(
      "| threshold | codec | entropy | bits per weight | of int8 | over entropy | encode MB/s | "
      "two "
      "threads × |");
  for (const quant::Isa isa : quant::supported_isas()) {
    fmt::print(" decode GB/s {} |", quant::isa_name(isa));
  }
  fmt::print("\n|---|---|---|---|---|---|---|---|");
  for (size_t i = 0; i < quant::supported_isas().size(); ++i) fmt::print("---|");
  fmt::print("\n");
  const std::vector<float> weights = gaussian_weights(shape);
  for (const W8A8scCodec codec : {W8A8scCodec::kRans, W8A8scCodec::kDeflate}) {
    for (const Case& row : cases()) print_row(row, shape, weights, codec);
  }
}

}  // namespace
}  // namespace llmq::bench

int main(int argc, char** argv) {
  llmq::bench::Shape shape;
  if (argc == 3) shape = {std::atoll(argv[1]), std::atoll(argv[2])};
  if (argc == 2 || argc > 3 || shape.n < 1 || shape.k < 1) {
    fmt::print(stderr, "usage: bench_w8a8sc [ROWS COLUMNS]\n");
    return 2;
  }
  llmq::bench::print_table(shape);
  return 0;
}
